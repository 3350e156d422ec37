"""The command line: `qlearn doctor`, `prepare`, `lab` and `bench`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="A course in quantizing PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.command()
def doctor() -> None:
    """Show what this machine has and what that means for the course."""
    from rich.console import Console
    from rich.table import Table

    from qlearn.doctor import examine

    colours = {"ok": "green", "note": "yellow", "FAIL": "bold red"}
    table = Table("", "what", "found", "what that means")
    findings = examine()
    for finding in findings:
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, finding.found, finding.meaning)
    console = Console()
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(f"{finding.verdict}: {finding.subject}. {finding.remedy}", markup=False)
    if any(finding.verdict == "FAIL" for finding in findings):
        console.print("The course cannot run yet.")
        raise typer.Exit(1)
    console.print("The course can run.")


@app.command()
def prepare(
    everything: Annotated[
        bool, typer.Option("--all", help="Also fetch what needs the network.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train again what is there.")] = False,
) -> None:
    """Train the base models of the lessons, once, into the cache."""
    from qlearn.pretrained import prepare_all

    prepare_all(force=force, everything=everything)


@app.command()
def lab(
    port: Annotated[int | None, typer.Option(help="TCP port to listen on.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the first lesson in a browser.")] = True,
) -> None:
    """Open the course in JupyterLab."""
    from qlearn.lab import start

    try:
        code = start(port, browser)
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(code)


@app.command()
def bench(
    output: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    quick: Annotated[bool, typer.Option(help="Fewer rounds and one seed: a trial.")] = False,
) -> None:
    """Measure each technique on each model, and other engines beside PyTorch."""
    from qlearn.bench import main

    main(output, quick=quick)
