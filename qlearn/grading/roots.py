"""The folders of a worker: all within one, which is removed even when its worker was killed."""

import atexit
import fcntl
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from qlearn.grading import cgroups

PREFIX, NEW = "qr-", "qn-"  # short, as the paths of sockets must be


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder of this worker's, and remove it whatever has become of it."""
    path = Path(tempfile.mkdtemp(dir=_root(os.getpid(), tempfile.gettempdir())))
    try:
        yield path
    finally:
        _remove(path)


def remove_leftovers() -> None:
    """Remove what workers of this user left that are no more, folders and sandboxes.

    The lock of a folder went with its worker.
    """
    _root(os.getpid(), tempfile.gettempdir())
    cgroups.remove_leftovers()


@functools.cache
def _root(process: int, temporary: str) -> Path:
    """Make the folder that a process holds, after what no process holds is gone.

    The lock comes before the name by which others look for what is left.
    """
    for left in Path(temporary).glob(f"{PREFIX}*"):
        _remove_unless_held(left)
    new = tempfile.mkdtemp(prefix=NEW, dir=temporary)
    # Held open, and not by programs that are started here, until this process is gone.
    fcntl.flock(os.open(new, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
    root = Path(new).rename(Path(temporary, PREFIX + Path(new).name.removeprefix(NEW)))
    atexit.register(_remove, root)
    return root


def _remove_unless_held(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it is another user's, or gone
        return
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _end_sandboxes(path)
            _remove(path)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def _end_sandboxes(root: Path) -> None:
    """Kill the sandboxes of a worker that is no more.

    They end with it, but bubblewrap that is killed while it makes one leaves a process behind
    that waits for it for ever.
    """
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            if words[:1] == ["bwrap"] and any(word.startswith(f"{root}/") for word in words):
                process.kill()


def _remove(path: Path) -> None:
    """Remove a folder; rm and chmod follow no links and do not mind how deep a hostile one is."""
    if subprocess.run(["rm", "-rf", "--", path], capture_output=True).returncode:
        subprocess.run(["chmod", "-R", "u+rwX", "--", path], capture_output=True)
        subprocess.run(["rm", "-rf", "--", path], capture_output=True)
