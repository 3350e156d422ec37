"""Releases are what the sources generate, hold no answer, and nbgrader itself agrees with us."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import runner

ROOT = Path(__file__).parents[2]


def test_there_are_five():
    assert [name[:3] for name in runner.EXERCISES] == ["ex1", "ex2", "ex3", "ex4", "ex5"]


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_the_release_is_what_the_source_generates(exercise, tmp_path):
    runner.nbgrader("generate_assignment", exercise, "--no-db", release_directory=tmp_path)
    made = tmp_path / exercise
    kept = ROOT / "notebooks" / "exercises" / exercise
    files = sorted(path.name for path in made.iterdir() if path.is_file())
    assert files == sorted(path.name for path in kept.iterdir() if path.is_file())
    for name in files:
        assert json.loads((made / name).read_text()) == json.loads((kept / name).read_text()), (
            "run `make release`, and commit what it writes"
        )


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_the_release_holds_no_answer_and_no_hidden_test(exercise):
    released = runner.notebook(Path("notebooks") / "exercises", exercise)
    text = "\n".join(cell.source for cell in released.cells)
    assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN)", text)
    source = runner.notebook("solutions", exercise)
    secret = re.findall(
        r"### BEGIN SOLUTION\n(.*?)### END",
        "\n".join(cell.source for cell in source.cells),
        re.DOTALL,
    )
    assert len(secret) >= 5  # four parts or more, and the paragraph
    for block in secret:
        longest = max((line.strip() for line in block.splitlines()), key=len)
        assert longest not in text, f"the release gives away: {longest}"


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_points_add_to_twenty_with_a_paragraph_for_people(exercise):
    cells = runner.notebook("solutions", exercise).cells
    graded = [c for c in cells if runner.graded(c).get("grade")]
    assert sum(runner.graded(c)["points"] for c in graded) == 20
    manual = [c for c in graded if runner.graded(c)["solution"]]
    assert len(manual) == 1 and manual[0].cell_type == "markdown"
    before = cells[cells.index(manual[0]) - 1].source
    assert "point" in before.split("\n", 1)[1], "a rubric says what the points are for"


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_every_part_has_three_hints_that_are_not_the_answer(exercise, capsys):
    import qlearn

    number = exercise[:3]
    text = "\n".join(c.source for c in runner.notebook("solutions", exercise).cells)
    parts = len(re.findall(r"^## Part \d", text, re.MULTILINE))
    assert 4 <= parts <= 6
    solution = "\n".join(re.findall(r"### BEGIN SOLUTION\n(.*?)### END", text, re.DOTALL))
    lines = {line.strip() for line in solution.splitlines() if len(line.strip()) > 30}
    for part in range(1, parts + 1):
        for step in (1, 2, 3):
            qlearn.hint(number, part, step)
            printed = capsys.readouterr().out
            assert len(printed) > 40
            assert not [line for line in lines if line in printed]
    with pytest.raises(ValueError, match=f"parts 1 to {parts}"):
        qlearn.hint(number, parts + 1)


def test_hints_for_what_does_not_exist():
    import qlearn

    with pytest.raises(ValueError, match="no exercise 'ex9'; there are ex1"):
        qlearn.hint("ex9", 1)
    with pytest.raises(ValueError, match="hints 1 to 3"):
        qlearn.hint("ex1", 1, 4)


def test_students_come_from_a_csv(tmp_path):
    roster = tmp_path / "students.csv"
    roster.write_text("id,first_name,last_name,email\nada,Ada,Lovelace,ada@example.org\n")
    database = f"sqlite:///{tmp_path / 'gradebook.db'}"
    runner.nbgrader("db", "student", "import", str(roster), db_url=database)
    from nbgrader.api import Gradebook

    with Gradebook(database) as gradebook:
        assert [student.last_name for student in gradebook.students] == ["Lovelace"]


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_no_test_cell_binds_a_name(exercise, tmp_path, monkeypatch):
    """In JupyterLab both run in one kernel: whether it passes or fails, it leaves no trace."""
    monkeypatch.chdir(tmp_path)  # no answers are there
    for cell in runner.notebook("solutions", exercise).cells:
        if cell.cell_type == "code" and runner.is_test(cell):
            kept = {"count": len, "checks": 1, "name": 2}
            names = dict(kept)
            with contextlib.suppress(AssertionError):
                exec(compile(cell.source, "cell", "exec"), names)
            del names["__builtins__"]
            assert names == kept, runner.graded(cell)["grade_id"]
            assert "try:" in cell.source and not re.search(r"^(import|from) ", cell.source, re.M)
