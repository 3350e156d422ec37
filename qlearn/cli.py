"""The command line: `qlearn doctor`, `prepare`, `lab`, `grade` and the rest."""

from pathlib import Path
from typing import Annotated

import typer

from qlearn.grading import commands as grading
from qlearn.room.kit import command as kit
from qlearn.system.arguments import exiting_on, split_list

app = typer.Typer(
    help="A course in quantizing PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(kit.app, name="kit")


@app.command()
def doctor(
    send: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="URL NICKNAME", help="Tell a room's board which rows are ok."),
    ] = None,
) -> None:
    """Show what this machine has and what that means for the course."""
    from qlearn.system.doctor import examine, show

    findings = examine()
    with exiting_on(OSError):  # a table that goes into a file may find no room
        show(findings)
    if send is not None:
        from qlearn.room import laptop

        with exiting_on(OSError, ValueError):
            laptop.send(*send, findings)
        typer.echo("The board has the first two columns of the table, and your nickname.")
    if any(finding.verdict == "FAIL" for finding in findings):
        typer.echo("The course cannot run yet.")
        raise typer.Exit(1)
    typer.echo("The course can run.")


@app.command()
def prepare(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also ImageNet weights, sweeps and the study of few bits."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Make again what is there.")] = False,
) -> None:
    """Train the base models of the lessons, once, into the cache."""
    from qlearn.pretrained import prepare_all
    from qlearn.system import threads

    threads.install()
    states = prepare_all(force=force, everything=everything)
    if everything and "not kept" not in states.values():
        from qlearn.sweeps.preparation import prepare_sweeps

        states |= prepare_sweeps(force)
    for name, state in states.items():
        typer.echo(f"{name:<32} {state}")
    if "not kept" in states.values():
        raise typer.Exit(1)


@app.command()
def lab(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TCP port to listen on.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the first lesson in a browser.")] = True,
) -> None:
    """Open the course in JupyterLab."""
    from qlearn.system import threads
    from qlearn.system.lab import start

    threads.install()
    with exiting_on(FileNotFoundError):
        code = start(port, browser)
    raise typer.Exit(code)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A course model, or a .pt2 file you trust.")],
    to: Annotated[
        str, typer.Option(help="Some of executorch,onnx,torchscript,lite.")
    ] = "executorch,onnx,torchscript",
    int8: Annotated[
        bool | None, typer.Option("--int8/--fp32", help="One precision instead of both.")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Dynamic int8 for ONNX, as an LSTM needs it.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("exported"),
) -> None:
    """Write a model for other runtimes, run each file, and write beside it what an app needs."""
    from qlearn.export.command import export_command

    raise typer.Exit(export_command(model, split_list(to), int8, output, dynamic))


@app.command("arm-check")
def arm_check(file: Annotated[Path, typer.Argument(help="An ExecuTorch file (.pte).")]) -> None:
    """Run an ExecuTorch file on an emulated Arm Cortex-A76 and compare its outputs with ours.

    The exit code is 0 if they agree, 1 if they differ, 2 if nothing could be compared. The CPU is
    pinned because its extensions choose the kernels. Emulated times mean nothing: none are given.
    """
    from qlearn.export import arm

    with exiting_on(OSError, RuntimeError, ValueError, code=2):
        report = arm.check(file)
    typer.echo(str(report))
    raise typer.Exit(0 if report.passes else 1)


@app.command()
def device(
    files: Annotated[list[Path], typer.Argument(help="ExecuTorch files; the first is the base.")],
    adb: Annotated[bool, typer.Option("--adb", help="The Android phone on the cable.")] = False,
    ssh: Annotated[str | None, typer.Option(help="A Linux board: USER@HOST.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="To time each file for, about.")] = 2.0,
    output: Annotated[Path | None, typer.Option(help="Keep the report here, as JSON.")] = None,
) -> None:
    """Time ExecuTorch files on a phone or board itself, and compare their outputs with ours.

    Nothing is installed there, and what is copied is removed. The exit code is 0 if all outputs
    agree, 1 if some differ, 2 if nothing could be measured. Tested with emulated devices only.
    """
    from qlearn.export.device import Adb, Ssh, measure, report

    if adb == (ssh is not None):
        typer.echo("Say which device: --adb, or --ssh USER@HOST.", err=True)
        raise typer.Exit(2)
    with exiting_on(OSError, RuntimeError, ValueError, code=2):
        with Adb() if adb else Ssh(ssh) as connection:
            measured = measure(files, connection, threads, seconds)
        if output is not None:
            report.write(measured, output)
    typer.echo(report.describe(measured))
    raise typer.Exit(0 if measured["agrees"] else 1)


@app.command()
def phone(
    lan: Annotated[bool, typer.Option("--lan", help="Let the network's phones in.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Address to listen on, if not --lan's.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 0,
    models: Annotated[str | None, typer.Option(help="For example small_cnn,resnet18.")] = None,
    runtime: Annotated[Path | None, typer.Option(help="Folder with onnxruntime-web.")] = None,
    reports: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File that reports are added to.")
    ] = None,
) -> None:
    """Serve a page on which phones time fp32 against int8, and collect their reports."""
    from qlearn.room.phone import MODELS, serve
    from qlearn.room.phone.terminal import serve_until_interrupted

    names = split_list(models) if models is not None else list(MODELS)
    with exiting_on(OSError, RuntimeError, ValueError):
        server = serve(names, lan, address, port, runtime, reports)
    serve_until_interrupted(server)


@app.command()
def room(
    lan: Annotated[bool, typer.Option("--lan", help="Let the network's notebooks in.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Address to listen on, if not --lan's.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 0,
    log: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File that events are added to.")
    ] = None,
) -> None:
    """Serve the board, which shows a room how far it is and who is stuck, and the phone lab."""
    from qlearn.room.serving import open_room, serve_until_interrupted

    with exiting_on(OSError, RuntimeError, ValueError):
        opened = open_room(lan, address, port, log)
    serve_until_interrupted(opened)


@app.command()
def pack(exercise: Annotated[str, typer.Argument(help="Such as ex1_resnet_dynamic.")]) -> None:
    """Make the zip file that you hand in: your notebook, saved, and the answers beside it."""
    from qlearn.exercises.packing import pack

    with exiting_on(OSError, ValueError):
        typer.echo(pack(exercise))


app.add_typer(grading.app)
