"""What a class hands in, what is kept of it, and that nbgrader goes on with it."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import classes
import nbformat
import pytest
from nbgrader.api import Gradebook

from qlearn.grading import intake
from qlearn.grading.course import Course

NOTEBOOK = f"{classes.EXERCISE}.ipynb"
SECRET = "the instructor's secret"


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and a worker in this process: what is tested here is not the fan-out."""
    from distributed import LocalCluster

    with LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def course(tmp_path):
    return classes.make_course(tmp_path)


def _notebook(place):
    return place / NOTEBOOK


def _swap(path, make):
    """Put something else in the place of a file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def link(place):
    _swap(_notebook(place), lambda path: path.symlink_to(place.parents[2] / "secret.ipynb"))


def link_to_a_file(place):
    (place / "data.csv").symlink_to(place.parents[2] / "secret.ipynb")


def link_to_nowhere(place):
    (place / "data.csv").symlink_to("/nowhere")


def linked_folder(place):
    (place / "data").symlink_to(place.parents[2], target_is_directory=True)


def linked_submission(place):
    _swap(place, lambda path: path.symlink_to(place.parents[1] / "ann" / classes.EXERCISE))


def linked_student(place):
    _swap(place.parent, lambda path: path.symlink_to(place.parents[1] / "ann"))


def no_folder(place):
    _swap(place, lambda path: path.write_text("I am no folder"))


def pipe(place):
    _swap(_notebook(place), os.mkfifo)


def device(place):
    if os.geteuid():
        pytest.skip("only root makes devices")
    os.mknod(place / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def huge_notebook(place):
    os.truncate(_notebook(place), intake.NOTEBOOK_MB * 10**6 + 1)  # sparse: costs no disk


def huge_file(place):
    (place / "data.bin").touch()
    os.truncate(place / "data.bin", 10**12)


def much(place):
    for number in range(2):
        (place / f"{number}.bin").touch()
        os.truncate(place / f"{number}.bin", intake.TOTAL_MB * 10**6 - 1000)


def many_files(place):
    for number in range(intake.FILES):
        (place / f"{number}.txt").touch()


def deep(place):
    place.joinpath(*"a" * (intake.DEPTH + 2)).mkdir(parents=True)


def missing(place):
    _notebook(place).unlink()


def renamed(place):
    _notebook(place).rename(place / "tiny (1).ipynb")


def notebook_is_a_folder(place):
    _swap(_notebook(place), Path.mkdir)


def odd_name(place):
    os.close(os.open(os.fsencode(place) + b"/\xff\xfe.txt", os.O_CREAT))


def no_date(place):
    (place / "timestamp.txt").write_text("as soon as I could\x1b[2J")


BANK = {
    link: "is a symbolic link",
    link_to_a_file: "'data.csv' is a symbolic link",
    link_to_nowhere: "'data.csv' is a symbolic link",
    linked_folder: "'data' is a symbolic link",
    linked_submission: "it is a symbolic link",
    linked_student: "it is a symbolic link",
    no_folder: "it is a file",
    pipe: "is a pipe",
    device: "'zero' is a device",
    huge_notebook: "larger than 20 MB",
    huge_file: "larger than 100 MB",
    much: "larger than 100 MB together",
    many_files: "more than 500 files and folders",
    deep: "nested deeper",
    missing: "is missing; no notebook is there",
    renamed: "is called 'tiny (1).ipynb'",
    notebook_is_a_folder: "is missing",
    odd_name: "is not UTF-8",
    no_date: "holds no date: 'as soon as I could\\x1b[2J'",
}


def test_a_class_with_every_bad_submission_is_graded_whole(course, cluster, capsys):
    """Each has no points and a reason; honest students beside them have theirs."""
    (course / "classroom" / "secret.ipynb").write_text(SECRET)
    for student in ("ann", "zoe"):
        classes.hand_in(course, student, "answer = 42")
    for make in BANK:
        make(classes.hand_in(course, make.__name__, "answer = 42"))
    assert classes.coordinate(course, scheduler=cluster) == 0
    said = capsys.readouterr().out
    found = classes.grades(course)
    for make, words in BANK.items():
        line = next(line for line in said.splitlines() if f" {make.__name__} " in line)
        assert line.startswith("stopped") and words in line, line
        assert "\x1b" not in line
        assert found[make.__name__, "test"] == found[make.__name__, "test-hidden"] == (0, None, 0)
        page = _page(course, make.__name__)
        assert "Grading stopped" in page and SECRET not in page
    for student in ("ann", "zoe"):
        assert found[student, "test"] == (2, None, False)
        assert found[student, "test-hidden"] == (1, None, False)
    autograded = course / "classroom" / "autograded"
    kept = [path for path in autograded.rglob("*") if path.is_file() or path.is_symlink()]
    assert {path.name for path in kept} == {NOTEBOOK, ".qlearn-grade.lock"}
    assert not any(path.is_symlink() or SECRET in path.read_text() for path in kept)


def test_a_student_whose_name_is_not_utf8_does_not_stop_the_class(course, cluster, capsys):
    classes.hand_in(course, "ann", "answer = 42")
    odd = os.fsencode(classes.submitted(course, "ann").parent.parent) + b"/\xff"
    shutil.copytree(os.fsencode(classes.submitted(course, "ann").parent), odd)
    assert classes.coordinate(course, scheduler=cluster) == 1
    assert "failed    '\\udcff': the folder's name is not UTF-8" in capsys.readouterr().out
    assert classes.grades(course)["ann", "test"] == (2, None, False)


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


def _page(course, student):
    name = f"{classes.EXERCISE}.html"
    return (course / "classroom" / "feedback" / student / classes.EXERCISE / name).read_text()


def test_feedback_shows_hidden_tests_only_if_the_instructor_says_so(course, cluster):
    classes.hand_in(course, "odd", "answer = 43")
    assert classes.coordinate(course, scheduler=cluster) == 0
    hidden = _page(course, "odd")
    assert "answer_is_even" not in hidden and "HIDDEN" not in hidden
    assert "AssertionError" in hidden and "Too small" in hidden
    assert classes.coordinate(course, scheduler=cluster, hidden_shown=True) == 0
    assert "answer_is_even" in _page(course, "odd")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert _page(course, "odd") == hidden


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
    missing(classes.hand_in(course, "ben", "answer = 42"))
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
    assert "Well said." not in _page(course, "ann")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert "Well said." in _page(course, "ann"), "the same command renews the feedback"
    assert classes.coordinate(course, scheduler=cluster, force=True) == 0
    found = classes.grades(course)
    assert found["ann", "explain"] == (None, 3, True)
    assert found["ann", "test"] == (2, 0.5, True)  # to be looked at again, as nbgrader has it
    assert found["ann", "explain", "comment"] == "Well said."
    assert "Well said." in _page(course, "ann")


def test_only_the_named_students_are_graded(course, cluster, capsys):
    for student in ("ann", "ben"):
        classes.hand_in(course, student, "answer = 42")
    assert classes.coordinate(course, scheduler=cluster, students=["ben"]) == 0
    assert {student for student, *_ in classes.grades(course)} == {"ben"}
    assert classes.coordinate(course, scheduler=cluster, students=["eve"]) == 1
    assert "Nothing was handed in by eve." in capsys.readouterr().err


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


def _run(course, *command):
    """A command in the course's folder; its output."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        command, cwd=course, env={**os.environ, "PATH": programs}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def _hand_in_all(course):
    """The same exercise with an artifact, and a class whose scores are 3, 1, 2 and 0."""
    classes.with_artifact(course)
    _run(course, "nbgrader", "generate_assignment", classes.EXERCISE)
    released = course / "notebooks" / "exercises" / classes.EXERCISE / NOTEBOOK
    for student, number in {"right": 42, "small": 2, "odd": 43, "untouched": None}.items():
        place = classes.submitted(course, student)
        place.mkdir(parents=True)
        notebook = nbformat.read(released, as_version=4)
        if number is not None:
            notebook.cells[0].source = classes.WRITE % number
            notebook.cells[3].source = "Because."
        nbformat.write(notebook, place / NOTEBOOK)
        (place / "timestamp.txt").write_text("2026-11-02 10:00:00 UTC")


def test_grades_are_nbgraders_own_and_nbgrader_goes_on_with_them(tmp_path, bubblewrap):
    """End to end, with the sandbox: the same rows, notebooks, export and formgrader's views."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    course, theirs = (
        classes.make_course(tmp_path / name, gradebook=False) for name in ("ours", "theirs")
    )
    for each in (course, theirs):
        _hand_in_all(each)
    _run(theirs, "nbgrader", "autograde", classes.EXERCISE)
    _run(theirs, "nbgrader", "generate_feedback", classes.EXERCISE)
    said = _run(course, "qlearn", "grade", classes.EXERCISE, "--workers", "1", "--timeout", "100")
    assert "4 graded." in said
    found = classes.grades(course)
    assert found == classes.grades(theirs)
    scores = [found[name, "test"][0] + found[name, "test-hidden"][0]
              for name in ("right", "small", "odd", "untouched")]  # fmt: skip
    assert scores == [3, 1, 2, 0]
    assert found["untouched", "explain"] == (0, None, False), "nothing to read"
    for student in ("right", "small", "odd", "untouched"):
        ours, nbgraders = (_graded(each, student) for each in (course, theirs))
        assert ours == nbgraders, student
    for step in ("autograded", "feedback"):
        assert _files(course, step) == _files(theirs, step)
    assert _views(course) == _views(theirs)
    for each in (course, theirs):
        _run(each, "nbgrader", "export")
    assert (course / "grades.csv").read_text() == (theirs / "grades.csv").read_text()
    _run(course, "nbgrader", "generate_feedback", classes.EXERCISE, "--force")


def _graded(course, student):
    """Cells of a graded notebook, and which of them failed."""
    place = course / "classroom" / "autograded" / student / classes.EXERCISE / NOTEBOOK
    return [
        (cell.cell_type, cell.source, cell.metadata.get("nbgrader"),
         [output.output_type for output in cell.get("outputs", [])])
        for cell in nbformat.read(place, as_version=4).cells
    ]  # fmt: skip


def _files(course, step):
    root = course / "classroom" / step
    return {path.relative_to(root) for path in root.glob("*/*/*") if path.is_file()}


def _views(course):
    """What formgrader lists."""
    from nbgrader.apps.api import NbGraderAPI

    with classes.contextlib.chdir(course):
        here = Course.here()
    api = NbGraderAPI(here.folders, parent=here.app)
    random = ("id", "submissions_id", "last_name", "first_name", "index")
    views = [
        *api.get_submissions(classes.EXERCISE),
        *api.get_notebook_submissions(classes.EXERCISE, classes.EXERCISE),
        *api.get_students(),
        api.get_assignment(classes.EXERCISE),
    ]
    facts = [{key: value for key, value in view.items() if key not in random} for view in views]
    return sorted(facts, key=repr)  # nbgrader sorts by random ids


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
