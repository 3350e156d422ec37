"""What a kit takes from one machine's cache and puts into another's."""

import os
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from qlearn.system import inventory
from qlearn.system.cache import home, write_whole

MODELS = "models"
# Rows and studies carry the processor that they were measured on: another one measures its own.
MEASURED = ("sweeps", "studies")


def pack(archive: Path) -> None:
    """Write the cache's part of a kit: base models, what was measured, and fetched libraries.

    Base models that are missing are trained. A library that cannot be had is named, and left out.
    """
    with write_whole(archive) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for path, name in _list_files():
            file.write(path, name)


def _list_files() -> Iterator[tuple[Path, str]]:
    """Yield files of the cache and their names in a kit."""
    from qlearn.pretrained import RECIPES, path, prepare_all

    if "not kept" in prepare_all().values():
        raise OSError("The base models are not all in the cache.")
    for name in RECIPES:
        # Its own name there holds the build of PyTorch, which differs between systems.
        yield path(name), f"{MODELS}/{name}.pt"
    folders = [home() / name for name in MEASURED]
    for folder in [*folders, *_fetch_libraries()]:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield file, file.relative_to(home()).as_posix()


def _fetch_libraries() -> Iterator[Path]:
    """Yield folders of the phone lab's engine and of the Arm check's libraries."""
    from qlearn.export.arm.runner import find_libraries, on_arm
    from qlearn.room.phone.runtime import fetch_runtime

    wanted = {"the phone lab": fetch_runtime}
    if platform.system() == "Linux" and not on_arm():
        wanted["the Arm check"] = lambda: find_libraries("aarch64")
    for purpose, fetch in wanted.items():
        try:
            yield fetch()
        except (OSError, RuntimeError) as error:
            print(f"The kit is built without what {purpose} needs. {error}")


def adopt(archive: Path) -> None:
    """Put a kit's part of the cache into this machine's; what is there stays.

    Raises
    ------
    ValueError
        If the archive is missing or damaged.
    OSError
        If the cache cannot be written.
    """
    from qlearn.pretrained import RECIPES, path

    if not archive.is_file():
        raise ValueError(f"There is no {archive}: give the folder of a whole kit.")
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home()) as scratch:
        try:
            with zipfile.ZipFile(archive) as file:
                file.extractall(scratch)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise ValueError(f"{archive} is damaged or cut short: copy it again.") from None
        # Each is whole or absent there: a file, or the folder of a library.
        for entry in sorted(Path(scratch).glob("*/*")):
            target = home() / entry.relative_to(scratch)
            if entry.parent.name == MODELS:
                if entry.stem not in RECIPES:
                    continue
                target = path(entry.stem)
            if not target.exists():
                with write_whole(target) as unfinished:
                    os.replace(entry, unfinished)
    if all(path(name).exists() for name in RECIPES):
        inventory.record(map(path, RECIPES))
