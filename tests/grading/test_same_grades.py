"""`qlearn grade` and plain `nbgrader autograde` give the same grades, cell by cell."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

sys.path.append(str(Path(__file__).parents[1] / "exercises"))
import runner  # noqa: E402
from test_nbgrader import WRONG, submission  # noqa: E402

PROGRAMS = Path(sys.executable).parent


def run(course, *command):
    """A command in the course's folder, as in an activated environment."""
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=course, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make(folder, exercise):
    """A course with this exercise, and a class of three honest students."""
    shutil.copytree(runner.ROOT / "solutions" / exercise, folder / "solutions" / exercise)
    shutil.copy(runner.ROOT / "nbgrader_config.py", folder)
    code = {name: text for name, text in runner.reference(exercise).items() if name != "explain"}
    first, second = [*code][:2]
    wrong = {first: code[first], second: WRONG[exercise]}
    for student, work in {"reference": code, "untouched": {}, "wrong": wrong}.items():
        place = folder / "classroom" / "submitted" / student / exercise
        place.mkdir(parents=True)
        nbformat.write(submission(exercise, work), place / f"{exercise}.ipynb")
    run(folder, "nbgrader", "generate_assignment", exercise)
    return folder


def grades(course, exercise):
    """What the gradebook has of each cell of each student."""
    path = course / "classroom" / "gradebook.db"
    with contextlib.closing(Gradebook(f"sqlite:///{path}", "qlearn")) as gradebook:
        return {
            (found.student.id, grade.name): (grade.auto_score, grade.needs_manual_grade)
            for found in gradebook.assignment_submissions(exercise)
            for notebook in found.notebooks
            for grade in notebook.grades
        }


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_honest_work_has_the_same_grades_in_every_cell(exercise, tmp_path, bubblewrap, base_models):
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = (make(tmp_path / name, exercise) for name in ("ours", "theirs"))
    run(theirs, "nbgrader", "autograde", exercise)
    run(ours, "qlearn", "grade", exercise)
    found = grades(ours, exercise)
    assert found == grades(theirs, exercise)
    most = runner.maximum(exercise)
    assert {part: found["reference", part][0] for part in most} == most
    assert not any(found["untouched", part][0] for part in most)
    assert 0 < sum(found["wrong", part][0] for part in most) < sum(most.values())
