"""How a class did: the table, the summary, and what they say when there is nothing."""

import base64
from types import SimpleNamespace

import bs4
import classes
import pandas as pd
import pytest
from distributed import LocalCluster
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from qlearn.cli import app
from qlearn.grading import class_page
from qlearn.grading.course import Course
from qlearn.grading.gradebook import ClassGradebook
from qlearn.grading.report import by_part, report, table, totals

ANSWERS = {"ann": 42, "ben": 43, "cem": 2}  # 3, 2 and 1 points of 3 that tests give


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Three students, of whom one's paragraph is read, and one was late."""
    course = classes.make_course(tmp_path_factory.mktemp("course"))
    for student, answer in ANSWERS.items():
        classes.hand_in(course, student, f"answer = {answer}")
    with LocalCluster(1, processes=False, dashboard_address=None) as cluster:
        assert classes.coordinate(course, scheduler=cluster.scheduler_address) == 0
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("explain", "tiny", "tiny", "ann")
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        gradebook.find_submission_notebook("tiny", "tiny", "ben").late_submission_penalty = 0.5
        gradebook.db.commit()
    return course


@pytest.fixture
def there(course, monkeypatch):
    monkeypatch.chdir(course)


def test_the_table_has_a_row_per_student_exercise_and_part(there):
    parts = table(Course.here(), "tiny")
    assert len(parts) == 3 * len(ANSWERS)
    scores = parts.set_index(["student", "part"])["score"].to_dict()
    assert scores["ann", "explain"] == 2.5
    assert scores["ben", "test"] == 2 and scores["ben", "test-hidden"] == 0
    assert scores["cem", "test"] == 0 and scores["cem", "test-hidden"] == 1


def test_totals_take_the_late_penalty_off_once(there):
    found = totals(table(Course.here())).set_index("student")
    assert found["score"].to_dict() == {"ann": 5.5, "ben": 1.5, "cem": 1}
    assert (found["most"] == 6).all()
    assert found["to_read"].to_dict() == {"ann": 0, "ben": 1, "cem": 1}


def test_parts_most_often_missed_do_not_count_what_nobody_has_read(there):
    found = by_part(table(Course.here())).set_index("part")
    assert found["students"].to_dict() == {"test": 1, "test-hidden": 1, "explain": 1}
    assert found["lost"].to_dict() == pytest.approx(
        {"test": 1 / 3, "test-hidden": 1 / 3, "explain": 0.5 / 3}
    )


def test_the_summary_shows_the_histogram_and_the_csv_has_every_part(there, tmp_path, capsys):
    report("tiny", tmp_path / "grades.csv")
    said = capsys.readouterr().out
    assert "tiny: 3 students, 6 points" in said
    assert "mean 2.7, median 1.5, from 1 to 5.5; 2 parts still to be read" in said
    assert "of what is graded or read so far: mean 67%" in said  # 8 of 6 + 3 + 3 points
    bars = {line.split("│")[0].strip(): line.split("│")[1] for line in said.splitlines()[4:14]}
    assert [len(bar.split()) for bar in bars.values()] == [0, 2, 2, 0, 0, 0, 0, 0, 0, 2]
    written = pd.read_csv(tmp_path / "grades.csv")
    pd.testing.assert_frame_equal(written, table(Course.here(), "tiny"))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=cmd|' /C calc'!A0",
                                  "＝1+1", "\x00=1", " =1+1"])  # fmt: skip
def test_no_cell_of_the_csv_is_a_formula(text, tmp_path, monkeypatch):
    rows = pd.DataFrame({"student": [text], "exercise": "tiny", "part": "a", "score": -1.5,
                         "most": 2.0, "to_read": False, "late_penalty": 0.0})  # fmt: skip
    monkeypatch.setattr("qlearn.grading.report.table", lambda course, exercise: rows)
    monkeypatch.setattr(Course, "here", lambda: SimpleNamespace(has_gradebook=True))
    report(None, tmp_path / "grades.csv")
    written = pd.read_csv(tmp_path / "grades.csv")
    assert written["student"][0].startswith("'") and written["student"][0].isprintable()
    assert written["score"][0] == -1.5
    assert all(line.startswith('"') for line in (tmp_path / "grades.csv").read_text().splitlines())


def test_without_grades_there_is_a_sentence_and_no_new_gradebook(tmp_path, monkeypatch):
    monkeypatch.chdir(classes.make_course(tmp_path, gradebook=False))
    with pytest.raises(LookupError, match="Nothing of this course is graded yet"):
        report(None, None)
    assert not (tmp_path / "classroom" / "gradebook.db").exists()


def test_an_exercise_that_nobody_handed_in_gets_a_sentence(there):
    with pytest.raises(LookupError, match="Nothing of ex9 is graded yet"):
        report("ex9", None)


def test_the_page_of_the_class_has_its_histogram_in_words_sentences_parts_and_time(there, tmp_path):
    class_page.write("tiny", tmp_path / "class.html")
    page = bs4.BeautifulSoup((tmp_path / "class.html").read_text(), "html.parser")
    assert page.img["alt"] == (
        "Histogram of points, in students: 1 from 0.6 to 1.2, 1 from 1.2 to 1.8, 1 from 5.4 to 6."
    )
    assert base64.b64decode(page.img["src"].partition(",")[2]).startswith(b"\x89PNG")
    text = page.get_text(" ", strip=True)
    assert "3 students, 6 points; mean 2.7, median 1.5. Parts of 2 students are not read" in text
    assert "Grading took 0.0 minutes of work, 0 s for the median submission" in text
    parts, sentences = (
        [[cell.text for cell in row.find_all("td")] for row in one.tbody.find_all("tr")]
        for one in page.find_all("table")
    )
    assert parts == [["test", "1", "33%"], ["test-hidden", "1", "33%"], ["explain", "1", "17%"]]
    assert sentences == [["1", "test-hidden", "AssertionError"], ["1", "test", "Too small."]]
    assert "None was found." in text


def test_what_learners_wrote_is_text_on_the_page():
    made = class_page._listed([{"for example": "<script>alert(1)</script>"}], "Nothing.")
    assert "<script" not in made and "&lt;script&gt;" in made


def test_a_gradebook_of_an_earlier_version_gets_the_new_column(tmp_path, monkeypatch):
    monkeypatch.chdir(classes.make_course(tmp_path))
    course = Course.here()
    with ClassGradebook(course).engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE qlearn_verdict DROP COLUMN seconds")
    for _ in range(2):
        assert ClassGradebook(course).records("tiny") == {}
    with ClassGradebook(course).engine.begin() as connection:
        connection.exec_driver_sql("SELECT seconds FROM qlearn_verdict")


def test_the_options_are_about_one_exercise(there, tmp_path):
    said = CliRunner().invoke(app, ["grades", "--similar"])
    assert said.exit_code == 1 and "Say which exercise" in said.output
    said = CliRunner().invoke(app, ["grades", "tiny", "--similar", "--page", str(tmp_path / "a")])
    assert said.exit_code == 0 and "None was found." in said.output and (tmp_path / "a").exists()
