"""Downloads of four systems, honest and not, to the folders that are graded."""

import contextlib
import io
import stat
import unicodedata
import zipfile
from pathlib import Path

import classes
import nbformat
import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from qlearn.cli import app
from qlearn.grading import intake
from qlearn.grading.collect import collect
from qlearn.grading.downloads import Person, owners, read_name
from qlearn.grading.intake import Refused

ROSTER = {"ann": ("Ann", "Lee", "101"), "ben_k": ("Ben", "de Kok", "102"), "cem": ("Cem", "Öz", "")}
NOTEBOOK = nbformat.writes(classes.answer("answer = 42")).encode()
LATER = nbformat.writes(classes.answer("answer = 43")).encode()


@pytest.fixture
def course(tmp_path):
    course = classes.make_course(tmp_path)
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        for name, (first, last, number) in ROSTER.items():
            gradebook.add_student(name, first_name=first, last_name=last, lms_user_id=number)
    return course


def packed(files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return made.getvalue()


def collected(course, files, zone="UTC", force=False):
    """Exit code, and the files by student that are in the course afterwards."""
    path = course / "class.zip"
    path.write_bytes(files if isinstance(files, bytes) else packed(files))
    with contextlib.chdir(course):
        code = collect(path, classes.EXERCISE, zone, force)
    found = {}
    for file in (course / "classroom" / "submitted").glob("*/tiny/**/*"):
        if file.is_file():
            student, _, *inner = file.relative_to(course / "classroom" / "submitted").parts
            found.setdefault(student, {})["/".join(inner)] = file.read_bytes()
    return code, found


DOWNLOADS = {
    "canvas": {
        "leeann_LATE_101_9001_tiny-1.ipynb": NOTEBOOK,
        "leeann_LATE_101_9002_data.csv": b"1,2",
        "dekokben_102_9003_tiny.ipynb": NOTEBOOK,
        "özcem_777_9004_tiny.ipynb": NOTEBOOK,
    },
    "moodle": {
        "Ann Lee_657737_assignsubmission_file/tiny.ipynb": NOTEBOOK,
        "Ann Lee_657737_assignsubmission_file/data.csv": b"1,2",
        "Ann Lee_657737_assignsubmission_onlinetext/onlinetext.html": b"Hello",
        "Ben de Kok_657738_assignsubmission_file_/tiny (2).ipynb": NOTEBOOK,
        "Öz Cem_657739_assignsubmission_file_tiny.ipynb": NOTEBOOK,
    },
    "blackboard": {
        "Home_work 1_ann_attempt_2026-11-02-09-00-00_tiny.ipynb": LATER,
        "Home_work 1_ann_attempt_2026-11-02-10-00-00_tiny.ipynb": NOTEBOOK,
        "Home_work 1_ann_attempt_2026-11-02-10-00-00_data.csv": b"1,2",
        "Home_work 1_ann_attempt_2026-11-02-10-00-00.txt": b"Name: Ann Lee (ann)",
        "Home_work 1_ben_k_attempt_2026-11-02-10-00-00_tiny.ipynb": NOTEBOOK,
        "Home_work 1_cem_attempt_2026-11-02-10-00-00_tiny.ipynb": NOTEBOOK,
    },
    "brightspace": {
        "index.html": b"<html>",
        "1-2 - Ann Lee - Nov 2, 2026 959 AM/tiny.ipynb": LATER,
        "1-2 - Ann Lee - Nov 2, 2026 1000 AM/tiny.ipynb": NOTEBOOK,
        "1-2 - Ann Lee - Nov 2, 2026 1000 AM/data.csv": b"1,2",
        "1-2 - Ann Lee - Nov 2, 2026 1230 PM/note.txt": b"Sorry, the notebook is above.",
        "1-2 - Ben de Kok - November 2, 2026 1000 AM - tiny.ipynb": NOTEBOOK,
        "1-2 - Cem Öz - Nov 2, 2026 1000 AM - tiny.ipynb": NOTEBOOK,
    },
}


@pytest.mark.parametrize("system", DOWNLOADS)
def test_a_download_goes_to_its_students(system, course, capsys):
    code, found = collected(course, DOWNLOADS[system])
    said = capsys.readouterr()
    assert code == 0 and not said.err, said.err
    timed = system in ("blackboard", "brightspace")
    stamp = {"timestamp.txt": b"2026-11-02 10:00:00 UTC"} if timed else {}
    alone = {"tiny.ipynb": NOTEBOOK, **stamp}
    assert found == {"ann": {**alone, "data.csv": b"1,2"}, "ben_k": alone, "cem": alone}
    if timed:
        assert "of 2 attempts" in said.out or "of 3 attempts" in said.out
    else:
        assert "its notebook was called 'tiny" in said.out


def test_times_are_read_in_their_zone(course):
    _, found = collected(course, DOWNLOADS["blackboard"], zone="Europe/Berlin")
    assert found["ann"]["timestamp.txt"] == b"2026-11-02 09:00:00 UTC"


@pytest.mark.parametrize("space", ["\u202f", "\u00a0"])
def test_a_time_is_read_whatever_space_is_in_it(space, course):
    """Browsers and macOS write a narrow one before AM and PM."""
    name = f"1-2 - Ann Lee - Nov 2, 2026 1000{space}AM - tiny.ipynb"
    code, found = collected(course, {name: NOTEBOOK})
    assert code == 0 and found["ann"]["timestamp.txt"] == b"2026-11-02 10:00:00 UTC"


def test_who_is_unknown_is_said_and_the_others_are_collected(course, capsys):
    files = {
        "Ann Lee_1_assignsubmission_file/tiny.ipynb": NOTEBOOK,
        "Dora Who\x1b_2_assignsubmission_file/tiny.ipynb": NOTEBOOK,
        "Ben de Kok_3_assignsubmission_file/tiny.ipynb": NOTEBOOK,
        "Ben de Kok_4_assignsubmission_file/tiny.ipynb": LATER,
        "homework.ipynb": NOTEBOOK,
    }
    code, found = collected(course, files)
    said = capsys.readouterr().err
    assert code == 1 and set(found) == {"ann"}
    for name in (r"'Dora Who\x1b'", "'Ben de Kok'", "'homework.ipynb'"):
        assert f"Not collected: {name}: " in said
    assert "\x1b" not in said


def test_a_user_name_that_ends_like_a_students_is_not_that_student():
    people = [Person("ann", "", "", "", ""), Person("k", "", "", "", "")]
    some = [f"HW_{user}_attempt_2026-11-02-10-00-00_a.ipynb" for user in ("ann", "ben_k")]
    assert owners(map(read_name, some), people) == {("HW_ann", ""): "ann"}


@pytest.mark.parametrize(
    ("who", "other"),
    [
        ("Jörg Müller", "Jorg Muller"),
        ("राम कुमार", "रमी कुमार"),
        ("กิ ดี", "กุ ดี"),
        ("سَامي نور", "سُامي نور"),
    ],
)
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_a_name_is_its_own_in_every_script_and_form(who, other, forms):
    in_book, in_zip = (unicodedata.normalize(form, who) for form in forms)
    people = [Person(id, *name.split(), "", "") for id, name in (("a", in_book), ("b", other))]
    name = read_name(f"{in_zip}_5_assignsubmission_file/a.ipynb")
    assert owners([name], people) == {(in_zip, "5"): "a"}
    assert owners([name], people[1:]) == {}
    user = read_name(f"HW_{in_zip}_attempt_2026-11-02-10-00-00_a.ipynb")
    assert [*owners([user], [Person(in_book, "", "", "", "")]).values()] == [in_book]


def test_what_is_there_is_replaced_only_when_that_is_asked_for(course, capsys):
    name = "Home_ann_attempt_2026-11-0{}-10-00-00_tiny.ipynb"
    first, second = {name.format(1): NOTEBOOK}, {name.format(2): LATER}
    assert collected(course, first)[0] == collected(course, first)[0] == 0
    assert "unchanged ann" in capsys.readouterr().out
    code, found = collected(course, second)
    assert code == 1 and found["ann"]["tiny.ipynb"] == NOTEBOOK
    assert "'ann': another submission is there; --force" in capsys.readouterr().err
    code, found = collected(course, second, force=True)
    assert code == 0 and found["ann"]["tiny.ipynb"] == LATER
    assert "replaced ann" in capsys.readouterr().out


def test_a_learners_zip_is_unpacked_and_does_not_say_when_it_came(course):
    inner = {
        "mine/tiny.ipynb": NOTEBOOK,
        "mine/answers/a.json": b"{}",
        "mine/timestamp.txt": b"2020-01-01",
        "mine/.ipynb_checkpoints/tiny.ipynb": LATER,
        "__MACOSX/mine/tiny.ipynb": b"",
    }
    _, found = collected(course, {"leeann_101_1_tiny.zip": packed(inner)})
    assert found == {"ann": {"tiny.ipynb": NOTEBOOK, "answers/a.json": b"{}"}}


@pytest.mark.parametrize(
    "name", ["tiny.IPYNB", "tiny.ipynb.txt", "tiny.ipynb.json", "my.Ipynb.TXT"]
)
def test_a_notebook_is_collected_whatever_it_ends_in(name, course, capsys):
    code, found = collected(course, {f"leeann_101_1_{name}": NOTEBOOK})
    assert code == 0 and found == {"ann": {"tiny.ipynb": NOTEBOOK}}
    assert f"its notebook was called '{name}'" in capsys.readouterr().out
    submitted = course / "classroom" / "submitted"
    assert intake.read(submitted, Path("ann/tiny"), "tiny.ipynb") == ({"tiny.ipynb": NOTEBOOK}, "")


def test_the_notebook_of_the_right_name_goes_before_one_that_ends_oddly(course):
    files = {"leeann_101_1_tiny.ipynb": NOTEBOOK, "leeann_101_2_tiny.ipynb.txt": LATER}
    _, found = collected(course, files)
    assert found["ann"]["tiny.ipynb"] == NOTEBOOK


def link():
    entry = zipfile.ZipInfo("leeann_101_1_tiny.ipynb")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return made.getvalue()


def damaged():
    made = bytearray(packed({"leeann_101_1_tiny.ipynb": NOTEBOOK}))
    made[60:90] = b"\xff" * 30
    return bytes(made)


def encrypted():
    made = bytearray(packed({"leeann_101_1_tiny.ipynb": NOTEBOOK}))
    for record, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        made[made.index(record) + flags] |= 1
    return bytes(made)


def inside(files):
    return {"leeann_101_1_tiny.zip": packed({"tiny.ipynb": NOTEBOOK, **files})}


def misnamed():
    made = packed({"tiny.ipynb": NOTEBOOK, "aé.txt": b""})
    return {"leeann_101_1_tiny.zip": made.replace("aé.txt".encode(), b"a\xff\xfe.txt")}


BAD = {
    "'tiny.zip' cannot be unpacked: 'utf-8'": misnamed,
    "more than 100 MB or 500 files": lambda: inside({f"{n}/": b"" for n in range(10_001)}),
    "is both a file and a folder": lambda: inside({"answers": b"", "answers/a.json": b""}),
    "would leave its folder": lambda: inside({"../../../eve": b"x"}),
    "'/etc/x' would leave": lambda: inside({"/etc/x": b"x"}),
    r"'..\\x' would leave": lambda: inside({"..\\x": b"x"}),
    "is a symbolic link": link,
    "'tiny.ipynb' is encrypted: hand it in without a password": encrypted,
    "'leeann_101_1_tiny.ipynb' is encrypted": lambda: {"leeann_101_1_tiny.zip": encrypted()},
    "more than 100 MB": lambda: inside({"zeros": bytes(101 * 10**6)}),
    "or 500 files": lambda: inside({f"{number}": b"" for number in range(500)}),
    "cannot be unpacked": damaged,
    "'tiny.zip' cannot be unpacked": lambda: {"leeann_101_1_tiny.zip": b"PK no zip"},
    "there is no notebook": lambda: {"leeann_101_1_tiny.txt": b"x"},
    "which of these is tiny.ipynb? 'a.ipynb', 'b.ipynb'": lambda: {
        "leeann_101_1_a.ipynb": b"", "leeann_101_2_b.ipynb": b""},
    "which of these is tiny.ipynb? 'a.ipynb', 'tiny.ipynb.txt'": lambda: {
        "leeann_101_1_a.ipynb": b"", "leeann_101_2_tiny.ipynb.txt": b""},
}  # fmt: skip


def test_odd_names_within_are_names(course, capsys):
    files = {"answers\\a.json": b"{}", "Shot 10:00.png": b"x", "n" * 300: b"", "./b.txt": b""}
    code, found = collected(course, inside(files))
    assert code == 0 and "whose name is too long" in capsys.readouterr().out
    assert set(found["ann"]) == {"tiny.ipynb", "answers/a.json", "Shot 10:00.png", "b.txt"}


def test_an_empty_zip_holds_no_submission(course):
    with pytest.raises(Refused, match="'class.zip' holds no submission"):
        collected(course, {})


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_collected_harms_nobody(words, course, capsys):
    whole = BAD[words]()
    if isinstance(whole, dict):
        whole = {**whole, "dekokben_102_1_tiny.ipynb": NOTEBOOK}
    before = {path for path in course.parent.rglob("*")}
    code, found = collected(course, whole)
    assert code == 1
    assert words in capsys.readouterr().err
    assert set(found) == ({"ben_k"} if isinstance(whole, dict) else set())
    new = {path for path in course.parent.rglob("*")} - before
    assert all("ben_k" in path.parts or path.name in ("class.zip", "submitted") for path in new)


def test_no_zip_no_students_and_no_exercise_get_a_sentence(course, tmp_path_factory):
    with pytest.raises(Refused, match="'class.zip' cannot be unpacked"):
        collected(course, b"no zip file")
    with contextlib.chdir(course), pytest.raises(FileNotFoundError, match="no exercise 'tyni'"):
        collect(course / "class.zip", "tyni", None, False)
    empty = classes.make_course(tmp_path_factory.mktemp("empty"))
    with pytest.raises(LookupError, match="nbgrader db student import"):
        collected(empty, DOWNLOADS["canvas"])


def test_the_command_collects_and_says_so(course, monkeypatch):
    (course / "class.zip").write_bytes(packed(DOWNLOADS["canvas"]))
    monkeypatch.chdir(course)
    said = CliRunner().invoke(app, ["collect", "class.zip", "tiny"])
    assert said.exit_code == 0 and said.output.count("collected ") == 3
    said = CliRunner().invoke(app, ["collect", "class.zip", "tiny", "--zone", "Nowhere/Else"])
    assert said.exit_code == 1 and "No time zone is called" in said.output
    assert "Traceback" not in said.output
