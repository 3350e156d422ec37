"""``qlearn kit``: build, check and serve a kit, and take from it what belongs in the cache."""

from pathlib import Path
from typing import Annotated

import typer

from qlearn.system.arguments import exiting_on, split_list

app = typer.Typer(help="Set a room up without a network.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The kit's folder, such as /media/usb.")]


@app.command("build")
def build_kit(
    folder: Folder,
    systems: Annotated[
        str, typer.Option("--for", help="Some of linux,linux-arm,macos,windows.")
    ] = "linux,macos,windows",
    python: Annotated[str, typer.Option(help="Versions of Python, such as 3.11,3.12.")] = "3.12",
) -> None:
    """Put wheels, base models, the course and its site into a folder; go on where it broke off."""
    from qlearn.room.kit.build import build

    with exiting_on(OSError, RuntimeError, ValueError):
        build(folder, split_list(systems), split_list(python))


@app.command("check")
def check_kit(folder: Folder) -> None:
    """Read every file of a kit, and name those that are damaged, cut short or missing."""
    from qlearn.room.kit.build import check

    with exiting_on(OSError, ValueError):
        faults = check(folder)
    typer.echo("\n".join(faults) or "Every file is as it was built.")
    raise typer.Exit(bool(faults))


@app.command("serve")
def serve_kit(
    folder: Folder,
    lan: Annotated[bool, typer.Option("--lan", help="Let the network's laptops in.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Address to listen on, if not --lan's.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 0,
) -> None:
    """Serve a kit to a room, after every file of it has been read; Ctrl-C stops."""
    from qlearn.room.kit.server import serve

    with exiting_on(OSError, RuntimeError, ValueError):
        serve(folder, lan, address, port)


@app.command("adopt")
def adopt_kit(folder: Folder) -> None:
    """Put a kit's base models, sweeps and libraries into this machine's cache."""
    from qlearn.room.kit.contents import adopt
    from qlearn.room.kit.install import CACHE

    with exiting_on(OSError, ValueError):
        adopt(folder / CACHE)
