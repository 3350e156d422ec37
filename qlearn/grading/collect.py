"""`qlearn collect`: from a learning management system's zip file to the class's folders.

Nothing is unpacked by its name in the archive: each file is read within limits, and written where
its student's submission belongs.
"""

import stat
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo
from zoneinfo import ZoneInfo, available_timezones

from qlearn.grading.course import Course
from qlearn.grading.downloads import ADDED, Name, Person, moment, owners, read_name
from qlearn.grading.folders import place
from qlearn.grading.intake import FILES, LISTED, NOTEBOOK, TIMESTAMP, TOTAL_MB, Refused, shown

CHECKPOINTS = ".ipynb_checkpoints"
ENTRY = b"PK\x01\x02"  # before each name in a zip file's list of what is in it
ENCRYPTED = 1  # bit of a file's flags in a zip file
MANY = f"it has more than {TOTAL_MB} MB or {FILES} files."
NAME_BYTES = 255  # that file systems hold
Entries = list[tuple[str, ZipInfo]]  # path of a file in its submission, and the file


def collect(archive: Path, exercise: str, zone: str | None, force: bool) -> int:
    """Put what a class handed in where `qlearn grade` finds it, in the working folder's course.

    Parameters
    ----------
    archive
        Download of Canvas, Moodle, Blackboard or Brightspace (D2L).
    exercise
        Name of it.
    zone
        Such as "Europe/Berlin", in which times in the download are written; this machine's if None.
    force
        Whether to put it in the place of other submissions that are there.

    Returns
    -------
    int
        Exit code: 1 when something was not collected, which is said.

    Raises
    ------
    OSError, LookupError, ValueError
        When there is no such course, exercise, zone or archive: in one sentence.
    """
    if zone and zone not in available_timezones():
        raise LookupError(f"No time zone is called {shown(zone)}: give one such as Europe/Berlin.")
    course, where = Course.here(), ZoneInfo(zone) if zone else None
    course.source(exercise)
    people = _people(course)
    with _unpacking(archive.name):
        download = ZipFile(archive)
    with download:
        found, problems = _sorted(download, people)
        for student, attempts in sorted(found.items()):
            try:
                print(_take(course, exercise, student, download, attempts, where, force))
            except Exception as error:  # whatever a student's bytes can raise is their problem
                problems[student] = str(error) or type(error).__name__
    if not found and not problems:
        raise Refused(f"{shown(archive.name)} holds no submission.")
    for who, why in problems.items():
        print(f"Not collected: {shown(who)}: {why}", file=sys.stderr)
    return int(bool(problems))


def _people(course: Course) -> list[Person]:
    from nbgrader.api import Gradebook

    people = []
    if course.has_gradebook:
        with Gradebook(course.folders.db_url, course.folders.course_id) as gradebook:
            for one in gradebook.students:
                facts = (one.first_name, one.last_name, one.email, one.lms_user_id)
                people.append(Person(one.id, *(fact or "" for fact in facts)))
    if not people:
        raise LookupError(
            "The gradebook knows no students: import them first, with "
            "nbgrader db student import students.csv."
        )
    return people


@contextmanager
def _unpacking(name: str) -> Iterator[None]:
    """Give what is raised at a damaged zip file a sentence."""
    try:
        yield
    except Exception as error:  # zipfile raises many kinds, and says so of none
        raise Refused(f"{shown(name)} cannot be unpacked: {error}.") from None


def _sorted(
    download: ZipFile, people: list[Person]
) -> tuple[dict[str, dict[str, Entries]], dict[str, str]]:
    """Return files by student and attempt, and why there are others, by name."""
    named: list[tuple[Name, ZipInfo]] = []
    unknown: dict[str, str] = {}
    for entry in download.infolist():
        name = read_name(entry.filename)
        if entry.is_dir() or ADDED.fullmatch(entry.filename) or (name and not name.file):
            continue
        if name:
            named.append((name, entry))
        else:
            unknown[entry.filename] = "it is named as none of the four systems does."
    whose = owners([name for name, _ in named], people)
    found: dict[str, dict[str, Entries]] = defaultdict(lambda: defaultdict(list))
    for name, entry in named:
        student = whose.get((name.who, name.number))
        if student is None:
            unknown[name.who] = "no student, or more than one, has this name in the gradebook."
        else:
            found[student][name.when].append((name.file, entry))
    return found, unknown


def _take(
    course: Course, exercise: str, student: str, download: ZipFile,
    attempts: dict[str, Entries], zone: tzinfo | None, force: bool,
) -> str:  # fmt: skip
    """Write a student's latest attempt that has a notebook, and return a sentence about it."""
    never = datetime.min.replace(tzinfo=UTC)
    times = {when: moment(when, zone) or never for when in attempts}
    for when in sorted(times, key=times.get, reverse=True):
        files = _files(download, attempts[when], TOTAL_MB * 10**6, nested=True)
        if any(map(NOTEBOOK.fullmatch, files)):
            break
    else:
        raise Refused("there is no notebook.")
    files, notice = _submission(files, f"{exercise}.ipynb")
    if when:
        files[TIMESTAMP] = f"{times[when]:%Y-%m-%d %H:%M:%S} UTC".encode()
        notice += f", handed in {files[TIMESTAMP].decode()}"
    notice += f", the latest with a notebook of {len(times)} attempts" if len(times) > 1 else ""
    folder = course.folder("submitted", student, exercise)
    there = {path.relative_to(folder).as_posix(): path.read_bytes()
             for path in folder.rglob("*") if path.is_file()}  # fmt: skip
    if there == files:
        return f"unchanged {student}"
    if folder.exists() and not force:
        raise Refused("another submission is there; --force puts this one in its place.")
    for path in _unnameable(files):
        del files[path]
        notice += f", without {shown(path)}, whose name is too long"
    place(folder, files, 0o644)
    return f"{'replaced' if there else 'collected'} {student}: files: {len(files)}{notice}"


def _files(download: ZipFile, entries: Entries, room: int, nested: bool) -> dict[str, bytes]:
    """Read files of one submission, and those in its zip files; refuse what is too much."""
    files: dict[str, bytes] = {}
    for name, entry in entries:
        path = str(PurePosixPath(name.replace("\\", "/")))  # as some programs on Windows write it
        parts = PurePosixPath(path).parts
        if entry.is_dir() or ADDED.fullmatch(path) or CHECKPOINTS in parts:
            continue
        if ".." in parts or path.startswith("/"):
            raise Refused(f"{shown(name)} would leave its folder.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Refused(f"{shown(path)} is a symbolic link: hand in the file itself.")
        if entry.flag_bits & ENCRYPTED:
            raise Refused(f"{shown(path)} is encrypted: hand it in without a password.")
        with _unpacking(path), download.open(entry) as file:
            content = file.read(room + 1)
        added = {path: content}
        if nested and path.lower().endswith(".zip") and len(content) <= room:
            if content.count(ENTRY) > LISTED:  # before all of them are read
                raise Refused(MANY)
            with _unpacking(path):
                inner = ZipFile(BytesIO(content))
            within = [(one.filename, one) for one in inner.infolist()]
            added = _files(inner, within, room, nested=False)
        if twice := files.keys() & added.keys():
            raise Refused(f"two files are called {shown(min(twice))}.")
        files |= added
        room -= sum(map(len, added.values()))
        if room < 0 or len(files) > FILES:
            raise Refused(MANY)
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents}
    if both := files.keys() & folders:
        raise Refused(f"{shown(min(both))} is both a file and a folder.")
    return files


def _unnameable(files: Mapping[str, bytes]) -> list[str]:
    """Return the paths that no file can have here."""
    return [
        path for path in files
        if any(len(part.encode()) > NAME_BYTES for part in PurePosixPath(path).parts)
    ]  # fmt: skip


def _submission(files: dict[str, bytes], name: str) -> tuple[dict[str, bytes], str]:
    """Return the files in and below the notebook's folder, under its right name, and a notice.

    When it was handed in is not for the student to say.
    """
    notebooks = [PurePosixPath(path) for path in files if NOTEBOOK.fullmatch(path)]
    chosen, *others = [path for path in notebooks if path.name == name] or notebooks
    if others:
        names = ", ".join(shown(str(path)) for path in (chosen, *others))
        raise Refused(f"which of these is {name}? {names}.")
    root = chosen.parent
    found = {str(PurePosixPath(path).relative_to(root)): content for path, content in files.items()
             if PurePosixPath(path).is_relative_to(root)}  # fmt: skip
    found = {path: content for path, content in found.items() if path.casefold() != TIMESTAMP}
    found[name] = found.pop(chosen.name)
    return found, "" if chosen.name == name else f", its notebook was called {shown(chosen.name)}"
