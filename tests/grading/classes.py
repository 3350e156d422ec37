"""A small course whose class is graded in milliseconds, and a scorer that stands in for ours."""

import contextlib
import functools
import importlib
import os
import socket
import sys
import tempfile
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from qlearn.grading.records import Exercise, Submission, Verdict

sys.path.append(str(Path(__file__).parents[1]))  # where the benchmarks find it, without pytest
from forking import context  # noqa: E402

ROOT = Path(__file__).parents[2]
EXERCISE = "tiny"
CONFIGURATION = (ROOT / "nbgrader_config.py").read_text()
RELEASED = "raise NotImplementedError"
HIDDEN = "answer_is_even = answer % 2 == 0"


def _cell(make, source, name, **facts):
    cell = make(source)
    defaults = {"schema_version": 3, "task": False, "locked": False, "grade": False}
    cell.metadata["nbgrader"] = {**defaults, "solution": False, "grade_id": name, **facts}
    return cell


def source():
    """A part that is tested, openly and hidden, and a part that a person reads."""
    code, text = v4.new_code_cell, v4.new_markdown_cell
    hidden = f"### BEGIN HIDDEN TESTS\n{HIDDEN}\nassert answer_is_even\n### END HIDDEN TESTS"
    test = {"grade": True, "locked": True}
    work = "### BEGIN SOLUTION\nanswer = 42\n### END SOLUTION"
    cells = [
        _cell(code, work, "work", solution=True),
        _cell(code, "assert answer > 40, 'Too small.'", "test", points=2, **test),
        _cell(code, f"assert answer\n{hidden}", "test-hidden", points=1, **test),
        _cell(text, "Say why.", "explain", points=3, grade=True, solution=True),
    ]
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return notebook


def answer(work, words="Because."):
    """The notebook of a student with this work."""
    notebook = source()
    notebook.cells[0].source, notebook.cells[3].source = work, words
    notebook.cells[2].source = "assert answer\n"
    return notebook


@functools.cache
def _gradebook() -> bytes:
    """An empty gradebook; nbgrader starts another program to make one."""
    from nbgrader.api import Gradebook

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gradebook.db"
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", programs)
            Gradebook(f"sqlite:///{path}", "qlearn").close()
        return path.read_bytes()


# Test cells that read what the work cell hands in, so that our two kernels serve as well as one.
READ = "import json\nanswer = json.load(open('answers/n.json'))\n"
WRITE = "import pathlib\npathlib.Path('answers').mkdir(exist_ok=True)\n"
WRITE += "pathlib.Path('answers/n.json').write_text('%s')"


def with_artifact(course: Path) -> None:
    """Make the course's exercise one whose answer is an artifact."""
    notebook = source()
    for cell in notebook.cells[1:3]:
        cell.source = READ + cell.source
    nbformat.write(notebook, course / "solutions" / EXERCISE / f"{EXERCISE}.ipynb")


def make_course(folder: Path, gradebook: bool = True) -> Path:
    """A course's folder, with its exercise and no submission, perhaps with an empty gradebook."""
    (folder / "nbgrader_config.py").write_text(CONFIGURATION)
    if gradebook:
        (folder / "classroom").mkdir()
        (folder / "classroom" / "gradebook.db").write_bytes(_gradebook())
    place = folder / "solutions" / EXERCISE
    place.mkdir(parents=True)
    nbformat.write(source(), place / f"{EXERCISE}.ipynb")
    return folder


def submitted(course: Path, student: str) -> Path:
    return course / "classroom" / "submitted" / student / EXERCISE


def hand_in(course: Path, student: str, work: str, **more: str) -> Path:
    """Put a student's submission into the course."""
    place = submitted(course, student)
    place.mkdir(parents=True, exist_ok=True)
    nbformat.write(answer(work, **more), place / f"{EXERCISE}.ipynb")
    return place


def stand_in(submission: Submission, exercise: Exercise) -> Verdict:
    """Run work and tests right here: no sandbox, so for work that a test itself wrote."""
    notebook = nbformat.reads(exercise.source.decode(), as_version=4)
    cells = {c.metadata.nbgrader.grade_id: c for c in notebook.cells}
    for cell in nbformat.reads(submission.notebook.decode(), as_version=4).cells:
        name = cell.metadata.nbgrader.grade_id
        if cells[name].metadata.nbgrader.solution:
            cells[name].source = cell.source
    names: dict = {}
    try:
        exec(cells["work"].source, names)
    except Exception as error:
        cells["work"].outputs = [_error(error)]
    points = {}
    for name in ("test", "test-hidden"):
        try:
            exec(cells[name].source, names)
            points[name] = cells[name].metadata.nbgrader.points
        except Exception as error:
            cells[name].outputs, points[name] = [_error(error)], 0
    written = nbformat.writes(notebook).encode()
    return Verdict(submission.student, submission.exercise, written, points, seconds=0.1)


def _error(error):
    lines = f"----> 2 {HIDDEN}\n{error}"
    return v4.new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[lines])


def in_sandbox(submission: Submission, exercise: Exercise) -> Verdict:
    """Grade as `qlearn grade` does."""
    from qlearn.grading.sandbox import Limits
    from qlearn.grading.scoring import score

    return score(submission, exercise, Limits(seconds=100))


def coordinate(course: Path, **options) -> int:
    """Exit code of `qlearn grade tiny` in this process; the stand-in grades unless another does."""
    import classes  # so that workers find it by its name

    from qlearn.grading.run import grade

    score = getattr(classes, options.pop("score", "stand_in"))
    with contextlib.chdir(course):
        return grade(EXERCISE, score, options.pop("limits", "none"), **options)


def _child(course: Path, output: Path, options: dict, began: Event) -> None:
    began.set()
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1), os.dup2(sink, 2)
    try:
        raise SystemExit(coordinate(course, **options))
    except KeyboardInterrupt:  # before it is noted; the command line says "Aborted!"
        raise SystemExit(130) from None


def start(course: Path, **options):
    """The same in a process of its own, forked from one that has imported what it needs."""
    began = context.Event()
    process = context.Process(target=_child, args=(course, course / "output.txt", options, began))
    (course / "output.txt").touch()
    process.start()
    while not began.wait(1) and process.is_alive():
        pass  # until it has begun, the server's child ignores Ctrl-C
    return process


def _run(place: Path, module: str, arguments: tuple[str, ...]) -> None:
    import dask

    # Or an idle worker looks a hundred times a second at what it does.
    dask.config.set({"distributed.worker.profile.enabled": False})
    os.chdir(place)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1), os.dup2(sink, 2)
    importlib.import_module(module).main(arguments)


def _dask(place: Path, module: str, *arguments: str) -> BaseProcess:
    """A program of dask's, forked like a coordinator."""
    # Daemonic: it ends with the tests, however they end.
    process = context.Process(target=_run, args=(place, module, arguments), daemon=True)
    process.start()
    return process


def worker_of(address: str, place: Path, name: str) -> BaseProcess:
    """A worker in a folder of its own."""
    (place / name).mkdir(parents=True)
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--name", name]
    options += ["--preload", "qlearn.grading.worker", "--local-directory", str(place / name)]
    return _dask(place / name, "distributed.cli.dask_worker", address, *options)


def scheduler_at(port: int, place: Path) -> BaseProcess:
    """A scheduler on this machine."""
    options = ["--no-dashboard", "--host", "127.0.0.1", "--port", str(port)]
    return _dask(place, "distributed.cli.dask_scheduler", *options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(processes) -> None:
    for process in processes:
        process.kill()
        process.join()


def in_process():
    """Yield a scheduler whose worker is in this process, where the fan-out is not tested."""
    from distributed import LocalCluster

    with LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def page(course: Path, student: str) -> str:
    """What a student gets back."""
    place = course / "classroom" / "feedback" / student / EXERCISE
    return (place / f"{EXERCISE}.html").read_text()


def grades(course: Path) -> dict:
    """Everything that the gradebook says about the class, without its random ids."""
    from nbgrader.api import Gradebook

    found = {}
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        for submission in gradebook.assignment_submissions(EXERCISE):
            for notebook in submission.notebooks:
                found[submission.student.id, "late"] = notebook.late_submission_penalty
                found[submission.student.id, "when"] = str(submission.timestamp)
                for grade in notebook.grades:
                    facts = (grade.auto_score, grade.manual_score, grade.needs_manual_grade)
                    found[submission.student.id, grade.name] = facts
                for comment in notebook.comments:
                    found[submission.student.id, comment.name, "comment"] = comment.comment
    return found
