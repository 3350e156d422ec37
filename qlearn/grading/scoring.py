"""Grade one submission: work in one kernel, tests in another that never ran the learner's code."""

import math
import time
from collections.abc import Iterable

import nbformat
from nbformat import NotebookNode

from qlearn.grading.kernels import Kernel, Stopped, started
from qlearn.grading.notebooks import is_test, joined, untouched
from qlearn.grading.outputs import error
from qlearn.grading.records import Exercise, Submission, Verdict
from qlearn.grading.sandbox import Limits, require
from qlearn.grading.scratch import ANSWERS, Refused, collect, scratch, work_files
from qlearn.grading.watch import Usage

RESTARTS = 3  # of the test kernel, for artifacts that end it


def score(
    submission: Submission, exercise: Exercise, limits: Limits, sandboxed: bool = True
) -> Verdict:
    """Run a submission's work and the exercise's tests, each in a kernel of its own.

    Parameters
    ----------
    submission
        What was handed in: nothing in it is trusted.
    exercise
        With solutions, visible and hidden tests.
    limits
        For each of the two kernels.
    sandboxed
        Whether both run in bubblewrap.

    Returns
    -------
    Verdict
        Also when the submission is damaged or hostile; then ``reason`` says so. Checksums of work
        cells are not in its notebook: `nbgrader.preprocessors.OverwriteCells` sets them.

    Raises
    ------
    SandboxUnavailable
        When bubblewrap is asked for and cannot run.
    """
    if sandboxed:
        require()
    began = time.monotonic()
    usages: list[Usage] = []
    try:
        notebook = joined(exercise.source, submission.notebook)
        with scratch(work_files(submission.files)) as folder:
            reasons = _work(_cells(notebook, test=False), folder, limits, sandboxed, usages)
            artifacts, left = collect(folder)
        files = {f"{ANSWERS}/{name}": content for name, content in artifacts.items()}
        with scratch(files) as folder:
            (folder / ANSWERS).mkdir(exist_ok=True)
            reasons += left + _test(_cells(notebook, test=True), folder, limits, sandboxed, usages)
    except Refused as refused:
        notebook, reasons = untouched(exercise.source), [str(refused)]
        _not_run(_cells(notebook, test=True), reasons[0])
    return Verdict(
        student=submission.student,
        exercise=submission.exercise,
        points={cell.metadata.nbgrader.grade_id: _points(cell)
                for cell in _cells(notebook, test=True)},
        notebook=nbformat.writes(notebook).encode(),
        reason=" ".join(reasons),
        cpu_seconds=sum(usage.cpu_seconds for usage in usages),
        peak_mb=max((usage.peak_mb for usage in usages), default=0.0),
        seconds=time.monotonic() - began,
    )  # fmt: skip


def _cells(notebook: NotebookNode, test: bool) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and is_test(cell) == test]


def _work(cells, folder, limits: Limits, sandboxed: bool, usages: list[Usage]) -> list[str]:
    """Run the work cells; what was handed in until they are stopped counts."""
    until = time.monotonic() + limits.seconds
    waiting = iter(cells)
    try:
        with started(folder, limits, sandboxed) as kernel:
            usages.append(kernel.usage)
            _run(waiting, kernel, until)
    except Stopped as stopped:
        _not_run(waiting, "an earlier cell was stopped")
        return [f"Work was stopped: {stopped}"]
    return []


def _test(cells, folder, limits: Limits, sandboxed: bool, usages: list[Usage]) -> list[str]:
    """Run the test cells; one that is stopped fails, and the next runs in another kernel."""
    until = time.monotonic() + limits.seconds
    waiting = iter(cells)
    reasons: list[str] = []
    for _ in range(1 + RESTARTS):
        try:
            with started(folder, limits, sandboxed, readonly=True) as kernel:
                usages.append(kernel.usage)
                _run(waiting, kernel, until)
            return reasons
        except Stopped as stopped:
            reasons.append(f"A test was stopped: {stopped}")
    _not_run(waiting, "too many tests were stopped")
    return reasons


def _run(waiting: Iterable[NotebookNode], kernel: Kernel, until: float) -> None:
    """Run cells one after the other and put down what they say."""
    for number, cell in enumerate(waiting, 1):
        cell.execution_count = number
        try:
            outputs = kernel.run(cell.source, until - time.monotonic())
        except Stopped as stopped:
            outputs = [*stopped.outputs, error("Stopped", str(stopped))]
            raise
        finally:
            cell.outputs = [nbformat.from_dict(output) for output in outputs]


def _not_run(waiting: Iterable[NotebookNode], reason: str) -> None:
    for cell in waiting:
        cell.outputs = [nbformat.from_dict(error("NotRun", f"Not run: {reason}"))]


def _points(cell: NotebookNode) -> float:
    """Return what nbgrader gives a test cell.

    A value that nbgrader would take for full points, or would stop at, is made a failure.
    """
    from nbgrader.utils import determine_grade

    for output in cell.outputs:
        if output.output_type == "execute_result":
            words = output.data["text/plain"]
            try:
                sound = math.isfinite(float(words)) and float(words) >= 0
                sound = sound and float(words) <= cell.metadata.nbgrader.points
            except ValueError:
                sound = bool(words)  # no number at all: nbgrader gives full points
            if not sound:
                output = error(
                    "NotGraded", f"the test's value {words[:80]!r} is no share of points"
                )
                cell.outputs.append(nbformat.from_dict(output))
                cell.outputs.insert(0, cell.outputs.pop())
                break
    return float(determine_grade(cell)[0])
