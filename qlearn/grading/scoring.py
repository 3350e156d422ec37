"""Grade one submission: work in one kernel, tests in another that never ran the learner's code."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from qlearn.grading.kernels import Ended, Kernel, Slow, Stopped, started
from qlearn.grading.notebooks import is_test, joined, untouched
from qlearn.grading.outputs import error
from qlearn.grading.records import Exercise, Submission, Verdict
from qlearn.grading.sandbox import Limits, SandboxUnavailable, require
from qlearn.grading.scratch import ANSWERS, Refused, collect, scratch, work_files

RESTARTS = 3  # of the test kernel, for artifacts that end it
InKernel = Callable[..., Stopped | None]  # `_in_kernel` with all but its positional parameters


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
    Slow
        When the machine was too busy for a verdict.
    """
    if sandboxed:
        require()
    began = time.monotonic()
    working, testing = [], []
    try:
        notebook = joined(exercise.source, submission.notebook)
        in_kernel = partial(
            _in_kernel, learner=submission.learner, limits=limits, sandboxed=sandboxed
        )
        answers, reasons = _work(notebook, submission.files, partial(in_kernel, kernels=working))
        with scratch(answers) as folder:
            (folder / ANSWERS).mkdir(exist_ok=True)
            reasons += _test(notebook, folder, partial(in_kernel, kernels=testing))
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
        cpu_seconds=sum(kernel.usage.cpu_seconds for kernel in working + testing),
        peak_mb=max((kernel.usage.peak_mb for kernel in working + testing), default=0.0),
        seconds=time.monotonic() - began,
    )  # fmt: skip


def _cells(notebook: NotebookNode, test: bool) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and is_test(cell) == test]


def _work(
    notebook: NotebookNode, files: Mapping[str, bytes], in_kernel: InKernel
) -> tuple[dict[str, bytes], list[str]]:
    """Run the work cells; return what was handed in until they are done or stopped."""
    for last in (False, True):
        waiting = deque(_cells(notebook, test=False))
        with scratch(work_files(files)) as folder:
            stopped = in_kernel(waiting, folder, readonly=False, last=last)
            artifacts, reasons = collect(folder)
        if not isinstance(stopped, Ended):
            break
    if stopped:
        reasons.insert(0, f"Work was stopped: {stopped}")
        waiting.popleft()
        _not_run(waiting, "an earlier cell was stopped")
    return {f"{ANSWERS}/{name}": content for name, content in artifacts.items()}, reasons


def _test(notebook: NotebookNode, folder: Path, in_kernel: InKernel) -> list[str]:
    """Run the test cells; one that is stopped fails, and the next runs in another kernel."""
    waiting, again = deque(_cells(notebook, test=True)), None
    reasons: list[str] = []
    while waiting and len(reasons) <= RESTARTS:
        stopped = in_kernel(waiting, folder, readonly=True, last=again is waiting[0])
        if isinstance(stopped, Ended) and again is not waiting[0]:
            again = waiting[0]
        elif stopped:
            waiting.popleft()
            reasons.append(f"A test was stopped: {stopped}")
    _not_run(waiting, "too many tests were stopped")
    return reasons


def _in_kernel(
    waiting: deque[NotebookNode], folder: Path, readonly: bool, last: bool, *,
    kernels: list[Kernel], learner: str, limits: Limits, sandboxed: bool,
) -> Stopped | None:  # fmt: skip
    """Run cells until none is waiting; return what stopped the first that is.

    A kernel that ends may have been killed by a machine short of memory: its cells run in another
    before their student pays for it. That one is the ``last``. All ``kernels`` share the time.
    """
    left = limits.seconds - sum(kernel.spent for kernel in kernels)
    try:
        with started(folder, limits, sandboxed, readonly, learner) as kernel:
            kernels.append(kernel)
            _run(waiting, kernel, left)
    except Slow:
        raise
    except Stopped as stopped:
        return stopped
    except SandboxUnavailable as problem:
        if last:
            _require_kernels(limits, sandboxed)
        return Ended(f"its kernel did not start: {problem}" if last else str(problem))
    return None


def _require_kernels(limits: Limits, sandboxed: bool) -> None:
    """Raise `SandboxUnavailable` unless a kernel starts where nothing was handed in."""
    with scratch({}) as folder, started(folder, limits, sandboxed):
        pass


def _run(waiting: deque[NotebookNode], kernel: Kernel, seconds: float) -> None:
    """Run cells one after the other and put down what they say."""
    for number in count(1):
        if not waiting:
            return
        cell = waiting[0]
        cell.execution_count = number
        try:
            outputs = kernel.run(cell.source, seconds - kernel.spent)
        except Stopped as stopped:
            outputs = [*stopped.outputs, error("Stopped", str(stopped))]
            raise
        finally:
            cell.outputs = [nbformat.from_dict(output) for output in outputs]
        waiting.popleft()


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
