"""Plain `nbgrader autograde`, `qlearn grade` and the banks' runner: the same grades, cell by cell.

A class of two for each exercise: the reference, and one whose first part is right, second wrong and
others untouched. `make bench-grading` compares larger classes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

for room in ("exercises", "notebooks"):
    sys.path.append(str(Path(__file__).parents[1] / room))
import runner  # noqa: E402
from test_lessons import OFFLINE  # noqa: E402

PROGRAMS = Path(sys.executable).parent
# Each Python that starts so writes down its command.
NOTED = """
import sys
from pathlib import Path
with open(Path(__file__).with_name("noted"), "a") as file:
    file.write(f"{sys.orig_argv}\\n")
"""
QUICKEST = ("ex3_qat_vs_ptq", "ex4_schemes")
CLASSES = [
    pytest.param(exercise, marks=[] if exercise in QUICKEST else pytest.mark.long)
    for exercise in runner.EXERCISES
]
# Second parts that hand in something wrong, after the reference's first part and nothing else.
WRONG = {
    "ex1_resnet_dynamic": "import pandas as pd\n"
    "qlearn.submit('table', pd.DataFrame({'size_mb': [45, 11]}, index=['fp32', 'int8']))",
    "ex2_lstm_static": "import torch.ao.quantization as tq\n"
    "qlearn.submit('static', tq.quantize_dynamic(model, {nn.LSTM, nn.Linear}), ids)",
    "ex3_qat_vs_ptq": "qlearn.submit('ptq8', float_cnn, images)",
    "ex4_schemes": "qlearn.submit('int8_dynamic', model, images)",
    "ex5_mobile": "qlearn.submit('lite_int8', folder / 'lite_fp32.ptl')",
}


def run(course, *command):
    """A command in the course's folder, as in an activated environment."""
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=course, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def class_of(exercise):
    """Work cells by student."""
    code = {name: text for name, text in runner.reference(exercise).items() if name != "explain"}
    first, second = [*code][:2]
    wrong = {first: code[first], second: WRONG[exercise]}
    return {"reference": code, "wrong": wrong}


def make(folder, exercise):
    """A course with this exercise, and what its class handed in."""
    shutil.copytree(runner.ROOT / "solutions" / exercise, folder / "solutions" / exercise)
    shutil.copy(runner.ROOT / "nbgrader_config.py", folder)
    for student, work in class_of(exercise).items():
        place = folder / "classroom" / "submitted" / student / exercise
        place.mkdir(parents=True)
        nbformat.write(runner.submission(exercise, work), place / f"{exercise}.ipynb")
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


@pytest.fixture(scope="module", params=CLASSES)
def graded(request, tmp_path_factory, base_models):
    """An exercise, and the grades that nbgrader gave its class, whose kernels had no network."""
    course = make(tmp_path_factory.mktemp("theirs"), request.param)
    offline = tmp_path_factory.mktemp("offline")
    (offline / "sitecustomize.py").write_text(OFFLINE + NOTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(offline), prepend=os.pathsep)
        run(course, "nbgrader", "autograde", request.param)
    assert "ipykernel" in (offline / "noted").read_text(), "a kernel had a network"
    assert_no_cell_failed(course / "classroom" / "autograded" / "reference" / request.param)
    run(course, "nbgrader", "generate_feedback", request.param)
    for student in class_of(request.param):
        page = course / "classroom" / "feedback" / student / request.param
        assert (page / f"{request.param}.html").exists()
    return request.param, grades(course, request.param)


def assert_no_cell_failed(folder):
    """Every cell of a solution ran top to bottom, its tests included."""
    (path,) = folder.glob("*.ipynb")
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]


def test_nbgrader_grades_as_the_exercise_promises(graded):
    exercise, found = graded
    most = runner.maximum(exercise)
    assert {part: found["reference", part][0] for part in most} == most
    assert 0 < sum(found["wrong", part][0] for part in most) < sum(most.values())
    failed = [part for part in most if "2" in part and not found["wrong", part][0]]
    assert failed, "the second part is wrong"


def test_the_banks_runner_gives_the_same_grades(graded, tmp_path):
    """The banks hold the reference to the maximum themselves."""
    exercise, found = graded
    result = runner.grade(exercise, class_of(exercise)["wrong"], tmp_path)
    points = {part: found["wrong", part][0] for part in runner.maximum(exercise)}
    assert result.points == points, result.messages


def test_qlearn_grade_gives_the_same_grades(graded, tmp_path, bubblewrap):
    exercise, found = graded
    course = make(tmp_path, exercise)
    run(course, "qlearn", "grade", exercise)
    assert grades(course, exercise) == found
