"""`make bench-steady`: what a busy machine does to the course, and what `system.threads` changes.

Four parts, each with the machine's load printed beside it:

- settings: typical work alone and beside 1, 2 and 3 other processes that do the same, by how
  threads wait;
- lessons: all of them alone, spinning as PyTorch does by default and as the course does, in turns;
  then each beside three others that run the same lesson;
- solutions: each reference solution alone, then five times beside four two-thread processes of
  plain PyTorch, each time whole in one kernel, and its tests once more in a second, as a grader
  runs them;
- claims: each reference's speeds, measured alone and beside those four, and held against new
  measurements in another kernel, as a grader does, again alone and beside them.

Ratios are within one run. Aims are printed beside what was reached; nothing fails here.
"""

import argparse
import copy
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient

from qlearn.system import cache, threads

ROOT = Path(__file__).parents[2]
WORKLOAD = Path(__file__).with_name("workload.py")
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))
CELL_SECONDS = 600  # as nbgrader_config.py has it
# What libgomp, and LLVM's runtime, do when nothing is said: spin for 3 ms, or 200.
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
SETTINGS = {
    "spinning (default)": SPINNING,
    "the course's": threads.SETTINGS,
    "spin 0": {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1", **threads.SETTINGS},
}
LOAD = """
import torch
torch.set_num_threads(2)
a, b = torch.randn(256, 256), torch.randn(256, 256)
while True:
    a = torch.relu(a @ b) / 256
"""


@dataclass(frozen=True)
class Run:
    """A notebook that ran to its end: seconds of wall time, and what its failing cells said."""

    seconds: float
    errors: list[str]


def environment(settings: dict[str, str]) -> dict[str, str]:
    """This process's environment, with other settings of threads."""
    plain = {name: value for name, value in os.environ.items() if name not in threads.CHOSEN}
    return plain | settings


def busy() -> str:
    """The machine's load, over the last minute."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


@contextmanager
def processes(commands: list[list[str]], **options: object) -> Iterator[list[subprocess.Popen]]:
    """Processes that are ended with the block."""
    started = [subprocess.Popen(command, **options) for command in commands]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(settings: dict[str, str], others: int) -> dict[str, float]:
    """Times of the workload beside so many others that do the same."""
    with tempfile.TemporaryDirectory() as place:
        tasks = ["measure", *["load"] * others]
        commands = [[sys.executable, str(WORKLOAD), task, place] for task in tasks]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with processes(commands, env=environment(settings), **pipes) as (first, *rest):
            while len(list(Path(place).glob("ready-*"))) < len(tasks):
                if any(process.poll() for process in (first, *rest)):
                    raise RuntimeError("a process of the workload ended; run workload.py by hand")
                time.sleep(0.1)
            (Path(place) / "go").touch()
            return json.loads(first.communicate()[0])


def settings_part(names: list[str], others: list[int]) -> None:
    """Print a table of the workload's times by setting and number of neighbours."""
    rows = {}
    for count in others:
        for name in names:
            rows[f"{count} others", name] = measure(SETTINGS[name], count)
            print(f"{count} others, {name}: {busy()}", file=sys.stderr)
    table = pd.DataFrame.from_dict(rows, orient="index").round(2)
    print(f"\n## Settings ({busy()})\n\n{table.to_string()}", flush=True)


def execute(path: Path, settings: dict[str, str]) -> Run:
    """Run a notebook in one kernel and an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        return run_cells(nbformat.read(path, as_version=4), settings, Path(place))


def run_cells(notebook: nbformat.NotebookNode, settings: dict[str, str], place: Path) -> Run:
    """Run a notebook in one kernel and a folder, with base models and no other cache."""
    home = place / "home"
    for kept in ("models", "arm"):
        if (cache.home() / kept).exists():
            shutil.copytree(cache.home() / kept, home / kept, dirs_exist_ok=True)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", allow_errors=True,
        resources={"metadata": {"path": str(place)}},
    )  # fmt: skip
    began = time.perf_counter()
    client.execute(env=environment(settings) | {"QLEARN_HOME": str(home)})
    seconds = time.perf_counter() - began
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return Run(seconds, [o.ename + ": " + o.evalue for o in outputs if o.output_type == "error"])


def only_cells(notebook: nbformat.NotebookNode, sources: list[str]) -> nbformat.NotebookNode:
    """A notebook of these code cells, with the metadata of another."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(metadata=notebook.metadata, cells=cells)


def execute_twice(path: Path) -> tuple[Run, Run]:
    """Run a solution in one kernel, then its tests alone, on its answers, in a second."""
    solution = nbformat.read(path, as_version=4)
    code = [cell for cell in solution.cells if cell.cell_type == "code"]
    tests = [cell.source for cell in code if cell.metadata.get("nbgrader", {}).get("grade")]
    with tempfile.TemporaryDirectory() as place:
        first = run_cells(copy.deepcopy(solution), threads.SETTINGS, Path(place))
        return first, run_cells(only_cells(solution, tests), threads.SETTINGS, Path(place))


def lessons_part(lessons: list[Path]) -> None:
    """Print each lesson's seconds alone, by how threads wait, and beside three others."""
    rows = {}
    for number, path in enumerate(lessons):
        pair = [("spinning", SPINNING), ("ours", threads.SETTINGS)]
        alone = {name: execute(path, setting) for name, setting in pair[:: (-1) ** number]}
        load = busy()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(execute, [path] * 4, [threads.SETTINGS] * 4))
        errors = [*alone.values(), *together]
        rows[path.stem] = {
            "spinning, s": alone["spinning"].seconds,
            "ours, s": alone["ours"].seconds,
            "load before": load,
            "slowest of four, s": max(run.seconds for run in together),
            "times": max(run.seconds for run in together) / alone["ours"].seconds,
            "errors": sum(len(run.errors) for run in errors),
        }
        print(f"{path.stem}: {rows[path.stem]}", file=sys.stderr, flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index")
    print(f"\n## Lessons ({busy()})\n\n{table.round(1).to_string()}")
    ratio = table["ours, s"].sum() / table["spinning, s"].sum()
    print(f"All lessons alone, ours / spinning: {ratio:.3f} (aim: at most 1.05)")
    print(f"A lesson beside three others: at most {table['times'].max():.1f} times (aim: 8)",
          flush=True)  # fmt: skip


@contextmanager
def load(wanted: bool = True) -> Iterator[None]:
    """Four two-thread processes of plain PyTorch beside the block, if wanted."""
    commands = [[sys.executable, "-c", LOAD]] * (4 * wanted)
    # Sessions of their own, as kernels have: Linux may share processors out by session.
    with processes(commands, env=environment({}), start_new_session=True):
        yield


def solutions_part(solutions: list[Path], times: int) -> None:
    """Print each solution's seconds alone and beside four processes of plain PyTorch."""
    rows = {}
    for path in solutions:
        alone = execute(path, threads.SETTINGS)
        before = busy()
        with load():
            pairs = [execute_twice(path) for _ in range(times)]
        runs, second = zip(*pairs, strict=True)
        seconds = [run.seconds for run in runs]
        rows[path.stem] = {
            "alone, s": alone.seconds,
            "load before": before,
            "beside four, s (median)": statistics.median(seconds),
            "times, at most": max(seconds) / alone.seconds,
            "second kernel, s": statistics.median(run.seconds for run in second),
            "failed cells": sum(len(run.errors) for run in (alone, *runs)),
            "in the second": sum(len(run.errors) for run in second),
        }
        for error in {error for run in (alone, *runs, *second) for error in run.errors}:
            print(f"{path.stem}: {error}")
        print(f"{path.stem}: {rows[path.stem]}", file=sys.stderr, flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index")
    print(f"\n## Solutions, {times} times each ({busy()})\n\n{table.round(1).to_string()}")
    print("Aims: no failed cell, at most 10 times as long as alone.", flush=True)


def claims_part(solutions: list[Path], times: int) -> None:
    """Print how many of the tests of speed fail, by whether measuring and testing met a load."""
    rows = {}
    for path in solutions:
        solution = nbformat.read(path, as_version=4)
        tests = [cell.source for cell in solution.cells if "speedups_hold" in cell.source]
        again = only_cells(solution, tests * times)
        for measured, tested in itertools.product((False, True), repeat=2) if tests else ():
            with tempfile.TemporaryDirectory() as place:
                with load(measured):
                    work = run_cells(copy.deepcopy(solution), threads.SETTINGS, Path(place))
                with load(tested):
                    run = run_cells(copy.deepcopy(again), threads.SETTINGS, Path(place))
            words = {False: "alone", True: "beside four"}
            rows[path.stem, words[measured], words[tested]] = {
                "tests": len(again.cells),
                "failed": len(run.errors),
                "failed in the first kernel": len(work.errors),
                "s": run.seconds,
            }
            last = [*rows.items()][-1]
            print(*last, *{*work.errors, *run.errors}, sep="\n  ", file=sys.stderr, flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["", "measured", "tested"])
    print(f"\n## Claims, each tested {times} times ({busy()})\n\n{table.round(0).to_string()}")
    print("Aim: none fails.", flush=True)


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="settings,lessons,solutions,claims")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--others", default="0,1,2,3")
    parser.add_argument("--only", default="", help="part of the names of lessons and solutions")
    parser.add_argument(
        "--times", type=int, default=5, help="runs of each solution, or test of speed"
    )
    chosen = parser.parse_args()
    parts = chosen.parts.split(",")
    if "settings" in parts:
        settings_part(chosen.settings.split(","), [int(n) for n in chosen.others.split(",")])
    if "lessons" in parts:
        lessons_part([path for path in LESSONS if chosen.only in path.stem])
    if "solutions" in parts:
        solutions_part([path for path in SOLUTIONS if chosen.only in path.stem], chosen.times)
    if "claims" in parts:
        claims_part([path for path in SOLUTIONS if chosen.only in path.stem], chosen.times)


if __name__ == "__main__":
    main()
