"""`nbgrader autograde` against `qlearn grade`, side by side in one run: `make bench-grading`."""

import argparse
import contextlib
import importlib
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import classes
import nbformat
from measured import EVERY, Run, measured
from nbgrader.api import Gradebook

from qlearn.grading import manager
from qlearn.grading.limits import Limits
from qlearn.grading.records import Exercise, Submission
from qlearn.grading.sandbox import configuration
from qlearn.grading.scoring import score

sys.path.append(str(Path(__file__).parents[1] / "exercises"))
import runner  # noqa: E402

FEW = 40  # trivial submissions, from which costs and memory are followed to all of them
CLUSTER = (4, 16, 64, 256)  # workers
ROUNDS = 5
IMPORTS = "import pandas, torch, torchvision, qlearn, qlearn.exercises.checks\n"
NOTE = f"""# Grading a class

On {os.cpu_count()} cores, `OMP_NUM_THREADS` {os.environ.get("OMP_NUM_THREADS", "not set")}.
Seconds and CPU are of the whole command, its start and all processes included; memory is the
largest that all of them held together, shared pages counted once.
"""


class Report:
    """Lines that are on the screen and in the file as soon as they are known."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", encoding="utf-8")

    def say(self, *lines: str) -> None:
        """Add lines."""
        for line in lines:
            print(line, flush=True)
            print(line, file=self._file, flush=True)


def work(banks: list[ModuleType], count: int) -> dict[str, list[dict[str, str]]]:
    """Work cells by exercise: the solution, and then right and wrong ways, until there are enough.

    Each exercise has an equal share.
    """
    found = {}
    for bank in banks:
        patches = [*bank.RIGHT.values(), *(patch for patch, _ in bank.WRONG.values())]
        solution = {key: text for key, text in runner.reference(bank.EXERCISE).items()
                    if key != "explain"}  # fmt: skip
        ways = itertools.cycle([solution, *(solution | patch for patch in patches)])
        found[bank.EXERCISE] = list(itertools.islice(ways, count // len(banks)))
    return found


def real_course(folder: Path, class_: dict[str, list[dict[str, str]]]) -> Path:
    """A course with some exercises, released, and what a class handed in."""
    shutil.copy(runner.ROOT / "nbgrader_config.py", folder)
    for exercise, ways in class_.items():
        shutil.copytree(runner.ROOT / "solutions" / exercise, folder / "solutions" / exercise)
        measured(folder, "nbgrader", "generate_assignment", exercise)
        for number, cells in enumerate(ways):
            place = folder / "classroom" / "submitted" / f"student-{number:03}" / exercise
            place.mkdir(parents=True)
            nbformat.write(runner.submission(exercise, cells), place / f"{exercise}.ipynb")
    return folder


def trivial_course(folder: Path, count: int) -> Path:
    """A course of one exercise without PyTorch, and a class."""
    classes.make_course(folder)
    classes.with_artifact(folder)
    measured(folder, "nbgrader", "generate_assignment", classes.EXERCISE)
    for number in range(count):
        classes.hand_in(folder, f"student-{number:03}", classes.WRITE % number)
    return folder


def grades(course: Path, exercises: Iterable[str]) -> dict[tuple[str, str, str], float | None]:
    """What the gradebook has of each cell of each student: None where a person has to read."""
    path = course / "classroom" / "gradebook.db"
    with contextlib.closing(Gradebook(f"sqlite:///{path}", "qlearn")) as gradebook:
        return {
            (exercise, found.student.id, grade.name): grade.auto_score
            for exercise in exercises
            for found in gradebook.assignment_submissions(exercise)
            for notebook in found.notebooks
            for grade in notebook.grades
        }


def same(report: Report, theirs: dict, ours: dict) -> None:
    """Say how many cells have the same grade, and which have not."""
    other = [cell for cell in theirs if theirs[cell] != ours.get(cell)]
    report.say("", f"Of {len(theirs)} cells, {len(theirs) - len(other)} have nbgrader's grade.")
    for cell in other:
        report.say(f"- {' '.join(cell)}: nbgrader {theirs[cell]}, qlearn grade {ours.get(cell)}")


def together(runs: list[Run]) -> Run:
    """One run after the other as one."""
    return Run(
        sum(run.seconds for run in runs),
        sum(run.cpu for run in runs),
        max(run.peak_mb for run in runs),
        [verdict for run in runs for verdict in run.verdicts],
    )


HEADER = """\
| | graded | seconds | per minute | against nbgrader | CPU s each | MB per worker |
|---|---|---|---|---|---|---|"""


def throughput(report: Report, class_: dict[str, list[dict[str, str]]]) -> Run:
    """Grade the real class in three ways, and say what each took; return that of one worker."""
    names = " and ".join(class_)
    report.say("", f"## {names}: solutions, and right and wrong ways of them", "", HEADER)
    runs, kept = {}, {}
    for workers in (0, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            course = real_course(Path(folder), class_)
            ours = ("qlearn", "grade", "--json", "--workers", str(workers))
            command = ours if workers else ("nbgrader", "autograde")
            run = together([measured(course, *command, one) for one in class_])
            kept[workers] = grades(course, class_)
        runs[workers] = run
        found = len({cell[:2] for cell in kept[workers]})
        name = f"qlearn grade, workers: {workers}" if workers else "nbgrader autograde"
        ratio = runs[0].seconds / run.seconds
        report.say(
            f"| {name} | {found} | {run.seconds:.0f} | {60 * found / run.seconds:.1f} | "
            f"{ratio:.2f} | {run.cpu / found:.2f} | {run.peak_mb / max(workers, 1):.0f} |"
        )
    for workers in (1, 2):
        same(report, kept[0], kept[workers])
    return runs[1]


def each_more(sizes: tuple[int, int], *command: str) -> tuple[float, Run]:
    """Grade a smaller and a larger trivial class; CPU seconds of each that is more, and the larger.

    What a command takes to start is in neither.
    """
    runs = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measured(trivial_course(Path(folder), size), *command, classes.EXERCISE))
    return (runs[1].cpu - runs[0].cpu) / (sizes[1] - sizes[0]), runs[1]


def scale(report: Report, count: int) -> float:
    """Grade many trivial submissions; return the coordinator's CPU seconds for each."""
    report.say("## A trivial exercise: what grading costs beyond the learner's cells", "")
    theirs, _ = each_more((FEW, 2 * FEW), "nbgrader", "autograde")
    report.say(f"nbgrader autograde: {theirs:.2f} s of CPU for each submission more.")
    ours, run = each_more((FEW, count), "qlearn", "grade", "--json", "--workers", "2")
    end = max(run.marks)
    first, last = run.marks[FEW], run.marks[end]
    coordinator = (last.cpu - first.cpu) / (end - FEW)
    report.say(
        f"qlearn grade, workers: 2: {ours:.2f} s, of which {coordinator:.3f} s are the "
        f"coordinator's: its ceiling is {1 / coordinator:.0f} submissions per second.",
        f"Most memory within the {EVERY} up to number {FEW}, and up to number {end}: coordinator "
        f"{first.coordinator_mb:.0f} and {last.coordinator_mb:.0f} MB, all that it started "
        f"{first.others_mb:.0f} and {last.others_mb:.0f} MB.",
    )
    return coordinator


def forking(report: Report) -> None:
    """Say what it is worth to fork both kernels from a process that has imported what they need."""
    notebook = classes.source()
    for cell in notebook.cells[1:3]:
        cell.source = IMPORTS + classes.READ + cell.source
    exercise = Exercise(classes.EXERCISE, nbformat.writes(notebook).encode())
    work = nbformat.writes(classes.answer(IMPORTS + classes.WRITE % 42)).encode()
    ways = {"qlearn-forked": [], "qlearn-sandbox": []}
    for _ in range(1 + ROUNDS):
        for way, verdicts in ways.items():
            with patch.object(manager, "configuration", partial(_configured, way=way)):
                submission = Submission("ann", classes.EXERCISE, work)
                verdicts.append(score(submission, exercise, Limits()))
    report.say("", f"A submission that only imports, in both kernels: median of {ROUNDS} rounds, "
               "interleaved", "", "| kernels | seconds | CPU s |", "|---|---|---|")  # fmt: skip
    for way, verdicts in ways.items():
        assert all(sum(verdict.points.values()) == 3 for verdict in verdicts), verdicts
        seconds = statistics.median(verdict.seconds for verdict in verdicts[1:])
        cpu = statistics.median(verdict.cpu_seconds for verdict in verdicts[1:])
        name = "forked, imports shared" if way == "qlearn-forked" else "started, each imports"
        report.say(f"| {name} | {seconds:.2f} | {cpu:.2f} |")


def _configured(*options: Any, way: str) -> dict[str, Any]:
    return {**configuration(*options), "provisioner_name": way}


def project(report: Report, run: Run, coordinator: float) -> None:
    """Say how long 10,000 real submissions would take."""
    seconds = statistics.mean(line["seconds"] for line in run.verdicts)
    report.say(
        "",
        f"A worker takes {seconds:.1f} s for one of these submissions. 10,000 of them, from that "
        "and from the coordinator's cost, not measured on a cluster:",
        "",
        "| workers | hours |",
        "|---|---|",
    )
    for workers in CLUSTER:
        hours = 10_000 * max(seconds / workers, coordinator) / 3600
        report.say(f"| {workers} | {hours:.2f} |")


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exercises", default="1,3", help="Whose banks the class is made of.")
    parser.add_argument("--size", type=int, default=40, help="Real submissions, together.")
    parser.add_argument("--trivial", type=int, default=400, help="Trivial submissions.")
    parser.add_argument("--output", type=Path, default=Path("bench/grading.md"))
    options = parser.parse_args()
    banks = [importlib.import_module(f"test_ex{number}") for number in options.exercises.split(",")]
    report = Report(options.output)
    report.say(NOTE)
    coordinator = scale(report, options.trivial)
    project(report, throughput(report, work(banks, options.size)), coordinator)
    forking(report)  # last: its template of kernels stays this process's child


if __name__ == "__main__":
    main()
