"""How long `make lab` takes: from a fresh clone, and once all is there.

Run by `make bench-setup`. The clone, its environment and its cache are in a temporary folder that
is removed; what uv has downloaded before is used. The clone holds what is committed. Arguments go
to `make`, such as PYTHON=python3.12.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread

import psutil

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-benchmark"
ALLOWED = 45  # seconds from a fresh clone to JupyterLab's page, on two cores


class Lab:
    """`make lab` in a clone, without a browser, and the clock that started with it."""

    def __init__(self, course: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/lab?token={TOKEN}"
        self.log = course.parent / "log"
        self.steps: list[tuple[float, str]] = []
        # The clone is set up as from a learner's terminal, not as a child of this make and Python.
        own = ("MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
        here = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        here |= {"QLEARN_HOME": str(course.parent / "cache"), "JUPYTER_TOKEN": TOKEN}
        command = ["make", "lab", *sys.argv[1:], f"LAB=--no-browser --port {port}"]
        self.began = time.perf_counter()
        with self.log.open("w") as errors:
            self.process = psutil.Popen(
                command, cwd=course, env=here, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        # make writes each command before it runs it.
        for line in self.process.stdout:
            self.steps.append((time.perf_counter() - self.began, line.strip()))

    def wait_for(self, condition: Callable[[], bool]) -> float:
        """Return the seconds since the start when the condition has become true."""
        while not condition():
            if self.process.poll() is not None:
                sys.exit(f"make lab ended:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        return time.perf_counter() - self.began

    def answers(self) -> bool:
        """Return whether the page is served."""
        with suppress(OSError), urllib.request.urlopen(self.address, timeout=5):
            return True
        return False

    def end(self) -> None:
        """Stop it as Ctrl-C would, and wait until nothing of it is left."""
        family = [*self.process.children(recursive=True), self.process]
        for process in reversed(family):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            print(f"{process} did not end and is killed")
            process.kill()


def main() -> None:
    """Measure twice, and print seconds and the machine's load."""
    with tempfile.TemporaryDirectory(prefix="qlearn-setup-") as scratch:
        course = Path(scratch) / "course"
        subprocess.run(["git", "clone", "--quiet", ROOT, course], check=True)
        first = measure("From a fresh clone", course)
        measure("Once all is there", course)
    print(f"\n{first:.0f} s from a fresh clone; {ALLOWED} s are allowed on two quiet cores.")


def measure(title: str, course: Path) -> float:
    """Print how long each step takes, the lab and the base models; return the lab's seconds."""
    print(f"\n{title} (load average {os.getloadavg()[0]:.1f})", flush=True)
    models = course.parent / "cache" / "models"
    lab = Lab(course)
    try:
        seconds = lab.wait_for(lab.answers)
        for (began, step), (ended, _) in pairwise([*lab.steps, (seconds, "")]):
            print(f"{ended - began:8.1f} s  {step[:70]}")
        say(seconds, "JupyterLab's page answers")
        say(lab.wait_for(lambda: any(models.glob("all-*.txt"))), "every base model is there")
    finally:
        lab.end()
    return seconds


def say(seconds: float, what: str) -> None:
    """Print a line with the load beside it."""
    print(f"{seconds:8.1f} s  = {what} (load average {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    main()
