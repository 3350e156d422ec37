"""The cache folder, and files and folders in it that are never half written."""

import ast
import contextlib
import hashlib
import io
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

# What is being made is there for minutes at most; what is older was left by a crash.
STALE_SECONDS = 24 * 3600
UNFINISHED = ".making-"
PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "torchao", "executorch", "numpy", "scikit-learn")


def home() -> Path:
    """Return the cache folder: ``QLEARN_HOME`` when set, else the platform's user cache."""
    chosen = os.environ.get("QLEARN_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qlearn", appauthor=False)


def source_digest(entry: str) -> str:
    """Return a hash of all that a result of a module is made with, apart from its arguments.

    It is the text of every module of this package that the entry can reach, the versions of the
    libraries that compute, and the kind of machine.

    Parameters
    ----------
    entry
        Dotted name of the module, such as "qlearn.sweeps.sweeping".
    """
    made_with = platform.machine(), [version(name) for name in LIBRARIES]
    digest = hashlib.sha256(repr(made_with).encode())
    for path in sorted(reachable(entry)):
        digest.update(path.as_posix().encode())
        digest.update((PACKAGE.parent / path).read_bytes())
    return digest.hexdigest()


def reachable(entry: str) -> set[Path]:
    """Return the files of the package that a module imports, directly or not, and its own.

    Imports inside functions count. Paths are relative to the folder in which the package lies.
    """
    found: set[Path] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or file in found:
            continue
        found.add(file)
        waiting.append(name.rpartition(".")[0])  # a package is imported before what is in it
        for node in ast.walk(ast.parse((PACKAGE.parent / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _file_of(name: str) -> Path | None:
    """Return the file of a module of this package, None for any other name."""
    path = Path(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py") if path.parts else ()
    return next((file for file in files if (PACKAGE.parent / file).is_file()), None)


def save_atomically(value: Any, path: Path) -> None:
    """Write ``value`` with ``torch.save`` so that ``path`` is either whole or absent.

    Raises
    ------
    OSError
        If the folder cannot be written to, or has no room.
    """
    import torch  # not above: who only asks for the folder need not pay for it

    # Not into the file at once: where the disk is full, PyTorch raises a RuntimeError about itself.
    content = io.BytesIO()
    torch.save(value, content)

    with write_whole(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())


def as_path(path: object) -> Path:
    """Return a text or a path as a path, with ``~`` as home; a ValueError for anything else."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"a {type(path).__name__} is no path: give a text or a Path.")
    if isinstance(path, str) and path.startswith(("http://", "https://", "ftp://")):
        raise ValueError(f"{path} is an address: download it first, and give the path of the file.")
    path = Path(path)
    return path.expanduser() if path.parts[:1] == ("~",) else path


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a path near ``path``; what the block makes there takes its place if it succeeds.

    It lies in the same folder, because a rename is atomic only within one file system. What an
    interrupted process left behind is removed.

    Parameters
    ----------
    path
        A file, which replaces one that is there, or a folder that is not there yet. Another process
        that makes the same folder may be quicker: then what it made stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # it is finished just now
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as scratch:
        unfinished = Path(scratch) / path.name
        yield unfinished
        try:
            os.replace(unfinished, path)
        except OSError:
            if not (unfinished.is_dir() and path.is_dir()):
                raise
