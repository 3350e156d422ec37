"""From a folder that a student handed in to bytes: no link is followed, nothing is executed.

A folder that cannot be graded is refused in one sentence, which becomes the student's verdict.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

NOTEBOOK_MB, TOTAL_MB = 20, 100  # 10**6 bytes
FILES, DEPTH = 500, 8
LISTED = 10_000  # names in one folder, with those that are not read
MANY = f"There are more than {FILES} files and folders."
Contents = tuple[dict[str, bytes], str]
TIMESTAMP = "timestamp.txt"
NOTEBOOK = re.compile(r".*\.ipynb(?:\.txt|\.json)?", re.IGNORECASE | re.DOTALL)
ARCHIVER = "__MACOSX"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a pipe that took the file's place must not hold up the class.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_ISLNK: "a symbolic link",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISDIR: "a folder",
    stat.S_ISREG: "a file",
}


class Refused(ValueError):
    """A submission that cannot be graded; the message is one sentence about it."""


def shown(name: str) -> str:
    """Return a name that a student chose as it can be printed: quoted, escaped, not too long."""
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")


def read(root: Path, place: Path, notebook: str, ignored: Sequence[str] = ()) -> Contents:
    """Read a submission.

    Parameters
    ----------
    root
        The folder of all submissions; it may be a link.
    place
        The submission's folder, relative to ``root``; no part of it may be a link.
    notebook
        Name of its notebook. Other notebooks are left where they are; the only one is taken for it,
        and then paths are relative to its folder where they can be.
    ignored
        Patterns of names that are not read.

    Returns
    -------
    tuple
        Contents by path relative to the submission's folder, the notebook's among them, and what
        the notebook was called, if it had another name.

    Raises
    ------
    Refused
        When it holds links, devices, too much, or no such notebook.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in place.parts:
        outer = folder
        try:
            folder = os.open(part, _FOLDER, dir_fd=outer)
        except OSError as error:
            found = _kind(os.stat(part, dir_fd=outer, follow_symlinks=False).st_mode)
            problem = error.strerror if found == "a folder" else f"it is {found}"
            raise Refused(f"{shown(part)} is no folder that can be read: {problem}.") from None
        finally:
            os.close(outer)
    try:
        return _contents(folder, notebook, ignored)
    finally:
        os.close(folder)


def _contents(folder: int, notebook: str, ignored: Sequence[str], taken: str = "") -> Contents:
    files: dict[str, bytes] = {}
    others, total = [], 0
    for path, name, within in _walk(folder, "", ignored, count(1)):
        if path != notebook and NOTEBOOK.fullmatch(path):
            others.append(path)
            if path != taken:
                continue
            path = notebook
        most = NOTEBOOK_MB if path == notebook else TOTAL_MB
        files[path] = _read(path, name, within, most * 10**6)
        total += len(files[path])
        if total > TOTAL_MB * 10**6:
            raise Refused(f"The files are larger than {TOTAL_MB} MB together.")
    if notebook not in files and len(others) == 1 and others[0] != taken:
        return _contents(folder, notebook, ignored, taken=others[0])
    if notebook not in files:
        names = ", ".join(map(shown, sorted(others)[:3]))
        found = f"what is there is called {names}" if names else "no notebook is there"
        raise Refused(f"The notebook {notebook} is missing; {found}.")
    return _risen(files, taken), taken


def _risen(files: dict[str, bytes], taken: str) -> dict[str, bytes]:
    """Return files with those beside a notebook that is deeper where they are beside it again.

    The time stays the one that is on top: what is deeper is of the student's making.
    """
    folder = taken[: taken.rfind("/") + 1]
    deep = {path: path.removeprefix(folder) for path in files if folder and path.startswith(folder)}
    found = {path: content for path, content in files.items() if path not in deep}
    return found | {path: files[old] for old, path in deep.items() if path != TIMESTAMP}


def _walk(
    folder: int, prefix: str, ignored: Sequence[str], number: Iterator[int]
) -> Iterator[tuple[str, str, int]]:
    """Yield path, name and the open folder of each file; refuse what is neither file nor folder.

    ``number`` counts files and folders together: a folder without files takes its time too.
    """
    if prefix.count("/") > DEPTH:
        raise Refused(f"Folders are nested deeper than {DEPTH}.")
    for name in _names(folder):
        if any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
            continue
        path = f"{prefix}{name}"
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if name.startswith((".", ARCHIVER)) and not stat.S_ISREG(mode):
            continue  # such as .git and .venv: what programs keep there is not handed in
        if next(number) > FILES:
            raise Refused(MANY)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Refused(f"The name {shown(path)} is not UTF-8.") from None
        if stat.S_ISREG(mode):
            yield path, name, folder
        elif stat.S_ISDIR(mode):
            inner = _open(path, name, folder, _FOLDER)
            try:
                yield from _walk(inner, f"{path}/", ignored, number)
            finally:
                os.close(inner)
        else:
            raise Refused(f"{shown(path)} is {_kind(mode)}: hand in the file itself.")


def _names(folder: int) -> list[str]:
    """Return the names in a folder, in order; refuse so many that listing them takes long."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in islice(entries, LISTED + 1))
    if len(names) > LISTED:
        raise Refused(MANY)
    return names


def _read(path: str, name: str, folder: int, most: int) -> bytes:
    """Read a regular file of at most so many bytes."""
    with open(_open(path, name, folder, _FILE), "rb") as file:
        facts = os.fstat(file.fileno())  # of what was opened, whatever has the name by now
        if not stat.S_ISREG(facts.st_mode):
            raise Refused(f"{shown(path)} is {_kind(facts.st_mode)}: hand in the file itself.")
        # A sparse file is as large as it says and takes no room on the disk.
        content = b"" if facts.st_size > most else file.read(most + 1)
    if facts.st_size > most or len(content) > most:
        raise Refused(f"{shown(path)} is larger than {most // 10**6} MB.")
    return content


def _open(path: str, name: str, folder: int, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise Refused(f"{shown(path)} cannot be read: {error.strerror}.") from None


def _kind(mode: int) -> str:
    return next((kind for test, kind in _KINDS.items() if test(mode)), "no file")
