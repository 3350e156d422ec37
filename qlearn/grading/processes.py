"""Processes that were started here: looked at where no group limits them, and ended."""

import subprocess
import time
from contextlib import suppress

import psutil

from qlearn.grading.limits import Limits

END_SECONDS = 30  # for processes that were killed to be gone


class Processes:
    """What stands in for a group where there is none: it sees what processes own, and that late.

    Parameters
    ----------
    limits
        For memory.

    Attributes
    ----------
    entrance, cpu_seconds, peak_mb, out_of_memory
        As of a `Group`; the first has no files.
    """

    entrance: tuple[str, ...] = ()

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.memory_mb
        self._found: set[psutil.Process] = set()
        self.cpu_seconds = self.peak_mb = 0.0
        self.out_of_memory = False

    def add(self, pid: int) -> None:
        """Look at a process, and at all that it starts."""
        with suppress(psutil.NoSuchProcess):
            self._found.add(psutil.Process(pid))

    @property
    def members(self) -> list[int]:
        """Processes that are there."""
        for process in list(self._found):
            with suppress(psutil.NoSuchProcess):
                self._found |= {*process.children(recursive=True)}
        return [process.pid for process in self._found if _runs(process)]

    def measure(self) -> None:
        """Look at what they use."""
        memory = cpu = 0.0
        for pid in self.members:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(pid)
                memory += process.memory_full_info().uss / 10**6
                cpu += sum(process.cpu_times()[:4])
        self.cpu_seconds = max(self.cpu_seconds, cpu)
        self.peak_mb = max(self.peak_mb, memory)
        self.out_of_memory = self.out_of_memory or memory > self._limit

    def end(self) -> None:
        """Kill those that were seen."""
        until = time.monotonic() + END_SECONDS
        while self.members and time.monotonic() < until:
            for process in self._found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.002)


def end(process: subprocess.Popen) -> None:
    """End a sandbox, or a kernel without one, and all that it has started.

    Bubblewrap comes last: it ends once its child has, and leaves no zombie when it sees to that
    itself. The first process within takes every other one of its namespace with it.
    """
    with suppress(psutil.NoSuchProcess, subprocess.TimeoutExpired):
        inner = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        for one in inner:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(1 if inner else 0)
    process.kill()
    process.wait()


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
