"""What a kernel and all that it started use, read from /proc, and a way to end them all."""

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
READ = 40  # processes of which the memory is read: a large one takes milliseconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Memory and CPU time of processes and their descendants.

    Parameters
    ----------
    pids
        Of bubblewrap, and of a kernel that is not its descendant.

    Attributes
    ----------
    memory_mb, peak_mb
        Now, and the most that was seen (10**6 bytes).
    cpu_seconds
        Of the processes that are there and those that they waited for.
    """

    def __init__(self, *pids: int) -> None:
        self.pids = pids
        self.memory_mb = self.peak_mb = self.cpu_seconds = 0.0

    def measure(self) -> None:
        """Read them anew; what has ended meanwhile counts no more."""
        pids = {one for pid in self.pids for one in descendants(pid)}
        self.memory_mb = _memory_of(pids) / 10**6
        self.peak_mb = max(self.peak_mb, self.memory_mb)
        self.cpu_seconds = max(self.cpu_seconds, sum(map(_cpu, pids)))


def descendants(pid: int) -> list[int]:
    """Return a process and all that it and they started, as far as they are there.

    Parameters
    ----------
    pid
        A process.
    """
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, _read(path).split())
    return found


class Hold:
    """A hold on a process and what it has started until now, even when its number is used again.

    Parameters
    ----------
    process
        Bubblewrap, or a kernel without a sandbox.
    """

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self._handles = _handles(descendants(process.pid))

    def end(self) -> None:
        """Kill it and all that it started, and return when they are gone.

        In a sandbox the first process within takes every other one of its namespace with it,
        and only then counts as gone itself.
        """
        alive = self.process.poll() is None
        others = self._handles[1:] + (_handles(descendants(self.process.pid)[1:]) if alive else [])
        _kill(others)
        if others:
            # Bubblewrap ends once its child has, and leaves no zombie when it sees to that itself.
            select.select(self._handles[:1], [], [], 1)
        _kill(self._handles[:1])
        self.process.wait()
        for handle in {*self._handles, *others}:
            os.close(handle)


def _handles(pids: list[int]) -> list[int]:
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def _kill(handles: list[int]) -> None:
    for handle in handles:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [], 30)


def folder_use(folder: Path, most: int) -> tuple[int, int]:
    """Return bytes and number of the files in a folder; links are not followed.

    Parameters
    ----------
    folder
        Any.
    most
        Stop counting beyond so many.
    """
    size = count = 0
    waiting = [str(folder)]
    while waiting and count <= most:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if count > most:
                        break
        except FileNotFoundError:
            continue
        except OSError:  # a path that is too long, or a folder that was closed to us
            count = most + 1
    return size, count


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _memory_of(pids: set[int]) -> float:
    """Bytes of processes together; where there are many, as the mean of those first read says."""
    some = sorted(pids)[:READ]
    return sum(map(_memory, some)) * len(pids) / max(len(some), 1)


def _memory(pid: int) -> int:
    """Bytes of a process, its share of what it shares; all of it where that cannot be read."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * _PAGE if fields else 0


def _cpu(pid: int) -> float:
    """User and system seconds of a process and of the children that it waited for."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK if fields else 0.0
