"""Releases are what the sources generate, hold no answer, and nbgrader itself agrees with us."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import runner

ROOT = Path(__file__).parents[2]
EXERCISES = sorted(path.name for path in (ROOT / "solutions").iterdir() if path.is_dir())


def nbgrader(*words, **folders):
    """Run nbgrader in the course, with some of its folders elsewhere."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = [f"--CourseDirectory.{name}={path}" for name, path in folders.items()]
    run = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words, *options],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def test_there_are_five():
    assert [name[:3] for name in EXERCISES] == ["ex1", "ex2", "ex3", "ex4", "ex5"]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_release_is_what_the_source_generates(exercise, tmp_path):
    nbgrader("generate_assignment", exercise, "--no-db", release_directory=tmp_path)
    made = tmp_path / exercise
    kept = ROOT / "notebooks" / "exercises" / exercise
    files = sorted(path.name for path in made.iterdir() if path.is_file())
    assert files == sorted(path.name for path in kept.iterdir() if path.is_file())
    for name in files:
        assert json.loads((made / name).read_text()) == json.loads((kept / name).read_text()), (
            "run `make release`, and commit what it writes"
        )


@pytest.mark.parametrize("exercise", EXERCISES)
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


@pytest.mark.parametrize("exercise", EXERCISES)
def test_points_add_to_twenty_with_a_paragraph_for_people(exercise):
    cells = runner.notebook("solutions", exercise).cells
    graded = [c for c in cells if runner.graded(c).get("grade")]
    assert sum(runner.graded(c)["points"] for c in graded) == 20
    manual = [c for c in graded if runner.graded(c)["solution"]]
    assert len(manual) == 1 and manual[0].cell_type == "markdown"
    before = cells[cells.index(manual[0]) - 1].source
    assert "point" in before.split("\n", 1)[1], "a rubric says what the points are for"


@pytest.mark.parametrize("exercise", EXERCISES)
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


def submission(exercise, work):
    """The released notebook with some work cells replaced."""
    notebook = runner.notebook(Path("notebooks") / "exercises", exercise)
    for cell in notebook.cells:
        cell.source = work.get(runner.graded(cell).get("grade_id"), cell.source)
    return notebook


@pytest.mark.parametrize("exercise", EXERCISES)
def test_nbgrader_autograde_gives_the_same_scores(exercise, tmp_path, base_models):
    """The reference, the untouched release and one that hands in only its first part."""
    reference = runner.reference(exercise)
    code = {name: source for name, source in reference.items() if name != "explain"}
    class_ = {
        "reference": code,
        "untouched": {},
        "first_part": dict([next(iter(code.items()))]),
    }
    for student, work in class_.items():
        folder = tmp_path / "submitted" / student / exercise
        folder.mkdir(parents=True)
        nbformat.write(submission(exercise, work), folder / f"{exercise}.ipynb")
    folders = {
        "submitted_directory": tmp_path / "submitted",
        "autograded_directory": tmp_path / "autograded",
        "feedback_directory": tmp_path / "feedback",
        "release_directory": tmp_path / "release",
        "db_url": f"sqlite:///{tmp_path / 'gradebook.db'}",
    }
    nbgrader("generate_assignment", exercise, **folders)
    nbgrader("autograde", exercise, **folders)
    nbgrader("generate_feedback", exercise, **folders)
    from nbgrader.api import Gradebook

    with Gradebook(folders["db_url"]) as gradebook:
        for student, work in class_.items():
            graded = gradebook.find_submission_notebook(exercise, exercise, student)
            scores = {g.name: g.auto_score for g in graded.grades if g.name != "explain"}
            ours = tmp_path / "ours" / student
            ours.mkdir(parents=True)
            assert scores == runner.grade(exercise, work, ours).points, student
            assert (tmp_path / "feedback" / student / exercise / f"{exercise}.html").exists()
        first, untouched = (
            sum(g.auto_score or 0 for g in gradebook.find_submission_notebook(
                exercise, exercise, student).grades)
            for student in ("first_part", "untouched")
        )  # fmt: skip
    assert untouched == 0 < first


def test_students_come_from_a_csv(tmp_path):
    roster = tmp_path / "students.csv"
    roster.write_text("id,first_name,last_name,email\nada,Ada,Lovelace,ada@example.org\n")
    database = f"sqlite:///{tmp_path / 'gradebook.db'}"
    nbgrader("db", "student", "import", str(roster), db_url=database)
    from nbgrader.api import Gradebook

    with Gradebook(database) as gradebook:
        assert [student.last_name for student in gradebook.students] == ["Lovelace"]
