"""The instructor's part of the command line: `qlearn collect`, `grade` and `grades`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from qlearn.system.arguments import exiting_on, split_list

app = typer.Typer()


def _require_posix() -> None:
    if sys.platform == "win32":
        typer.echo("Grading needs Linux, or macOS with --no-sandbox.", err=True)
        raise typer.Exit(1)


@app.command()
def collect(
    archive: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A zip file.")],
    exercise: Annotated[str, typer.Argument(help="Such as ex1_resnet_dynamic.")],
    zone: Annotated[
        str | None, typer.Option(help="Of its times: Europe/Berlin; default: this machine's.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace other submissions that are there.")
    ] = False,
) -> None:
    """Put a download of Canvas, Moodle, Blackboard or Brightspace where it is graded."""
    _require_posix()
    from qlearn.grading.collect import collect

    with exiting_on(OSError, LookupError, ValueError):
        raise typer.Exit(collect(archive, exercise, zone, force))


@app.command()
def grade(
    exercise: Annotated[str, typer.Argument(help="Such as ex1_resnet_dynamic.")],
    students: Annotated[str, typer.Option(help="Only these: ann,ben.")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: cores.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler, instead of workers here.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="CPU seconds for a submission's work.")
    ] = 1800,
    memory: Annotated[int, typer.Option(min=100, help="MB for a submission.")] = 4000,
    force: Annotated[bool, typer.Option("--force", help="Grade again what is unchanged.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per verdict.")] = False,
    sandbox: Annotated[
        bool, typer.Option("--sandbox/--no-sandbox", help="Run what learners wrote in bubblewrap.")
    ] = True,
    show_hidden: Annotated[
        bool, typer.Option("--show-hidden", help="Show hidden tests in the feedback.")
    ] = False,
    variants_by_id: Annotated[
        bool, typer.Option("--variants-by-id", help="Sizes follow from the folder's student id.")
    ] = False,
) -> None:
    """Grade what a class handed in for an exercise: grades, graded notebooks and feedback."""
    _require_posix()
    from qlearn.grading.run import command

    code = command(
        exercise,
        timeout,
        memory,
        sandbox,
        workers,
        students=split_list(students),
        scheduler=scheduler,
        force=force,
        as_json=as_json,
        hidden_shown=show_hidden,
        variants_by_id=variants_by_id,
    )
    raise typer.Exit(code)


@app.command()
def grades(
    exercise: Annotated[str | None, typer.Argument(help="One exercise; default: all.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every part's score here.")] = None,
    similar: Annotated[
        bool, typer.Option("--similar", help="List near-identical work of the exercise.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write a page about the exercise here (HTML).")
    ] = None,
) -> None:
    """Show how a class did: scores, their histogram, and the parts most often missed."""
    from qlearn.grading.report import report

    with exiting_on(OSError, LookupError):
        if (similar or page) and exercise is None:
            raise LookupError("Say which exercise: --similar and --page are about one.")
        report(exercise, csv)
        if similar:
            from qlearn.grading.similar import report as report_similar

            report_similar(exercise)
        if page:
            from qlearn.grading.class_page import write

            write(exercise, page)
