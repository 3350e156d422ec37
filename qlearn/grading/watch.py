"""What a kernel and all that it started use, read from /proc, and a way to end them all."""

import os
import random
import select
import signal
import stat
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
READ = 40  # processes of which the memory is read: a large one takes milliseconds
FILES_READ = 2000  # open files that are looked at: a thousand take milliseconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Memory, files without a name, and CPU time of processes and their descendants.

    Parameters
    ----------
    folder
        Where they work.
    pids
        Of bubblewrap, and of a kernel that is not its descendant.
    inside
        Folders in memory that only the sandbox has.

    Attributes
    ----------
    memory_mb, peak_mb
        Now, and the most that was seen (10**6 bytes); with files that are kept in memory.
    unlinked
        Bytes of files on the disk that are open and in no folder.
    cpu_seconds
        Of the processes that are there and those that they waited for.
    """

    def __init__(self, folder: Path, *pids: int, inside: Iterable[str] = ()) -> None:
        self.pids = pids
        self.memory_mb = self.peak_mb = self.cpu_seconds = 0.0
        self.unlinked = 0
        self._disk, self._inside = folder.stat().st_dev, inside

    def measure(self) -> None:
        """Read them anew; what has ended meanwhile counts no more."""
        pids = {one for pid in self.pids for one in descendants(pid)}
        memory = _memory_of(pids)
        counted: set[int] = set()
        for place in self._places():
            with suppress(OSError):
                full = os.statvfs(place)
                memory += (full.f_blocks - full.f_bfree) * full.f_frsize
                counted.add(os.stat(place).st_dev)
        nameless = _nameless(pids)
        self.unlinked = nameless.pop(self._disk, 0)
        memory += sum(size for device, size in nameless.items() if device not in counted)
        self.memory_mb = memory / 10**6
        self.peak_mb = max(self.peak_mb, self.memory_mb)
        self.cpu_seconds = max(self.cpu_seconds, sum(map(_cpu, pids)))

    def _places(self) -> list[str]:
        """Return the sandbox's folders in memory, as they are called out here."""
        within = descendants(self.pids[0])[1:2] if self._inside else []
        return [f"/proc/{pid}/root{place}" for pid in within for place in self._inside]


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
        # The number of one that was waited for may be another's.
        self._handles = _handles(descendants(process.pid)) if process.returncode is None else []

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


def folder_use(folders: Iterable[Path], most: int) -> tuple[int, int]:
    """Return bytes and number of the files in folders; links are not followed.

    Parameters
    ----------
    folders
        Any.
    most
        Stop counting beyond so many.
    """
    size = count = 0
    waiting = list(map(str, folders))
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
    """Bytes of processes together; where there are many, each of the rest as the least one read."""
    some = sorted(pids, key=_resident, reverse=True)[:READ]
    read = [_memory(pid) for pid in some]
    return sum(read) + (len(pids) - len(some)) * min(read, default=0)


def _nameless(pids: set[int]) -> dict[int, int]:
    """Bytes by device of open files that are in no folder, those of memfd_create included.

    Of so many open files as can be looked at in milliseconds, which are not always the same.
    """
    found: dict[tuple[int, int], int] = {}
    paths = (f"/proc/{pid}/fd" for pid in random.sample(sorted(pids), len(pids)))
    opened = (f"{path}/{name}" for path in paths for name in _listed(path))
    for path in islice(opened, FILES_READ):
        with suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    sizes: dict[int, int] = {}
    for (device, _), size in found.items():
        sizes[device] = sizes.get(device, 0) + size
    return sizes


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _resident(pid: int) -> int:
    """Bytes of a process, with all that it shares."""
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * _PAGE if fields else 0


def _memory(pid: int) -> int:
    """Bytes of a process, its share of what it shares; all of it where that cannot be read."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(pid)


def _cpu(pid: int) -> float:
    """User and system seconds of a process and of the children that it waited for."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK if fields else 0.0
