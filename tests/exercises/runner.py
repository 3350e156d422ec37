"""Run a submission's work cells and the source's test cells, each in a process of its own.

A submission is the released notebook with some of its cells replaced. The two processes share
nothing but the folder `answers/`, as in a graded class. Work forks from a server that has imported
what every exercise imports; tests fork from a process that has tested the reference, where models
and outputs that a submission leaves as they were are kept. A test cell whose answers are, byte for
byte, those of a submission before it says the same again, and is not run.
"""

import atexit
import hashlib
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from forking import FORKS, context

ROOT = Path(__file__).parents[2]
EXERCISES = sorted(path.name for path in (ROOT / "solutions").iterdir() if path.is_dir())
PATIENCE = 900  # seconds for one submission's work, or its tests: only a hang takes as long
ROUNDS = 5  # of each measurement; what is claimed of speed gets more tolerance instead


@dataclass
class Result:
    """Points and messages by the `grade_id` of each test cell."""

    points: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    work_error: str = ""


def notebook(folder: str, exercise: str):
    return nbformat.read(ROOT / folder / exercise / f"{exercise}.ipynb", as_version=4)


def nbgrader(*words, **folders):
    """Run nbgrader in the course, with some of its folders elsewhere."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = [f"--CourseDirectory.{name}={path}" for name, path in folders.items()]
    run = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words, *options],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def cases(bank: Iterable[str], decisive: Iterable[str]) -> list:
    """Parameters of a bank's test: those that are not decisive are for `make test-long`.

    Decisive ones cover each test cell and each kind of fault once.
    """
    return [pytest.param(n, marks=[] if n in decisive else pytest.mark.long) for n in bank]


def graded(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


def submission(exercise: str, work: dict[str, str]):
    """The released notebook with the work cells that `work` names replaced."""
    made = notebook(Path("notebooks") / "exercises", exercise)
    for cell in made.cells:
        cell.source = work.get(graded(cell).get("grade_id"), cell.source)
    return made


def is_test(cell) -> bool:
    return graded(cell).get("grade", False) and not graded(cell)["solution"]


def maximum(exercise: str) -> dict[str, float]:
    """Points of each test cell of an exercise."""
    cells = notebook("solutions", exercise).cells
    return {graded(c)["grade_id"]: graded(c)["points"] for c in cells if is_test(c)}


def reference(exercise: str) -> dict[str, str]:
    """The source's own work cells, by `grade_id`."""
    cells = notebook("solutions", exercise).cells
    return {graded(c)["grade_id"]: c.source for c in cells if graded(c).get("solution")}


def lost(exercise: str, result: Result) -> dict[str, float]:
    """Points that a result lacks, by `grade_id`."""
    most = maximum(exercise)
    return {name: most[name] - got for name, got in result.points.items() if got != most[name]}


def assert_every_message_helps(result: Result) -> None:
    """Each message is a sentence for a learner, no dump."""
    for message in result.messages.values():
        assert message.startswith("AssertionError: ") and len(message) < 400, message


def grade(exercise: str, work: dict[str, str], folder: Path, first: bool = False) -> Result:
    """Grade the released notebook with its work cells replaced.

    `work` maps `grade_id` to code; cells that are not named stay as they were released. The process
    of the `first` stays, for those of the same exercise that follow.
    """
    cells = submission(exercise, work).cells
    unknown = set(work) - {graded(c).get("grade_id") for c in cells}
    assert not unknown, f"no such work cell: {unknown}"
    code = [c.source for c in cells if c.cell_type == "code" and not is_test(c)]
    tests = {
        graded(c)["grade_id"]: c.source
        for c in notebook("solutions", exercise).cells
        if is_test(c) and c.cell_type == "code"
    }
    result = Result()
    errors = _apart(_work, code, folder)
    result.work_error = errors[0] if errors else ""
    most, answers = maximum(exercise), _digests(folder)
    messages = {} if first else _said_before(tests, answers)
    rest = {name: cell for name, cell in tests.items() if name not in messages}
    for name, (message, read) in _run_tests(exercise, rest, folder, first).items():
        _SAID.setdefault(rest[name], []).append(({n: answers.get(n) for n in read}, message))
        messages[name] = message
    for name, message in messages.items():
        result.points[name] = 0 if message else most[name]
        if message:
            result.messages[name] = message
    assert result.points.keys() == tests.keys(), "the tests did not run to their end"
    return result


# For the code of each test cell: digests of the answers that it read, and what it said.
_SAID: dict[str, list[tuple[dict[str, str | None], str]]] = {}
ALL = "*"  # read by whoever asks which answers there are


def _digests(folder: Path) -> dict[str, str]:
    """Digest of each answer, of all files that have its name; and of all answers."""
    found: dict[str, list] = {ALL: []}
    for path in sorted((folder / "answers").glob("*")):
        facts = path.name, hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(path.stem, []).append(facts)
        found[ALL].append(facts)
    return {name: str(facts) for name, facts in found.items()}


def _said_before(tests: dict[str, str], answers: dict[str, str]) -> dict[str, str]:
    """Message of each test cell that has read these very answers before."""
    return {
        name: message
        for name, cell in tests.items()
        for read, message in _SAID.get(cell, ())
        if all(answers.get(n) == digest for n, digest in read.items())
    }


class _Server:
    """A process that has run an exercise's tests once, and forks for each time that they run again.

    It has one thread, as all processes of a bank: one with more must not fork.
    """

    latest: "_Server | None" = None  # only one is kept: each holds all that its tests loaded

    def __init__(self, exercise: str) -> None:
        self.exercise = exercise
        self.requests, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()
        atexit.register(self.end)  # before multiprocessing waits for it

    def test(self, cells: dict[str, str], folder: Path) -> dict[str, tuple[str, set[str]]]:
        """Run test cells in a folder; return their messages and what they read."""
        self.requests.send((cells, str(folder)))
        return (self.requests.recv() if self.requests.poll(2 * PATIENCE) else None) or {}

    def end(self) -> None:
        self.requests.close()
        self.process.kill()
        self.process.join()


def _run_tests(exercise: str, cells: dict[str, str], folder: Path, first: bool) -> dict:
    """Run test cells, where there is one in a fork of the process that has run the first ones."""
    if first and FORKS:
        if _Server.latest:
            _Server.latest.end()
        _Server.latest = _Server(exercise)
    if not cells:
        return {}
    if _Server.latest and _Server.latest.exercise == exercise:
        return _Server.latest.test(cells, folder)
    return _apart(_test, cells, folder) or {}


def _serve(requests) -> None:
    cells, folder = requests.recv()
    _settle(folder)
    requests.send(_test(cells))
    fork = multiprocessing.get_context("fork")
    while True:
        try:
            requested = requests.recv()
        except EOFError:  # the tests are over
            return
        requests.send(_apart(_test_again, *requested, fork))


def _apart(function, cells, folder: Path | str, context=context):
    """Call `function` in a new process, in the folder; return what it sends."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(function, cells, str(folder), sender))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(PATIENCE) else None
    except EOFError:
        return None  # it died: what it handed in until then counts
    finally:
        process.kill()
        process.join()


def _child(function, cells, folder: str, sender) -> None:
    _settle(folder)
    sender.send(function(cells))


def _settle(folder: str) -> None:
    """Have this process work in a folder, silently, on one thread."""
    import torch

    os.chdir(folder)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)


def _shell():
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    matplotlib.use("Agg")
    # A history is written by a thread, and a process with threads must not fork.
    return InteractiveShell(config=Config(HistoryManager={"enabled": False}))


def _work(cells: list[str]) -> list[str]:
    """Run every cell, as `Run All` of a grader does: an error does not stop the next."""
    from qlearn import benchmarking
    from qlearn.exercises import run as run_of_the_notebook

    benchmarking.ROUNDS = ROUNDS
    # Answers of the reference were laid into the folder before: they count as this run's.
    run_of_the_notebook.counts = lambda name: True
    shell, errors = _shell(), []
    for code in cells:
        run = shell.run_cell(code, store_history=True)
        if not run.success:
            errors.append(
                "".join(traceback.format_exception(run.error_before_exec or run.error_in_exec))
            )
    return errors


def _without_regard_to_load() -> None:
    """Let no load of this machine decide about a claim: neither give points nor take them.

    Real models are measured, in a few short rounds. So honest claims get more tolerance, and what a
    bank makes up is a thousand times off.
    `tests/exercises/artifacts/test_speed.py` has the rule itself.
    """
    from qlearn import benchmarking, checks
    from qlearn.exercises.checks import speed

    benchmarking.ROUNDS, speed.SECONDS = ROUNDS, (0.05,) * 3
    holds = speed.speedups_hold

    def patient(
        claims, models, inputs, factor=speed.FACTOR, elsewhere=False, opposite=speed.OPPOSITE
    ):
        holds(claims, models, inputs, 4 * factor, elsewhere, 2 * opposite)

    speed._unsteady = lambda table, found: ""
    speed.speedups_hold = checks.speedups_hold = patient


def _test(cells: dict[str, str]) -> dict[str, tuple[str, set[str]]]:
    """Message of each test cell, empty when it passed, and the answers that it read."""
    _without_regard_to_load()
    return _test_again(cells)


def _test_again(cells: dict[str, str]) -> dict[str, tuple[str, set[str]]]:
    shell, results = _shell(), {}
    for name, code in cells.items():
        with _noted() as read:
            run = shell.run_cell(code, store_history=True)
        error = run.error_before_exec or run.error_in_exec
        results[name] = f"{type(error).__name__}: {error}" if error else "", read
    return results


@contextmanager
def _noted():
    """Yield a set into which comes the name of each answer that is asked for."""
    from qlearn.exercises.reading import Answers

    read: set[str] = set()

    class Noting(Answers):
        get = keys = values = items = None  # a cell that took these would not be noticed

        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

        def __contains__(self, name):
            read.add(name)
            return super().__contains__(name)

        def __iter__(self):
            read.add(ALL)
            return super().__iter__()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qlearn.exercises.reading.Answers", Noting)
        yield read
