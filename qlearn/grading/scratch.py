"""The folder in which a submission runs: made of bytes, read back as bytes, then removed."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from qlearn.grading import roots

ANSWERS = "answers"  # as `qlearn.exercises` calls it, which is imported with PyTorch
ANSWER = re.compile(r"[a-z_][a-z0-9_]{0,63}\.(pt|ptl|pt2|pte|onnx|json)")
ANSWER_MB = 100
ANSWER_COUNT = 64
ANSWERS_MB = 200  # all of them: a sparse file takes no disk, and its whole size of memory here
# What the system says to a name that it cannot give.
NAMES = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL}


class Refused(Exception):
    """A submission that is not graded, with a sentence for the instructor."""


@contextmanager
def scratch(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Make a folder with files in it, and remove it whatever has become of it.

    Parameters
    ----------
    files
        By path relative to the folder.

    Raises
    ------
    Refused
        When a path leaves the folder or is none.
    """
    with roots.folder() as folder:
        for name, content in files.items():
            _write(folder, name, content)
        yield folder


def _write(folder: Path, name: str, content: bytes) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise Refused(f"A file that was handed in has the path {name!r}, which leaves its folder.")
    try:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in NAMES:
            raise  # this machine's fault, a full disk for example: no verdict, another time one
        kind = type(error).__name__
        raise Refused(f"A file that was handed in cannot be named {name!r} ({kind}).") from None


def work_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what the work cells may read: all but artifacts, which they have to make.

    Parameters
    ----------
    files
        What was handed in beside the notebook.
    """
    return {
        name: content for name, content in files.items()
        if PurePosixPath(name).parts[:1] != (ANSWERS,)
    }  # fmt: skip


def collect(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Read the artifacts that a submission wrote, after all its processes are gone.

    Parameters
    ----------
    folder
        The scratch folder: nothing in it is trusted, and no link is followed.

    Returns
    -------
    tuple
        Content by name of file, and a sentence for each file that was left out.
    """
    kept: dict[str, bytes] = {}
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        place = os.open(folder / ANSWERS, flags)
    except FileNotFoundError:
        return kept, []
    except OSError:
        return kept, [f"{ANSWERS}/ is no folder: its artifacts were left out."]
    left = []
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry, _ in zip(entries, range(10_000), strict=False)]
        for name in sorted(names):
            if ANSWER.fullmatch(name):
                problem = _read(place, name, kept)
                left += [f"{ANSWERS}/{name} {problem}."] if problem else []
    finally:
        os.close(place)
    return kept, left[:5]


def _read(place: int, name: str, kept: dict[str, bytes]) -> str:
    """Read one file into ``kept``, or say why not."""
    if len(kept) == ANSWER_COUNT:
        return f"was left out: there are more than {ANSWER_COUNT} artifacts"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, dir_fd=place)
    except OSError:
        return "was left out: it is a link or cannot be read"
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return "was left out: it is no ordinary file"
        if status.st_size > ANSWER_MB * 10**6:
            return f"was left out: it has more than {ANSWER_MB} MB"
        if status.st_size + sum(map(len, kept.values())) > ANSWERS_MB * 10**6:
            return f"was left out: all artifacts together have more than {ANSWERS_MB} MB"
        with open(handle, "rb", closefd=False) as file:
            kept[name] = file.read(ANSWER_MB * 10**6)
    finally:
        os.close(handle)
    return ""
