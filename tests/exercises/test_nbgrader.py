"""nbgrader's own autograde and validate, where a test cell writes to stderr.

What it gives real submissions is in `tests/grading/test_same_grades.py`.
"""

import nbformat
import pytest
import runner
from nbgrader.api import Gradebook

NOISY = """
import os, sys, warnings
from tqdm import tqdm
warnings.warn("this API goes away")
for _ in tqdm(range(3)):
    pass
print("three of four", file=sys.stderr)
os.write(2, b"[W deprecated.cpp:1] from C++ ")
assert answer == 42, "The answer must be 42."
"""


def course(folder):
    """A class's folders, elsewhere, as options of nbgrader's commands."""
    kinds = ("submitted", "autograded", "feedback", "release")
    return {f"{kind}_directory": folder / kind for kind in kinds} | {
        "db_url": f"sqlite:///{folder / 'gradebook.db'}"
    }


def hand_in(notebook, student, exercise, folder):
    place = folder / "submitted" / student / exercise
    place.mkdir(parents=True)
    nbformat.write(notebook, place / f"{exercise}.ipynb")


@pytest.fixture
def noisy(tmp_path):
    """A course of one exercise whose test cell writes to stderr; one student right, one wrong."""
    new = nbformat.v4
    work = new.new_code_cell("### BEGIN SOLUTION\nanswer = 42\n### END SOLUTION")
    shared = {"schema_version": 3, "task": False, "locked": False}
    work.metadata["nbgrader"] = {"grade": False, "solution": True, "grade_id": "work", **shared}
    test = new.new_code_cell(NOISY)
    test.metadata["nbgrader"] = {
        "grade": True, "solution": False, "grade_id": "test", "points": 2, **shared, "locked": True,
    }  # fmt: skip
    source = new.new_notebook(cells=[work, test])
    source.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (tmp_path / "source" / "noisy").mkdir(parents=True)
    nbformat.write(source, tmp_path / "source" / "noisy" / "noisy.ipynb")
    folders = course(tmp_path) | {"source_directory": tmp_path / "source"}
    runner.nbgrader("generate_assignment", "noisy", **folders)
    for student, answer in (("right", 42), ("wrong", 41)):
        released = nbformat.read(tmp_path / "release" / "noisy" / "noisy.ipynb", as_version=4)
        released.cells[0].source = f"answer = {answer}"
        hand_in(released, student, "noisy", tmp_path)
    return tmp_path, folders


def test_warnings_and_progress_bars_cost_no_points(noisy):
    folder, folders = noisy
    runner.nbgrader("autograde", "noisy", **folders)
    with Gradebook(folders["db_url"]) as gradebook:
        scores = {s: gradebook.find_submission("noisy", s).score for s in ("right", "wrong")}
    assert scores == {"right": 2, "wrong": 0}


@pytest.mark.parametrize(
    "student, said", [("right", "Success! Your notebook passes"), ("wrong", "must be 42")]
)
def test_validate_judges_as_autograde_does(noisy, student, said):
    folder, _ = noisy
    notebook = folder / "submitted" / student / "noisy" / "noisy.ipynb"
    assert said in runner.nbgrader("validate", str(notebook)).stdout
