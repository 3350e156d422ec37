"""What is kept of what a class hands in, when it is graded again, and what stops grading."""

import base64
import hashlib
import html
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bs4
import classes
import nbformat
import pytest
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbgrader.api import Gradebook

from qlearn.grading import classroom, feedback, run
from qlearn.grading.markdown import Texts

NOTEBOOK = f"{classes.EXERCISE}.ipynb"


@pytest.fixture(scope="module")
def cluster():
    yield from classes.in_process()


@pytest.fixture
def course(tmp_path):
    return classes.make_course(tmp_path)


def test_files_beside_the_notebook_travel_and_the_sources_take_the_place_of_the_students(
    course, cluster
):
    place = classes.hand_in(course, "ann", "answer = 42")
    (place / "data").mkdir()
    (place / "data" / "mine.txt").write_text("mine")
    (place / "given.txt").write_text("forged")
    (place / "answers").mkdir()
    (place / "answers" / "test.json").symlink_to("/etc/passwd")  # never read: answers/ is made anew
    (course / "solutions" / classes.EXERCISE / "given.txt").write_text("given")
    assert classes.coordinate(course, scheduler=cluster) == 0
    graded = course / "classroom" / "autograded" / "ann" / classes.EXERCISE
    texts = {p.relative_to(graded).as_posix(): p.read_text() for p in graded.rglob("*.txt")}
    assert texts == {"data/mine.txt": "mine", "given.txt": "given"}
    assert not (graded / "answers").exists()


def test_feedback_shows_hidden_tests_only_if_the_instructor_says_so(course, cluster):
    classes.hand_in(course, "odd", "answer = 43")
    assert classes.coordinate(course, scheduler=cluster) == 0
    hidden = classes.page(course, "odd")
    assert "answer_is_even" not in hidden and "HIDDEN" not in hidden
    assert "AssertionError" in hidden and "Too small" in hidden
    assert classes.coordinate(course, scheduler=cluster, hidden_shown=True) == 0
    assert "answer_is_even" in classes.page(course, "odd")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert classes.page(course, "odd") == hidden


def test_what_is_unchanged_is_not_graded_twice(course, cluster, capsys):
    counter = course / "count"
    count = f"open({str(counter)!r}, 'a').write('.')\nanswer = 42"

    def runs(**options):
        assert classes.coordinate(course, scheduler=cluster, **options) == 0
        return len(counter.read_text())

    classes.hand_in(course, "ann", count)
    assert runs() == 1
    assert runs() == 1 and "1 unchanged." in capsys.readouterr().out
    assert runs(force=True) == 2
    classes.hand_in(course, "ann", count + "  # better")
    assert runs() == 3
    graded = course / "classroom" / "autograded" / "ann" / classes.EXERCISE / NOTEBOOK
    graded.chmod(0o644)
    graded.write_text(graded.read_text() + "\n")
    assert runs() == 4  # it is not what the gradebook's grades come from
    page = course / "classroom" / "feedback" / "ann" / classes.EXERCISE / "tiny.html"
    page.unlink()
    assert runs() == 4 and page.exists()  # made anew, without grading
    source = classes.source()
    source.cells[1].source = "assert answer > 41, 'Too small.'"
    nbformat.write(source, course / "solutions" / classes.EXERCISE / NOTEBOOK)
    assert runs() == 5
    assert runs(limits="more") == 5  # nothing was stopped that more could help


def test_new_limits_grade_again_what_was_stopped(course, cluster, capsys):
    (classes.hand_in(course, "ben", "answer = 42") / NOTEBOOK).unlink()
    for limits, outcome in (("few", "1 stopped."), ("few", "1 unchanged."), ("more", "1 stopped.")):
        assert classes.coordinate(course, scheduler=cluster, limits=limits) == 0
        assert outcome in capsys.readouterr().out


def test_scores_given_by_hand_are_kept_when_a_submission_is_graded_again(course, cluster):
    classes.hand_in(course, "ann", "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        for part, points in (("explain", 3), ("test", 0.5)):
            grade = gradebook.find_grade(part, classes.EXERCISE, classes.EXERCISE, "ann")
            grade.manual_score, grade.needs_manual_grade = points, False
        note = gradebook.find_comment("explain", classes.EXERCISE, classes.EXERCISE, "ann")
        note.manual_comment = "Well said."
        gradebook.db.commit()
    assert "Well said." not in classes.page(course, "ann")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert "Well said." in classes.page(course, "ann"), "the same command renews the feedback"
    assert classes.coordinate(course, scheduler=cluster, force=True) == 0
    found = classes.grades(course)
    assert found["ann", "explain"] == (None, 3, True)
    assert found["ann", "test"] == (2, 0.5, True)  # to be looked at again, as nbgrader has it
    assert found["ann", "explain", "comment"] == "Well said."
    assert "Well said." in classes.page(course, "ann")


def test_only_the_named_students_are_graded(course, cluster, capsys):
    for student in ("ann", "ben"):
        classes.hand_in(course, student, "answer = 42")
    assert classes.coordinate(course, scheduler=cluster, students=["ben", "ben"]) == 0
    assert capsys.readouterr().out.count(" ben ") == 1
    assert {student for student, *_ in classes.grades(course)} == {"ben"}
    assert classes.coordinate(course, scheduler=cluster, students=["eve"]) == 1
    assert "Nothing was handed in by eve." in capsys.readouterr().err


def test_a_class_that_handed_in_nothing_gets_a_sentence(course, cluster, capsys):
    assert classes.coordinate(course, scheduler=cluster) == 1
    said = capsys.readouterr().err
    assert "Nothing was handed in for tiny" in said and "submitted/STUDENT/tiny" in said


def test_what_is_in_no_students_folder_is_said(course, cluster, capsys):
    place = classes.hand_in(course, "ann", "answer = 42")
    submitted = place.parents[1]
    for left in ("ben/tiny (1)", "group/cem/tiny", "dora", "ann/tiny.old", "eve"):
        shutil.copytree(place, submitted / left)
    (submitted / "eve" / "tiny.ipynb").rename(submitted / "eve" / "TINY.IPYNB")
    (submitted / "linked").symlink_to(submitted)
    (submitted / "else" / "other").mkdir(parents=True)
    (submitted / "else" / "other" / "other.ipynb").write_text("{}")
    assert classes.coordinate(course, scheduler=cluster) == 0
    said = capsys.readouterr().err
    assert [line.split("'")[1] for line in said.splitlines() if line.startswith("Left out")] == [
        "ann/tiny.old", "ben/tiny (1)", "dora", "eve", "group/cem/tiny",
    ]  # fmt: skip


def test_a_paragraph_that_nobody_has_read_has_no_score_on_the_page(course, cluster):
    classes.hand_in(course, "ann", "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    page = classes.page(course, "ann")
    assert page.count("not read yet, of 3.0") == 2 and "Score: 2.0 / 2.0" in page
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("explain", classes.EXERCISE, classes.EXERCISE, "ann")
        grade.manual_score, grade.needs_manual_grade = 0, False
        gradebook.db.commit()
    assert classes.coordinate(course, scheduler=cluster) == 0
    page = classes.page(course, "ann")
    assert "not read yet" not in page and "Score: 0.0 / 3.0" in page


def test_a_page_runs_the_scripts_of_the_template_and_no_other(course, cluster):
    classes.hand_in(course, "ann", "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    page = bs4.BeautifulSoup(classes.page(course, "ann"), "html.parser")
    policy = page.head.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert "unsafe" not in rules["script-src"]
    for script in page.find_all("script"):
        if script.get("src"):
            assert script["src"].startswith(rules["script-src"].split()[0])
        elif script.string:
            digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in rules["script-src"]


def test_each_lost_point_has_its_sentence_at_the_top_of_the_page(course, cluster):
    classes.hand_in(course, "low", "answer = 2")
    classes.hand_in(course, "right", "answer = 42")
    classes.hand_in(course, "odd", "answer = 43")
    assert classes.coordinate(course, scheduler=cluster) == 0
    lost = {}
    for student in ("low", "right", "odd"):
        page = bs4.BeautifulSoup(classes.page(course, student), "html.parser")
        first = page.find(id="notebook-container").find(class_="cell")
        lost[student] = first.pre.text if "Where points were lost" in first.text else ""
        assert not first.pre or all(page.find(attrs={"name": link["href"][1:]})
                                    for link in first.pre.find_all("a"))  # fmt: skip
    assert lost == {
        "low": "test, 0 of 2: Too small.",
        "right": "",
        "odd": "test-hidden, 0 of 1: AssertionError",
    }


LOGGED = [
    "[W1127 10:00:00.123456789 qlinear.cpp:12] Warning: slow (function f)",
    "[cpuinfo_utils.cpp:62] Reading file",
    "I 00:00:00.001 executorch:threadpool.cpp:71] Using 2 threads",
    "\x1b[1;31m2026-11-27 10:00:00.8 [E:onnxruntime:, executor.cc:677 Run] Non-zero status\n\x1b[m",
    "\x1b[0;93m2026-11-27 10:00:00.8 [W:onnxruntime:Default, graph.cc:6 Clean] Removing 'w'\x1b[m",
    "2026-11-27 10:00:00.8 [E:onnxruntime:, executor.cc:677 operator()] Non-zero status",
]


@pytest.mark.parametrize("line", LOGGED)
def test_log_lines_of_cpp_are_not_shown_and_cells_are_numbered_on(line):
    step, resources = feedback.Tidy(), {}
    stream = nbformat.v4.new_output("stream", text=f"before\n{line}\nafter [a.cpp:1]\n")
    alone = nbformat.v4.new_output("stream", text=line)
    for number, outputs in enumerate(([stream], [alone]), 1):
        cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=outputs)
        cell, resources = step.preprocess_cell(cell, resources, 0)
        assert cell.execution_count == number
        assert [one.text for one in cell.outputs] == ["before\nafter [a.cpp:1]\n"][number - 1 :]


@pytest.mark.parametrize("kind", ["stream", "display_data", "execute_result"])
def test_what_a_model_prints_in_a_hidden_test_is_on_no_page(kind):
    cell = nbformat.v4.new_code_cell("### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS")
    cell.metadata["nbgrader"] = {"grade": True, "solution": False, "grade_id": "a", "points": 1,
                                 "schema_version": 3, "locked": True}  # fmt: skip
    shown = {"text": "inputs"} if kind == "stream" else {"data": {"text/plain": "inputs"}}
    error = nbformat.v4.new_output("error", ename="AssertionError", evalue="Too small.")
    cell.outputs = [nbformat.v4.new_output(kind, **shown), error]
    cell, _ = feedback.HideHiddenTests().preprocess_cell(cell, {}, 0)
    assert [one.output_type for one in cell.outputs] == ["error"]
    assert cell.outputs[0].traceback == ["AssertionError: Too small."]


@pytest.mark.parametrize(
    "words",
    ["![x](http://127.0.0.1:8888/api)", "![x][a]\n\n[a]: http://localhost/", "![](//nas/x.png)",
     "[![x](file:///etc/passwd)](#a)"],
)  # fmt: skip
def test_a_picture_from_somewhere_else_is_shown_as_text(words):
    made = Texts().harmless(words, [])
    assert "shown as they were written" in made
    assert "<img" not in MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(made)


@pytest.mark.parametrize("backslash", ["\\", "&#92;", "&#092;", "&#x5C;", "&bsol;"])
def test_a_formula_is_no_link(backslash):
    made = Texts().harmless(f"&#36;{backslash}href{{javascript:alert(1)}}{{x}}&#36;", [])
    page = MarkdownWithMath(renderer=IPythonRenderer(escape=False)).render(made)
    assert "\\href" not in html.unescape(page) and "href{" in page


def test_what_dask_logs_and_warns_of_does_not_reach_the_instructor(course, cluster, capfd, recwarn):
    place = classes.hand_in(course, "ann", "import logging\nanswer = 42")
    (place / "data.bin").write_bytes(bytes(12 * 10**6))  # dask warns from 10 MB on
    log = "logging.getLogger('distributed.client').warning('gone')"
    classes.hand_in(course, "ben", f"import logging; {log}\nanswer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert not [one for one in recwarn if "graph" in str(one.message)]
    said = capfd.readouterr()
    assert "gone" not in said.out + said.err and "2 graded." in said.out


def test_two_cannot_grade_at_once(course, cluster, capsys):
    import fcntl

    classes.hand_in(course, "ann", "answer = 42")
    (course / "classroom" / "autograded").mkdir()
    with open(course / "classroom" / "autograded" / ".qlearn-grade.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert classes.coordinate(course, scheduler=cluster) == 1
    assert "Another qlearn grade is at work" in capsys.readouterr().err


def test_mistakes_get_a_sentence(course, tmp_path, capsys, monkeypatch):
    from qlearn.grading.run import grade

    monkeypatch.chdir(course)
    assert grade("tyni", classes.stand_in, "none") == 1
    assert "There is no exercise 'tyni'" in capsys.readouterr().err
    monkeypatch.chdir(course / "solutions")
    assert grade("tiny", classes.stand_in, "none") == 1
    assert "No nbgrader_config.py here" in capsys.readouterr().err


def test_an_exercise_whose_cells_changed_after_grading_is_refused(course, cluster, capsys):
    classes.hand_in(course, "ann", "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    source = classes.source()
    source.cells[1].metadata.nbgrader["grade_id"] = "another"
    nbformat.write(source, course / "solutions" / classes.EXERCISE / NOTEBOOK)
    before = classes.grades(course)
    assert classes.coordinate(course, scheduler=cluster) == 1
    assert "Cannot add or remove cells" in capsys.readouterr().err
    assert classes.grades(course) == before


def test_without_bubblewrap_nothing_runs_and_the_remedy_is_named(tmp_path):
    course = classes.make_course(tmp_path, gradebook=False)
    classes.hand_in(course, "ann", "answer = 42")
    run = subprocess.run(
        [Path(sys.executable).parent / "qlearn", "grade", classes.EXERCISE],
        cwd=course,
        env={**os.environ, "PATH": str(course)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "apt-get install bubblewrap" in run.stderr and "--no-sandbox" in run.stderr
    assert not (course / "classroom" / "gradebook.db").exists()


def test_what_one_submission_makes_a_library_raise_fails_it_alone(
    course, cluster, capsys, monkeypatch
):
    def raising(self, record, notebook, timestamp):
        if record["student"] == "ben":
            raise KeyError("odd")
        return saved(self, record, notebook, timestamp)

    saved = classroom.ClassGradebook.save
    monkeypatch.setattr(classroom.ClassGradebook, "save", raising)
    for student in ("ann", "ben", "cem"):
        classes.hand_in(course, student, "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 1
    assert "failed    ben: KeyError: 'odd'" in capsys.readouterr().out
    assert {student for student, *_ in classes.grades(course)} == {"ann", "cem"}


@pytest.mark.parametrize("words", ["![x](attachment:none)", "\\begin{a}" * 10**5])
def test_a_page_that_cannot_be_shown_says_why_and_the_grade_is_kept(
    course, cluster, monkeypatch, words
):
    """As they come here, without what `joined` makes of them."""
    monkeypatch.setattr(feedback, "SHOWING_SECONDS", 1)
    classes.hand_in(course, "ann", "answer = 42", words=words)
    assert classes.coordinate(course, scheduler=cluster) == 0
    page = classes.page(course, "ann")
    assert "cannot be shown here (" in page
    assert "missing attachment" in page or "longer than 1 s" in page
    assert classes.grades(course)["ann", "test"] == (2, None, False)


def test_a_damaged_gradebook_gets_a_sentence(course, cluster, capsys):
    classes.hand_in(course, "ann", "answer = 42")
    (course / "classroom" / "gradebook.db").write_bytes(b"no database at all, " * 1000)
    assert classes.coordinate(course, scheduler=cluster) == 1
    assert "The gradebook cannot be read (file is not a database)" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_a_source_that_is_no_notebook_gets_a_sentence(course, cluster, capsys, content):
    classes.hand_in(course, "ann", "answer = 42")
    (course / "solutions" / classes.EXERCISE / NOTEBOOK).write_bytes(content)
    assert classes.coordinate(course, scheduler=cluster) == 1
    assert "tiny.ipynb is no notebook (" in capsys.readouterr().err


def test_there_are_as_many_workers_as_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(run.os, "sched_getaffinity", lambda pid: {3, 5, 7})
    assert run._cores() == 3
