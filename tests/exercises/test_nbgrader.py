"""nbgrader's own autograde, validate and feedback, on submissions whose scores we know."""

from pathlib import Path

import nbformat
import pytest
import runner
from nbgrader.api import Gradebook

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
NOISY = """
import sys, warnings
from tqdm import tqdm
warnings.warn("this API goes away")
for _ in tqdm(range(3)):
    pass
print("three of four", file=sys.stderr)
assert answer == 42, "The answer must be 42."
"""


def submission(exercise, work):
    """The released notebook with some work cells replaced."""
    notebook = runner.notebook(Path("notebooks") / "exercises", exercise)
    for cell in notebook.cells:
        cell.source = work.get(runner.graded(cell).get("grade_id"), cell.source)
    return notebook


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


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_nbgrader_autograde_gives_the_same_scores(exercise, tmp_path, base_models):
    """The reference, the untouched release, and one whose first part is right and second wrong."""
    code = {name: src for name, src in runner.reference(exercise).items() if name != "explain"}
    first, second = [*code][:2]
    class_ = {
        "reference": code,
        "untouched": {},
        "wrong": {first: code[first], second: WRONG[exercise]},
    }
    for student, work in class_.items():
        hand_in(submission(exercise, work), student, exercise, tmp_path)
    folders = course(tmp_path)
    runner.nbgrader("generate_assignment", exercise, **folders)
    runner.nbgrader("autograde", exercise, **folders)
    runner.nbgrader("generate_feedback", exercise, **folders)
    scores = {}
    with Gradebook(folders["db_url"]) as gradebook:
        for student in class_:
            graded = gradebook.find_submission_notebook(exercise, exercise, student)
            scores[student] = {g.name: g.auto_score for g in graded.grades if g.name != "explain"}
            assert (tmp_path / "feedback" / student / exercise / f"{exercise}.html").exists()
    # The banks hold our own scores of the reference to the same maximum.
    assert scores["reference"] == runner.maximum(exercise)
    for student in ("untouched", "wrong"):
        (tmp_path / student).mkdir()
        ours = runner.grade(exercise, class_[student], tmp_path / student)
        assert scores[student] == ours.points, (student, ours.messages)
    assert sum(scores["untouched"].values()) == 0 < sum(scores["wrong"].values())
    failed = [name for name, points in scores["wrong"].items() if "2" in name and not points]
    assert failed, "the second part is wrong"


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
