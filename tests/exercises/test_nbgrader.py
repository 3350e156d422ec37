"""nbgrader's own autograde and feedback, on submissions whose scores we know."""

from pathlib import Path

import nbformat
import pytest
import runner

EXERCISES = sorted(path.name for path in (runner.ROOT / "solutions").iterdir() if path.is_dir())


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
    runner.nbgrader("generate_assignment", exercise, **folders)
    runner.nbgrader("autograde", exercise, **folders)
    runner.nbgrader("generate_feedback", exercise, **folders)
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
