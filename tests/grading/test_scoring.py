"""Grading one submission: the same points as nbgrader."""

import json

import nbformat
import pytest
from hostile import EARNED, FIRST, NOTHING, notebook, source
from hostile.exercise import HONEST, released
from nbgrader.utils import determine_grade, is_grade, is_solution

from qlearn.grading.notebooks import joined, unwritten
from qlearn.grading.records import Exercise, Submission
from qlearn.grading.sandbox import Limits
from qlearn.grading.scoring import score

NUMBER = Exercise("number", source())
WORK = {name.replace("-", "_"): code for name, code in HONEST.items()}
pytestmark = pytest.mark.usefixtures("bubblewrap")


def graded(submitted, exercise=NUMBER, **options):
    verdict = score(Submission("ann", "number", submitted), exercise, Limits(), **options)
    made = nbformat.reads(verdict.notebook.decode(), as_version=4)
    nbformat.validate(made)
    return verdict, {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in made.cells}


@pytest.mark.parametrize("sandboxed", [True, False])
def test_honest_work_earns_its_points_with_and_without_the_sandbox(sandboxed):
    verdict, cells = graded(notebook(**WORK, explain="Because."), sandboxed=sandboxed)
    assert verdict.points == EARNED and verdict.reason == ""
    assert verdict.cpu_seconds > 0 and verdict.peak_mb > 0 and verdict.seconds > 0
    assert cells["explain"].source == "Because." and cells["work-1"].source == HONEST["work-1"]


def test_a_cell_that_lost_its_metadata_is_known_by_its_id():
    made = nbformat.reads(notebook(**WORK, explain="Because.").decode(), as_version=4)
    for cell in made.cells:
        cell.metadata.pop("nbgrader", None)
    found = joined(source(), nbformat.writes(made).encode()).cells
    sources = {one.metadata.get("nbgrader", {}).get("grade_id"): one.source for one in found}
    assert sources["explain"] == "Because." and sources["work-1"] == HONEST["work-1"]
    assert len(found) == len(made.cells)


def test_a_paragraph_that_was_written_elsewhere_is_said():
    made = nbformat.reads(notebook(**WORK, explain="YOUR ANSWER HERE").decode(), as_version=4)
    assert unwritten(source(), joined(source(), nbformat.writes(made).encode()), "'ann'") == []
    made.cells.append(nbformat.v4.new_markdown_cell("Because."))
    (said,) = unwritten(source(), joined(source(), nbformat.writes(made).encode()), "'ann'")
    assert said.startswith("'ann': explain is as it was given")


def test_a_picture_within_a_text_takes_no_room_from_its_words():
    picture = f"![p](data:image/png;base64,{'A' * 1_200_000})"
    made = joined(source(), notebook(**WORK, explain=f"{picture}\n\nBecause."))
    assert "Because." in made.cells[-1].source and "AAA" not in made.cells[-1].source


def test_pictures_of_a_notebook_have_a_size_in_all():
    made = released(explain="![a](attachment:a) ![b](attachment:b)")
    large = {"image/png": "A" * 6_000_000}
    made.cells[-1].attachments = {"a": large, "b": large, "c": {"image/png": "AAAA"}}
    cell = joined(source(), nbformat.writes(made).encode()).cells[-1]
    assert list(cell.attachments) == ["a", "c"] and "10 MB of them in all" in cell.source


def test_the_points_follow_from_the_notebook_by_nbgraders_rule():
    verdict, cells = graded(notebook(work_1=WORK["work_1"], explain="Because."))
    points = {name: determine_grade(cell)[0] for name, cell in cells.items()
              if is_grade(cell) and not is_solution(cell)}  # fmt: skip
    assert points == verdict.points == FIRST
    assert determine_grade(cells["explain"]) == (None, 3)
    assert "second" in str(cells["test-2"].outputs)


def test_the_release_earns_nothing_and_shows_the_author_cells():
    verdict, cells = graded(notebook())
    assert verdict.points == NOTHING and "NotImplementedError" in str(cells["work-1"].outputs)
    assert "only the author" in cells["hidden-1"].source


def test_missing_work_is_the_stub_and_never_the_solution():
    made = released(**WORK)
    made.cells = [cell for cell in made.cells if "work" not in cell.id and "exp" not in cell.id]
    verdict, cells = graded(nbformat.writes(made).encode())
    assert verdict.points == NOTHING
    assert "hand_in" not in cells["work-1"].source and "measured" not in cells["explain"].source


def test_own_cells_run_in_their_place_and_given_cells_may_be_changed():
    made = released(work_1="hand_in('first', mine)", work_2="hand_in('second', yours)")
    made.cells.insert(1, nbformat.v4.new_code_cell("mine = 42"))
    made.cells[0].source += "\nyours = 7"
    verdict, _ = graded(nbformat.writes(made).encode())
    assert verdict.points == EARNED


def test_moved_cells_run_in_the_students_order():
    made = released(work_1="hand_in('first', later)", work_2="later = 42\nhand_in('second', 7)")
    made.cells.insert(1, made.cells.pop(4))
    verdict, cells = graded(nbformat.writes(made).encode())
    assert verdict.points == EARNED and list(cells)[1] == "work-2"


def _with_test(code):
    made = json.loads(source())
    made["cells"][2]["source"] = code
    return Exercise("number", json.dumps(made).encode())


def test_stderr_in_a_test_costs_no_points():
    code = "import sys, warnings; warnings.warn('old'); print('half', file=sys.stderr)"
    verdict, _ = graded(notebook(**WORK), _with_test(code))
    assert verdict.points == EARNED


@pytest.mark.parametrize(
    "value, points", [("0.5", 0.5), ("0", 0), ("-1", 0), ("float('nan')", 0), ("7", 0)]
)
def test_a_share_of_the_points_is_kept_and_what_is_none_counts_as_failure(value, points):
    verdict, cells = graded(notebook(**WORK), _with_test(value))
    assert verdict.points["test-1"] == points == determine_grade(cells["test-1"])[0]


def test_a_test_that_an_artifact_ends_fails_and_the_next_tests_run():
    code = "import json, os\nif json.load(open('answers/first.json')) == 42: os._exit(1)"
    verdict, _ = graded(notebook(**WORK), _with_test(code))
    assert verdict.points == EARNED | {"test-1": 0} and "A test was stopped" in verdict.reason
