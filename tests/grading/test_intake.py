"""What a class hands in that is none: each ends in a verdict in words, and the class goes on."""

import os
import shutil
import stat
from pathlib import Path

import classes
import pytest

from qlearn.grading import intake, timestamps

NOTEBOOK = f"{classes.EXERCISE}.ipynb"
SECRET = "the instructor's secret"


@pytest.fixture(scope="module")
def cluster():
    yield from classes.in_process()


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


def many_folders(place):
    for number in range(20_000):
        (place / f"{number}").mkdir()


def missing(place):
    _notebook(place).unlink()


def renamed(place):
    _notebook(place).rename(place / "tiny (1).ipynb")
    (place / "tiny (2).ipynb").write_text("{}")


def notebook_is_a_folder(place):
    _swap(_notebook(place), Path.mkdir)


def odd_name(place):
    os.close(os.open(os.fsencode(place) + b"/\xff\xfe.txt", os.O_CREAT))


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
    many_folders: "more than 500 files and folders",
    deep: "nested deeper",
    missing: "is missing; no notebook is there",
    renamed: "is called 'tiny (1).ipynb'",
    notebook_is_a_folder: "is missing",
    odd_name: "is not UTF-8",
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
        page = classes.page(course, make.__name__)
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


@pytest.mark.parametrize("when", ["0001-01-01 00:00:00 UTC", "9999-12-31 23:59:59 UTC"])
def test_a_forged_date_is_what_nbgrader_would_take_and_harms_nobody(course, cluster, when):
    """Whoever collects writes timestamp.txt, or nbgrader's exchange; nobody else can know."""
    for student in ("ann", "eve"):
        place = classes.hand_in(course, student, "answer = 42")
    (place / "timestamp.txt").write_text(when)
    assert classes.coordinate(course, scheduler=cluster) == 0
    found = classes.grades(course)
    assert found["eve", "when"] == when.removesuffix(" UTC")
    assert found["ann", "test"] == found["eve", "test"] == (2, None, False)


def test_odd_names_of_students_are_names(course, cluster, capsys):
    names = ["a\nb", "a,b", "\u202egnp.exe", " ", "a'; DROP TABLE grade; --", "[bold]x", "x" * 250]
    for name in names:
        classes.hand_in(course, name, "answer = 42")
    assert classes.coordinate(course, scheduler=cluster) == 0
    said = capsys.readouterr().out
    assert "'a\\nb'" in said and "'\\u202egnp.exe'" in said and "\u202e" not in said
    found = classes.grades(course)
    assert all(found[name, "test"] == (2, None, False) for name in names)


def test_the_only_notebook_under_another_name_is_taken_and_that_is_said(course, cluster, capsys):
    place = classes.hand_in(course, "ann", "answer = 42")
    _notebook(place).rename(place / "tiny\x1b (1).ipynb")
    (place / "data").mkdir()
    (place / "data" / "mine.txt").write_text("mine")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert r"'ann': 'tiny\x1b (1).ipynb' was taken for tiny.ipynb." in capsys.readouterr().err
    assert classes.grades(course)["ann", "test"] == (2, None, False)


@pytest.mark.parametrize(
    "name", ["tiny.ipynb.txt", "tiny.ipynb.json", "tiny.IPYNB", "sub/tiny.ipynb", "a/b/other.ipynb"]
)
def test_the_only_notebook_is_taken_whatever_it_ends_in_and_wherever_it_is(name, tmp_path):
    path = tmp_path / "ann" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    for beside in ("data.csv", "timestamp.txt"):
        (path.parent / beside).write_text("mine")
    (tmp_path / "ann" / "timestamp.txt").write_text("2026")
    files, taken = intake.read(tmp_path, Path("ann"), "tiny.ipynb")
    assert files == {"tiny.ipynb": b"{}", "data.csv": b"mine", "timestamp.txt": b"2026"}
    assert taken == name


def test_what_programs_keep_in_hidden_folders_is_not_handed_in(tmp_path):
    place = tmp_path / "ann"
    for folder in (".venv/bin", ".git", "__MACOSX"):
        (place / folder).mkdir(parents=True)
    (place / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (place / ".link").symlink_to("/etc")
    for number in range(intake.FILES + 1):
        (place / ".git" / f"{number}").touch()
    (place / "tiny.ipynb").write_text("{}")
    assert intake.read(tmp_path, Path("ann"), "tiny.ipynb") == ({"tiny.ipynb": b"{}"}, "")


WHEN = "2026-11-02 10:00:00"


@pytest.mark.parametrize(
    ("content", "when", "words"),
    [
        (WHEN.encode("utf-8-sig"), WHEN, ""),
        (f"{WHEN} UTC\r\n".encode("utf-16"), WHEN, ""),
        (b"2026-11-02T10:00:00+0100", "2026-11-02 09:00:00", ""),
        (b"2026-11-02 10:00:00 Europe/Berlin", "2026-11-02 09:00:00", ""),
        (b"13/11/2026 10:00", "2026-11-13 10:00:00", ""),
        (b"02/11/2026 10:00", "", "may be read in two ways: '02/11/2026 10:00'"),
        (b"2026-11-02 10:00:00 XYZT", "", "a zone that is not known"),
        (b"2026-11-02 10:00:00 +0100", "2026-11-02 09:00:00", ""),
        (b"2026-11-02 10:00:00 +01:00", "2026-11-02 09:00:00", ""),
        (b"2026-11-02 10:00:00 IST", "", "a zone that is not known"),
        (b"2026-11-02 10:00:00 UTC+3", "", "a zone that is not known"),
        (b"2026-11-02 10:00:00 Europe/Nowhere", "", "a zone that is not known"),
        (b"2026-11-02 10:00:00 localtime", "", "a zone that is not known"),
        (b"2026-11-02 10:00:00 utc", WHEN, ""),
        (b"2026-11-02 10:00:00 Gmt", WHEN, ""),
        (b"2026-11-02 10:00 AM +0100", "2026-11-02 09:00:00", ""),
        (b"2026-11-02 10:00:00 +0100 (CET)", "2026-11-02 09:00:00", ""),
        (b"2026-11-02T10:00:00.000-05:00", "2026-11-02 15:00:00", ""),
        (b"2026-11-02 10:00:00 Etc/GMT+3", "2026-11-02 13:00:00", ""),
        (b"2026-11-02 10:00:00 +03:00 UTC", "", "a zone that is not known or in doubt"),
        (b"2026-11-02 10:00:00 +0200 Europe/Berlin", "", "a zone that is not known or in doubt"),
        (b"2026-11-02 10:00:00 +01:00 Europe/Berlin", "2026-11-02 09:00:00", ""),
        (b"10:00 2-Nov-2026", WHEN, ""),
        (b"10:00 13/11/2026", "2026-11-13 10:00:00", ""),
        (b"26-11-02 10:00", "", "may be read in two ways"),
        (b"25-12-26", "", "may be read in two ways"),
        (WHEN.encode("utf-16-le"), "", "holds no date"),
        (WHEN.encode("utf-16-be"), "", "holds no date"),
        (b"10:00:00 UTC", "", "holds no date"),
        (b"27", "", "holds no date"),
        (b"2026", "", "holds no date"),
        (b"Mon", "", "holds no date"),
        (b"as soon as I could\x1b[2J", "", r"holds no date: 'as soon as I could\x1b[2J'"),
    ],
)
def test_a_time_is_read_or_what_is_wrong_with_it_is_said(content, when, words):
    found, said = timestamps.read({"timestamp.txt": content})
    assert (str(found) if found else "") == when and words in said and bool(words) == bool(said)


@pytest.mark.parametrize(
    "zone",
    [" UTC +3", " UTC +03:00", " GMT +0100", "Z+3", " Z+3", " CET+1", " utc -3", " UTC, +3",
     " UTC (+3)", "\u00a0UTC\u00a0+3", " AM UTC +3", " Europe/Berlin +1",
     " GMT+0100 (Central European Standard Time)"],
)  # fmt: skip
@pytest.mark.parametrize("date", [WHEN, "Mon Nov 02 2026 10:00:00"])
def test_an_offset_after_the_name_of_a_zone_is_in_doubt(date, zone):
    found, said = timestamps.read({"timestamp.txt": f"{date}{zone}".encode()})
    assert found is None and "a zone that is not known or in doubt" in said


def test_a_time_that_cannot_be_read_costs_no_point_and_is_said(course, cluster, capsys):
    place = classes.hand_in(course, "ann", "answer = 42")
    (place / "timestamp.txt").write_text("02/11/2026 10:00")
    assert classes.coordinate(course, scheduler=cluster) == 0
    assert "'ann': timestamp.txt may be read in two ways" in capsys.readouterr().err
    assert classes.grades(course)["ann", "test"] == (2, None, False)
