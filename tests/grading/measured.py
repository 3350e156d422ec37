"""A command that grades, and what it and all that it started used."""

import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = Path(sys.executable).parent
LOOK_SECONDS = 1.0
EVERY = 20  # verdicts
CHILD_SUBREAPER = 36  # prctl


@dataclass
class Mark:
    """The coordinator's CPU seconds until now, and the most memory that it, and all that it
    started, were seen to hold since the mark before.
    """

    cpu: float
    coordinator_mb: float
    others_mb: float


@dataclass
class Run:
    """What a command used.

    `seconds` and `cpu` are of it and all that it started; `peak_mb` is the largest memory that they
    held together (shared pages once). `marks` are taken after the first and each `EVERY` verdicts
    of `qlearn grade --json`.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    peak_mb: float = 0.0
    verdicts: list = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)
    since: Mark = field(default_factory=lambda: Mark(0.0, 0.0, 0.0))


def measured(course: Path, *command: str) -> Run:
    """Run a command in the course's folder, as in an activated environment.

    This process may have no other child: the end of all is waited for.
    """
    # Whose parent has ended becomes a child of this process, so that its CPU time is not lost.
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(course / "said.txt", "a") as said:
        process = subprocess.Popen(
            command, cwd=course, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        )
    run, done = Run(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, run, done))
    watcher.start()
    for line in process.stdout:
        if line.startswith("{"):
            run.verdicts.append(json.loads(line))
            count = len(run.verdicts)
            if count == 1 or count % EVERY == 0:
                _look(process.pid, run)
                run.marks[count], run.since = run.since, Mark(0.0, 0.0, 0.0)
    process.wait()
    run.seconds = time.monotonic() - began
    done.set()
    watcher.join()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    run.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run


def _watch(pid: int, run: Run, done: threading.Event) -> None:
    while not done.wait(LOOK_SECONDS):
        with suppress(psutil.NoSuchProcess):
            _look(pid, run)


def _look(pid: int, run: Run) -> None:
    coordinator = psutil.Process(pid)
    own, others = (
        _memory_mb(coordinator),
        sum(map(_memory_mb, coordinator.children(recursive=True))),
    )
    times, since = coordinator.cpu_times(), run.since
    run.peak_mb = max(run.peak_mb, own + others)
    since.cpu = times.user + times.system
    since.coordinator_mb = max(since.coordinator_mb, own)
    since.others_mb = max(since.others_mb, others)


def _memory_mb(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        return process.memory_full_info().pss / 10**6
    return 0.0
