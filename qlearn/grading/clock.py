"""What a cell has taken, on a machine that may be busy with something else."""

import time
from contextlib import suppress
from typing import Any

import psutil

from qlearn.grading.cgroups import Group
from qlearn.grading.processes import Processes

STARVED = 4  # times longer is waited while others have the machine's CPU time
BUSY = 0.75  # share of the machine's CPU time from which it has too little for all


class Stopped(Exception):
    """The kernel was ended, or ended itself: a reason in words, and the outputs until then."""

    outputs: tuple[dict[str, Any], ...] = ()


class Slow(Stopped):
    """The machine was too busy to say whether the kernel would have been in time."""


class Clock:
    """What a cell has taken, in seconds: CPU time, or wall time when it is idle for long.

    Parameters
    ----------
    usage
        Of the kernel.
    patience
        How many seconds of wall time count as one.
    """

    def __init__(self, usage: Group | Processes, patience: float) -> None:
        self._usage, self._patience = usage, patience
        self._looks = self._wanted = 0
        usage.measure()
        self._began, self._cpu = time.monotonic(), usage.cpu_seconds
        self._machine = psutil.cpu_times()

    def look(self) -> None:
        """Measure, and see whether a process wants to run; call it from time to time."""
        self._usage.measure()
        self._looks += 1
        self._wanted += any(map(_wants_to_run, self._usage.members))

    @property
    def seconds(self) -> float:
        """What counts."""
        wall = (time.monotonic() - self._began) / (STARVED if self.starved else 1)
        return max(self.cpu_seconds, wall / self._patience)

    @property
    def cpu_seconds(self) -> float:
        """CPU time until the last look."""
        return self._usage.cpu_seconds - self._cpu

    @property
    def starved(self) -> bool:
        """Whether others had the machine's CPU time, and the cell wanted it and had less than half.

        A cell that was stopped then might have been in time elsewhere.
        """
        now = psutil.cpu_times()
        passed = {name: getattr(now, name) - getattr(self._machine, name) for name in now._fields}
        idle = passed["idle"] + passed.get("iowait", 0)
        total = sum(passed.values()) - passed.get("guest", 0) - passed.get("guest_nice", 0)
        little = 2 * self.cpu_seconds < time.monotonic() - self._began
        wanted = 2 * self._wanted > self._looks
        return wanted and little and idle < (1 - BUSY) * total


def _wants_to_run(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
    return False
