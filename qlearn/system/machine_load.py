"""What else a machine did while models were timed, and a table that says so in words."""

import html
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Chosen by measuring `compare` on two cores, on one thread and on two, for four pairs of models.
# Alone, others used at most 0.04 cores, and the upper quartile of a model's rounds was at most 1.8
# times the lower. Beside one loop of two threads, others used 1.0 to 1.6 cores and the quartiles
# were up to 39 times apart, but at times as close as alone: so each tells what the other does not.
SPARE = 0.35  # cores that may be lacking before a machine counts as busy: a browser, an editor
UNSTEADY = 2.5  # upper by lower quartile of the times of a model's rounds
SHORTEST = 0.25  # seconds; processor time is counted in steps too coarse to judge a shorter while


class NotedTable(pd.DataFrame):
    """A DataFrame that shows what is in ``attrs["note"]`` under itself.

    The note stays with whatever pandas derives from one table: its columns, slices, rounded or
    transposed.
    """

    @property
    def _constructor(self) -> type["NotedTable"]:
        return NotedTable

    def __repr__(self) -> str:
        """Return the table as text, with its note."""
        note = self.attrs.get("note")
        return f"{super().__repr__()}\n{note}" if note else super().__repr__()

    def _repr_html_(self) -> str | None:
        shown, note = super()._repr_html_(), self.attrs.get("note")
        return f"{shown}<p>{html.escape(note)}</p>" if shown and note else shown


@dataclass(frozen=True)
class Load:
    """Use of the processor over a while, in cores."""

    cores: int  # that this process may use
    others: float  # used by all other processes, and by other virtual machines ("steal")
    seconds: float

    def lacks_room_for(self, threads: int) -> bool:
        """Say whether so many threads had clearly less than a core each."""
        return self.seconds >= SHORTEST and self.others + threads > self.cores + SPARE


class LoadMeter:
    """Measures what others use of the cores of this process, from its start to `read`."""

    def __init__(self) -> None:
        """Begin to measure."""
        self.began = time.perf_counter()
        self.own = _own_seconds()
        _core_loads()

    def read(self) -> Load:
        """Return the load since the start."""
        seconds = time.perf_counter() - self.began
        loads = _core_loads()
        others = sum(loads) - (_own_seconds() - self.own) / seconds
        return Load(len(loads), max(0.0, others), seconds)


def note_on(load: Load, threads: int, times: Mapping[str, np.ndarray]) -> str:
    """Say in words whether the machine was too busy for times to be right; "" when it was not.

    Parameters
    ----------
    times
        Name → times of the model's rounds.
    """
    seen = []
    if load.lacks_room_for(threads):
        seen.append(
            f"other programs used {load.others:.1f} of {load.cores} cores beside the "
            f"{threads} thread{'s' * (threads > 1)} measured"
        )
    apart = {name: float(np.divide(*np.percentile(t, [75, 25]))) for name, t in times.items()}
    name = max(apart, key=apart.__getitem__)
    if apart[name] > UNSTEADY:
        seen.append(f"the quartiles of the rounds of {name!r} are {apart[name]:.1f} times apart")
    if not seen:
        return ""
    return (
        f"Note: the machine was busy: {', and '.join(seen)}. Every latency_ms is longer than the "
        "model needs. A speedup compares times of the same round, so it still holds as far as its "
        "interval, speedup_low to speedup_high, allows. For better numbers close other programs "
        "and kernels, or measure on fewer threads, and run the cell again."
    )


def _own_seconds() -> float:
    """Processor time of this process and the children that it has waited for."""
    return sum(os.times()[:4])


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may run on."""
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS
        return process.cpu_affinity()
    return [*range(psutil.cpu_count())]


def _core_loads() -> list[float]:
    """Share of the time since the last call for which each usable core was at work."""
    import psutil

    shares = psutil.cpu_percent(percpu=True)
    return [shares[core] / 100 for core in usable_cores()]
