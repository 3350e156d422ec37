"""How long `make lab` takes: from a fresh clone, and once all is there.

Run by `make bench-setup`. The clone, its environment and its cache are in a temporary folder that
is removed; what uv has downloaded before is used. The clone holds what is committed.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-benchmark"
ALLOWED = 45  # seconds from a fresh clone to JupyterLab's page, on two cores


def main() -> None:
    """Measure twice, and print seconds and the machine's load."""
    with tempfile.TemporaryDirectory(prefix="qlearn-setup-") as scratch:
        course = Path(scratch) / "course"
        subprocess.run(["git", "clone", "--quiet", ROOT, course], check=True)
        first = lab_opens("From a fresh clone", course)
        lab_opens("Once all is there", course)
    print(f"\n{first:.0f} s from a fresh clone; {ALLOWED} s are allowed on two quiet cores.")


def lab_opens(title: str, course: Path) -> float:
    """Run `make lab` until the page answers and the base models are there."""
    print(f"\n{title} (load average at the start {os.getloadavg()[0]:.1f})")
    with make_lab(course) as (steps, address):
        seconds = wait_for(lambda: answers(address))
        steps.append((seconds, ""))
        for (began, step), (ended, _) in zip(steps, steps[1:], strict=False):
            print(f"{ended - began:8.1f} s  {step[:60]}")
        say(seconds, "JupyterLab's page answers")
        models = course.parent / "cache" / "models"
        say(wait_for(lambda: any(models.glob("all-*.txt"))), "every base model is there")
    return seconds


def say(seconds: float, what: str) -> None:
    """Print a line with the load beside it."""
    print(f"{seconds:8.1f} s  {what} (load average {os.getloadavg()[0]:.1f})", flush=True)


@contextmanager
def make_lab(course: Path) -> Iterator[tuple[list[tuple[float, str]], str]]:
    """Run it in the clone; give the list that its steps are added to, and the page's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    here |= {"QLEARN_HOME": str(course.parent / "cache"), "JUPYTER_TOKEN": TOKEN}
    command = ["make", "lab", f"PYTHON={sys.executable}", f"LAB=--no-browser --port {port}"]
    log = course.parent / "log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, cwd=course, env=here, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    began = time.perf_counter()
    steps = []

    def follow() -> None:
        # make writes each command before it runs it.
        for line in process.stdout:
            steps.append((time.perf_counter() - began, line.strip()))

    Thread(target=follow, daemon=True).start()
    try:
        yield steps, f"http://127.0.0.1:{port}/lab?token={TOKEN}"
    finally:
        end(process)
