"""`nbgrader autograde` against `qlearn grade`, side by side in one run: `make bench-grading`."""

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import classes
import nbformat
from measured import Run, measured
from nbgrader.api import Gradebook

sys.path.append(str(Path(__file__).parents[1] / "exercises"))
import runner  # noqa: E402
import test_ex1  # noqa: E402
import test_ex3  # noqa: E402
from test_nbgrader import submission  # noqa: E402

BANKS = (test_ex1, test_ex3)
FEW = 40  # trivial submissions, from which costs and memory are followed to all of them
CLUSTER = (4, 16, 64, 256)  # workers
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


def work(count: int) -> dict[str, list[dict[str, str]]]:
    """Work cells by exercise: the solution, and then right and wrong ways, until there are enough.

    Half of them are of exercise 1 and half of exercise 3.
    """
    found = {}
    for bank in BANKS:
        patches = [*bank.RIGHT.values(), *(patch for patch, _ in bank.WRONG.values())]
        solution = {key: text for key, text in runner.reference(bank.EXERCISE).items()
                    if key != "explain"}  # fmt: skip
        ways = itertools.cycle([solution, *(solution | patch for patch in patches)])
        found[bank.EXERCISE] = list(itertools.islice(ways, count // len(BANKS)))
    return found


def real_course(folder: Path, count: int) -> Path:
    """A course with exercises 1 and 3, released, and what a class handed in."""
    shutil.copy(runner.ROOT / "nbgrader_config.py", folder)
    for exercise, ways in work(count).items():
        shutil.copytree(runner.ROOT / "solutions" / exercise, folder / "solutions" / exercise)
        measured(folder, "nbgrader", "generate_assignment", exercise)
        for number, cells in enumerate(ways):
            place = folder / "classroom" / "submitted" / f"student-{number:03}" / exercise
            place.mkdir(parents=True)
            nbformat.write(submission(exercise, cells), place / f"{exercise}.ipynb")
    return folder


def trivial_course(folder: Path, count: int) -> Path:
    """A course of one exercise without PyTorch, and a class."""
    classes.make_course(folder)
    classes.with_artifact(folder)
    measured(folder, "nbgrader", "generate_assignment", classes.EXERCISE)
    for number in range(count):
        classes.hand_in(folder, f"student-{number:03}", classes.WRITE % number)
    return folder


def graded(course: Path, exercises: list[str]) -> int:
    """How many submissions the gradebook has, with a grade of each test."""
    path = course / "classroom" / "gradebook.db"
    with contextlib.closing(Gradebook(f"sqlite:///{path}", "qlearn")) as gradebook:
        return sum(
            all(grade.auto_score is not None or grade.needs_manual_grade or not grade.max_score
                for notebook in found.notebooks for grade in notebook.grades)
            for exercise in exercises
            for found in gradebook.assignment_submissions(exercise)
        )  # fmt: skip


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


def throughput(report: Report, count: int) -> Run:
    """Grade the real class in three ways, and say what each took; return that of one worker."""
    report.say("", "## Exercises 1 and 3: solutions and mutants of them", "", HEADER)
    runs, exercises = {}, [bank.EXERCISE for bank in BANKS]
    for workers in (0, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            course = real_course(Path(folder), count)
            ours = ("qlearn", "grade", "--json", "--workers", str(workers))
            command = ours if workers else ("nbgrader", "autograde")
            run = together([measured(course, *command, one) for one in exercises])
            found = graded(course, exercises)
        runs[workers] = run
        name = f"qlearn grade, workers: {workers}" if workers else "nbgrader autograde"
        ratio = runs[0].seconds / run.seconds
        report.say(
            f"| {name} | {found} | {run.seconds:.0f} | {60 * found / run.seconds:.1f} | "
            f"{ratio:.2f} | {run.cpu / found:.2f} | {run.peak_mb / max(workers, 1):.0f} |"
        )
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
        f"Memory after {FEW} and after {end} of them: coordinator {first.coordinator_mb:.0f} and "
        f"{last.coordinator_mb:.0f} MB, others {first.others_mb:.0f} and {last.others_mb:.0f} MB.",
    )
    return coordinator


def project(report: Report, run: Run, coordinator: float) -> None:
    """Say how long 10,000 real submissions would take."""
    seconds = statistics.mean(line["seconds"] for line in run.verdicts)
    report.say(
        "",
        f"A worker takes {seconds:.1f} s for a submission of exercises 1 and 3. 10,000 of them, "
        "from that and from the coordinator's cost, not measured on a cluster:",
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
    parser.add_argument("--size", type=int, default=40, help="Real submissions, half of each.")
    parser.add_argument("--trivial", type=int, default=400, help="Trivial submissions.")
    parser.add_argument("--output", type=Path, default=Path("bench/grading.md"))
    options = parser.parse_args()
    report = Report(options.output)
    report.say(NOTE)
    coordinator = scale(report, options.trivial)
    project(report, throughput(report, options.size), coordinator)


if __name__ == "__main__":
    main()
