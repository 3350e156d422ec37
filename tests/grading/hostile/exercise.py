"""An exercise in two numbers, without PyTorch, so that grading it is quick."""

import nbformat

GIVEN = """
import json, pathlib
def hand_in(name, value):
    pathlib.Path("answers").mkdir(exist_ok=True)
    pathlib.Path(f"answers/{name}.json").write_text(json.dumps(value))
"""
TEST = """
import json
with open("answers/{name}.json") as file:
    value = json.load(file)
assert value == {value}, f"{name} must be {value}, and it is {{str(value)[:200]}}"
"""
HIDDEN = "# A hidden test runs here.\n### BEGIN HIDDEN TESTS{}# {}\n### END HIDDEN TESTS"
MARK = "only the author knows this line"
POINTS = {"test-1": 1, "hidden-1": 2, "test-2": 1}
EARNED = dict(POINTS)
FIRST = {"test-1": 1, "hidden-1": 2, "test-2": 0}
NOTHING = dict.fromkeys(POINTS, 0)
HONEST = {"work-1": "hand_in('first', 42)", "work-2": "hand_in('second', 7)"}


def _cell(kind, code, name="", grade=False, solution=False, points=None):
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    cell = make(code, id=f"cell-{name or 'given'}")
    if name:
        cell.metadata["nbgrader"] = {
            "schema_version": 3, "task": False, "grade_id": name, "grade": grade,
            "solution": solution, "locked": grade and not solution,
        }  # fmt: skip
        if grade:
            cell.metadata["nbgrader"]["points"] = points
    return cell


def _solution(code):
    return f"### BEGIN SOLUTION\n{code}\n### END SOLUTION"


def _notebook(work, hidden):
    cells = [
        _cell("code", GIVEN),
        _cell("code", work["work-1"], "work-1", solution=True),
        _cell("code", TEST.format(name="first", value=42), "test-1", True, points=1),
        _cell("code", hidden, "hidden-1", True, points=2),
        _cell("code", work["work-2"], "work-2", solution=True),
        _cell("code", TEST.format(name="second", value=7), "test-2", True, points=1),
        _cell("markdown", work["explain"], "explain", True, True, points=3),
    ]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return made


def source() -> bytes:
    """The author's notebook."""
    work = {name: _solution(code) for name, code in HONEST.items()}
    hidden = HIDDEN.format(TEST.format(name="first", value=42), MARK)
    work["explain"] = _solution("Because I measured it.")
    return nbformat.writes(_notebook(work, hidden)).encode()


def released(**work):
    """The released notebook with some of its cells filled in, as an object to spoil further."""
    stub = "raise NotImplementedError"
    cells = {"work-1": stub, "work-2": stub, "explain": "Your answer here."}
    cells |= {name.replace("_", "-"): code for name, code in work.items()}
    return _notebook(cells, "# A hidden test runs here.")


def notebook(**work) -> bytes:
    """What a student hands in who fills in those cells: ``work_1``, ``work_2``, ``explain``."""
    return nbformat.writes(released(**work)).encode()
