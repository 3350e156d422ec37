"""Control groups: how much memory and how many processes a kernel and all that it starts may have.

They count what no process owns too: shared memory, socket buffers, pipes and files in memory. Each
group has the same weight for the CPU, however many processes are in it.
"""

import functools
import os
import secrets
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from qlearn.grading.limits import Limits

PREFIX = "qlearn-"
LEAF = f"{PREFIX}grader"  # version 2: a group that has groups within has no processes of its own
CONTROLLERS = {1: ("memory", "pids", "cpu", "cpuacct"), 2: ("memory", "pids", "cpu")}
END_SECONDS = 30  # for processes that were killed to be gone
MISSING = (
    "No control groups can be made here, so processes are only looked at: memory that none of them "
    "owns (shared memory, socket buffers, files in memory) is not limited, and one with many busy "
    "processes slows the others down. Where systemd is, start with: "
    "systemd-run --user --scope -p Delegate=yes qlearn grade …"
)


@dataclass(frozen=True)
class Hierarchy:
    """Where groups can be made.

    Attributes
    ----------
    version
        1 or 2.
    places
        A folder for each controller; in version 2 all are the same.
    """

    version: int
    places: Mapping[str, Path]


@functools.cache
def hierarchy() -> Hierarchy | None:
    """Return where this process can make groups, or None."""
    mounts = [line.split()[1:4] for line in Path("/proc/mounts").read_text().splitlines()]
    own = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return find(mounts, own)


def find(mounts: Iterable[list[str]], own: Iterable[list[str]]) -> Hierarchy | None:
    """Return where a process can make groups, or None.

    Parameters
    ----------
    mounts
        Place, kind and options, as in ``/proc/mounts``.
    own
        Controllers and path of the process's groups, as in ``/proc/self/cgroup``.
    """
    paths = {name: path for names, path in own for name in names.split(",")}
    places: dict[str, Path] = {}
    for place, kind, options in mounts:
        if kind == "cgroup":
            for name in {*CONTROLLERS[1]} & {*options.split(",")}:
                places[name] = _within(Path(place), paths.get(name, "/"))
        elif kind == "cgroup2" and (found := _version_2(_within(Path(place), paths.get("", "/")))):
            return found
    writable = all(os.access(place, os.W_OK) for place in places.values())
    return Hierarchy(1, places) if len(places) == len(CONTROLLERS[1]) and writable else None


def _within(mount: Path, path: str) -> Path:
    """Return a group's folder; a container may see its own group as the first."""
    place = mount / path.lstrip("/")
    return place if place.is_dir() else mount


def _version_2(own: Path) -> Hierarchy | None:
    """Make room in a group that was delegated to this process."""
    try:
        if own.name == LEAF:  # a worker of the process that has made room
            own = own.parent
        elif {*CONTROLLERS[2]} <= {*(own / "cgroup.controllers").read_text().split()}:
            members = (own / "cgroup.procs").read_text().split()
            if members != [str(os.getpid())] and os.geteuid() != 0:
                return None
            (own / LEAF).mkdir(exist_ok=True)
            for member in members:
                (own / LEAF / "cgroup.procs").write_text(member)
            wanted = " ".join(f"+{name}" for name in CONTROLLERS[2])
            (own / "cgroup.subtree_control").write_text(wanted)
        there = {*(own / "cgroup.subtree_control").read_text().replace("+", "").split()}
    except OSError:
        return None
    return Hierarchy(2, dict.fromkeys(CONTROLLERS[2], own)) if there >= {*CONTROLLERS[2]} else None


class Group:
    """The group of one kernel, in which all that it starts is too.

    Parameters
    ----------
    place
        From `hierarchy`.
    limits
        For memory and the number of processes.

    Attributes
    ----------
    entrance
        Files: a process that writes its number to each of them is in the group.
    cpu_seconds, peak_mb, out_of_memory
        As of the last `measure`: CPU time of all that has ever been in it, the most memory that it
        had (10**6 bytes, with what the system keeps of files), and whether it wanted too much.
    """

    def __init__(self, place: Hierarchy, limits: Limits) -> None:
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._version = place.version
        self._folders = {controller: path / name for controller, path in place.places.items()}
        self.entrance = [str(path / "cgroup.procs") for path in sorted({*self._folders.values()})]
        self.cpu_seconds = self.peak_mb = 0.0
        self.out_of_memory = False
        for path in {*self._folders.values()}:
            path.mkdir()
        size = str(limits.memory_mb * 10**6)
        self._set("pids", {"pids.max": str(limits.processes)})
        if self._version == 1:
            self._set("memory", {"memory.limit_in_bytes": size})
            self._set("memory", {"memory.memsw.limit_in_bytes": size}, missing=True)
        else:
            self._set("memory", {"memory.max": size, "memory.oom.group": "1"})
            self._set("memory", {"memory.swap.max": "0"}, missing=True)

    def _set(self, controller: str, values: Mapping[str, str], missing: bool = False) -> None:
        """Write files; those that not every system has may be ``missing``."""
        for name, value in values.items():
            if not missing or (self._folders[controller] / name).exists():
                (self._folders[controller] / name).write_text(value)

    def add(self, pid: int) -> None:
        """Do nothing: a process enters by itself, before it is anything else."""

    @property
    def members(self) -> list[int]:
        """Processes that are in it."""
        return [*map(int, (self._folders["pids"] / "cgroup.procs").read_text().split())]

    def measure(self) -> None:
        """Read what it has used."""
        memory, first = self._folders["memory"], self._version == 1
        if first:
            self.cpu_seconds = int((self._folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        else:
            self.cpu_seconds = _numbers(self._folders["cpu"] / "cpu.stat")["usage_usec"] / 1e6
        peak = memory / ("memory.max_usage_in_bytes" if first else "memory.peak")
        self.peak_mb = int(peak.read_text()) / 10**6 if peak.exists() else 0.0  # from Linux 5.19
        events = _numbers(memory / ("memory.oom_control" if first else "memory.events"))
        self.out_of_memory = events["oom_kill"] > 0

    def end(self) -> None:
        """Kill all that is in it, and remove it."""
        _remove(self._folders.values())


def remove_leftovers() -> None:
    """End the groups of processes that are no more, and what is in them."""
    place = hierarchy()
    folders = {*place.places.values()} if place else set()
    names = {path.name for folder in folders for path in folder.glob(f"{PREFIX}[0-9]*-*")}
    for name in names:
        if not psutil.pid_exists(int(name.removeprefix(PREFIX).split("-")[0])):
            _remove([folder / name for folder in folders])


def _remove(folders: Iterable[Path]) -> None:
    until = time.monotonic() + END_SECONDS
    there = {folder for folder in folders if folder.exists()}
    while there and time.monotonic() < until:
        for folder in list(there):
            _kill(folder)
            with suppress(OSError):  # its processes are on their way
                folder.rmdir()
                there.remove(folder)
        time.sleep(0.002 if there else 0)


def _kill(folder: Path) -> None:
    with suppress(OSError):
        if (folder / "cgroup.kill").exists():
            (folder / "cgroup.kill").write_text("1")
            return
        if (folder / "pids.max").exists():
            (folder / "pids.max").write_text("0")  # nothing new, while they are killed one by one
        for member in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(member), signal.SIGKILL)


def _numbers(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in lines}
