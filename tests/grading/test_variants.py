"""A variant that is drawn from the student's id, whatever name the notebook has."""

import os

import classes
import nbformat
import pytest
from test_with_nbgrader import _run

from qlearn.exercises import draw
from qlearn.grading.records import Exercise, Submission
from qlearn.grading.sandbox import Limits
from qlearn.grading.scoring import score

START = "import qlearn\nmine = qlearn.start('ex1', 'eve')\nqlearn.submit('hidden', {})"
TEST = """
from qlearn import checks
wanted, found = checks.variant("ex1")["hidden"], checks.exists("hidden").load()
assert found == wanted, f"'hidden' is {found}, and your variant has {wanted}."
"""
ANN, EVE = draw("ex1", "ann")["hidden"], draw("ex1", "eve")["hidden"]
OWN, TYPED = START.format("mine['hidden']"), START.format(EVE)
FORGED = f"{OWN}\nqlearn.submit('learner', 'eve'); qlearn.submit('hidden', {EVE})"


def _source():
    notebook = classes.source()
    del notebook.cells[2:]
    notebook.cells[0].source = f"### BEGIN SOLUTION\n{OWN}\n### END SOLUTION"
    notebook.cells[1].source = TEST
    return notebook


def _notebook(work):
    notebook = _source()
    notebook.cells[0].source = work
    return notebook


def _graded(work, learner, sandboxed):
    exercise = Exercise("tiny", nbformat.writes(_source()).encode())
    submitted = Submission("ann", "tiny", nbformat.writes(_notebook(work)).encode(), {}, learner)
    verdict = score(submitted, exercise, Limits(seconds=100), sandboxed)
    return verdict.points["test"], verdict.notebook.decode()


@pytest.mark.parametrize("sandboxed", [True, False])
def test_the_id_goes_before_the_name_in_the_notebook(sandboxed, bubblewrap):
    points, said = _graded(TYPED, "ann", sandboxed)
    assert points == 0 and f"'hidden' is {EVE}, and your variant has {ANN}." in said
    assert "Your variant follows from the student id 'ann', not from 'eve'" in said


def test_an_answer_that_says_it_is_another_students_earns_nothing(bubblewrap):
    points, said = _graded(FORGED, "ann", sandboxed=True)
    assert points == 0 and "These answers are of 'eve', and this is the work of 'ann'" in said


def test_the_option_grades_a_class_again_and_each_has_the_own_variant(tmp_path, bubblewrap):
    course = classes.make_course(tmp_path)
    nbformat.write(_source(), course / "solutions" / "tiny" / "tiny.ipynb")
    for student, work in {"ann": TYPED, "eve": TYPED, "zoe": OWN}.items():
        place = classes.hand_in(course, student, "")
        nbformat.write(_notebook(work), place / "tiny.ipynb")

    def points(**options):
        assert classes.coordinate(course, score="in_sandbox", **options) == 0
        return {name: classes.grades(course)[name, "test"][0] for name in ("ann", "eve", "zoe")}

    assert points() == {"ann": 2, "eve": 2, "zoe": 2}
    assert points(variants_by_id=True) == {"ann": 0, "eve": 2, "zoe": 2}
    assert "Your variant follows from the student id" in classes.page(course, "ann")


@pytest.mark.long
def test_nbgrader_takes_the_id_of_one_student_from_the_environment(tmp_path, monkeypatch):
    course = classes.make_course(tmp_path, gradebook=False)
    nbformat.write(_source(), course / "solutions" / "tiny" / "tiny.ipynb")
    _run(course, "nbgrader", "generate_assignment", "tiny")
    for student, work in {"ann": TYPED, "eve": OWN}.items():
        nbformat.write(_notebook(work), classes.hand_in(course, student, "") / "tiny.ipynb")
        monkeypatch.setitem(os.environ, "QLEARN_LEARNER", student)
        _run(course, "nbgrader", "autograde", "tiny", "--student", student)
    found = classes.grades(course)
    assert (found["ann", "test"][0], found["eve", "test"][0]) == (0, 2)
