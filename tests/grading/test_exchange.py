"""What nbgrader's exchange makes of names, course ids and due dates, as the guide says it."""

import contextlib

import classes
import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.auth import Authenticator
from nbgrader.exchange.default import ExchangeCollect

from qlearn.grading.course import Course

DUE = "2026-11-02 12:00:00 UTC"
EARLY, LATE = "2026-11-02 10:00:00 UTC", "2026-11-02 14:00:00 UTC"


@pytest.fixture(scope="module")
def cluster():
    yield from classes.in_process()


@pytest.fixture
def course(tmp_path):
    """A course with a due date and an exchange, where ann was early and late, ben only late."""
    made = classes.make_course(tmp_path)
    with Gradebook(f"sqlite:///{made / 'classroom' / 'gradebook.db'}") as gradebook:
        gradebook.update_or_create_assignment("tiny", duedate=DUE)
    with open(made / "nbgrader_config.py", "a") as file:
        file.write(f"\nc.Exchange.root = {str(made / 'exchange')!r}\n")
        file.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    for student, when in (("ann", EARLY), ("ann", LATE), ("ben", LATE)):
        hand_in(made, student, when)
    (made / "exchange").chmod(0o777)
    return made


def hand_in(course, student, when, name="qlearn"):
    place = course / "exchange" / name / "inbound" / f"{student}+tiny+{when}+x"
    place.mkdir(parents=True)
    nbformat.write(classes.answer("answer = 42"), place / "tiny.ipynb")
    (place / "timestamp.txt").write_text(when)


def collected(course, **options):
    """By student, when what is there now was handed in."""
    with contextlib.chdir(course):
        here = Course.here()
        here.folders.assignment_id = "tiny"
        access = Authenticator(parent=here.app)
        ExchangeCollect(
            coursedir=here.folders, authenticator=access, parent=here.app, **options
        ).start()
    submitted = course / "classroom" / "submitted"
    return {path.parents[1].name: path.read_text() for path in submitted.glob("*/*/timestamp.txt")}


def test_the_latest_is_collected_or_the_latest_in_time_and_renewed_only_with_update(course):
    assert collected(course, before_duedate=True) == {"ann": EARLY, "ben": LATE}
    assert collected(course) == {"ann": EARLY, "ben": LATE}
    assert collected(course, update=True) == {"ann": LATE, "ben": LATE}


def test_lateness_costs_what_the_configuration_says(course, cluster):
    collected(course, before_duedate=True)
    assert classes.coordinate(course, scheduler=cluster) == 0
    found = classes.grades(course)
    assert (found["ann", "late"], found["ben", "late"]) == (None, 3.0)


def test_who_hands_in_for_somebody_else_is_taken(course):
    hand_in(course, "cem", LATE)  # the folder is ours
    assert "cem" in collected(course)


def test_another_courses_submissions_are_not_collected(course):
    hand_in(course, "dora", LATE, name="last-year")
    assert "dora" not in collected(course)
