"""nbgrader itself beside ours: the same grades, and it goes on with them."""

import os
import subprocess
import sys
from pathlib import Path

import classes
import nbformat
import pytest

from qlearn.grading.course import Course

NOTEBOOK = f"{classes.EXERCISE}.ipynb"


def _run(course, *command):
    """A command in the course's folder; its output."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        command, cwd=course, env={**os.environ, "PATH": programs}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def _hand_in_all(course):
    """The same exercise with an artifact, and a class whose scores are 3, 1, 2 and 0."""
    classes.with_artifact(course)
    _run(course, "nbgrader", "generate_assignment", classes.EXERCISE)
    released = course / "notebooks" / "exercises" / classes.EXERCISE / NOTEBOOK
    for student, number in {"right": 42, "small": 2, "odd": 43, "untouched": None}.items():
        place = classes.submitted(course, student)
        place.mkdir(parents=True)
        notebook = nbformat.read(released, as_version=4)
        if number is not None:
            notebook.cells[0].source = classes.WRITE % number
            notebook.cells[3].source = "Because."
        nbformat.write(notebook, place / NOTEBOOK)
        (place / "timestamp.txt").write_text("2026-11-02 10:00:00 UTC")


@pytest.mark.long
def test_grades_are_nbgraders_own_and_nbgrader_goes_on_with_them(tmp_path, bubblewrap):
    """End to end, with the sandbox: the same rows, notebooks, export and formgrader's views."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    course, theirs = (
        classes.make_course(tmp_path / name, gradebook=False) for name in ("ours", "theirs")
    )
    for each in (course, theirs):
        _hand_in_all(each)
    _run(theirs, "nbgrader", "autograde", classes.EXERCISE)
    _run(theirs, "nbgrader", "generate_feedback", classes.EXERCISE)
    said = _run(course, "qlearn", "grade", classes.EXERCISE, "--workers", "1", "--timeout", "100")
    assert "4 graded." in said
    found = classes.grades(course)
    assert found == classes.grades(theirs)
    scores = [found[name, "test"][0] + found[name, "test-hidden"][0]
              for name in ("right", "small", "odd", "untouched")]  # fmt: skip
    assert scores == [3, 1, 2, 0]
    assert found["untouched", "explain"] == (0, None, False), "nothing to read"
    for student in ("right", "small", "odd", "untouched"):
        ours, nbgraders = (_graded(each, student) for each in (course, theirs))
        assert ours == nbgraders, student
    for step in ("autograded", "feedback"):
        assert _files(course, step) == _files(theirs, step)
    assert _views(course) == _views(theirs)
    for each in (course, theirs):
        _run(each, "nbgrader", "export")
    assert (course / "grades.csv").read_text() == (theirs / "grades.csv").read_text()
    _run(course, "nbgrader", "generate_feedback", classes.EXERCISE, "--force")


def _graded(course, student):
    """Cells of a graded notebook, and which of them failed."""
    place = course / "classroom" / "autograded" / student / classes.EXERCISE / NOTEBOOK
    return [
        (cell.cell_type, cell.source, cell.metadata.get("nbgrader"),
         [output.output_type for output in cell.get("outputs", [])])
        for cell in nbformat.read(place, as_version=4).cells
    ]  # fmt: skip


def _files(course, step):
    root = course / "classroom" / step
    return {path.relative_to(root) for path in root.glob("*/*/*") if path.is_file()}


def _views(course):
    """What formgrader lists."""
    from nbgrader.apps.api import NbGraderAPI

    with classes.contextlib.chdir(course):
        here = Course.here()
    api = NbGraderAPI(here.folders, parent=here.app)
    random = ("id", "submissions_id", "last_name", "first_name", "index")
    views = [
        *api.get_submissions(classes.EXERCISE),
        *api.get_notebook_submissions(classes.EXERCISE, classes.EXERCISE),
        *api.get_students(),
        api.get_assignment(classes.EXERCISE),
    ]
    facts = [{key: value for key, value in view.items() if key not in random} for view in views]
    return sorted(facts, key=repr)  # nbgrader sorts by random ids
