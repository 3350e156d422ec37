"""Whose a file in a download of Canvas, Moodle, Blackboard or Brightspace (D2L) is.

Each writes who handed in, and some when, into the names of files or folders. Sources: Canvas,
``lib/content_zipper.rb``; Moodle, ``mod/assign/classes/downloader.php``; the other two as their
users quote them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from qlearn.grading.intake import Refused

MOODLE, BRIGHTSPACE, BLACKBOARD, CANVAS = FORMATS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<who>.+?)_(?P<number>\d+)_assignsubmission_file_?(?P<file>.*)",
        r"\d+-\d+ - (?P<who>.+?) - (?P<when>[^\W\d]+\.? \d+, \d{4} \d{3,4}\s[AP]M)"
        r"(?: - (?P<file>.+))?",
        r"(?P<who>.+?)_attempt_(?P<when>\d{4}(?:-\d\d){5})(?:_(?P<file>.+)|\.txt)",
        r"(?P<who>.+?)(?:_late)?_(?P<number>\d+)_\d+_(?P<file>.+)",
    )
)
# What these systems and macOS add by themselves.
ADDED = re.compile(
    r"(?:.*/)?(?:__MACOSX/.*|\.DS_Store|[^/]+_assignsubmission_onlinetext_?(?:/.*)?)|index\.html"
)


class Person(NamedTuple):
    """A student as the gradebook knows them; only ``id`` is never empty."""

    id: str
    first_name: str
    last_name: str
    email: str
    number: str  # that Canvas knows them by


class Name(NamedTuple):
    """What a path in a download says; ``file`` is the path of the file as it was handed in."""

    form: re.Pattern[str]
    who: str  # for Blackboard, the assignment's title and the user name
    number: str
    when: str
    file: str


def read_name(path: str) -> Name | None:
    """Return what a path in a download says, or None when it has none of the formats."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        for form in FORMATS:
            if found := form.fullmatch(part):
                said = {"number": "", "when": "", **found.groupdict(default="")}
                said["file"] = "/".join([*filter(None, [said["file"]]), *parts[place + 1 :]])
                return Name(form, **said)
    return None


def owners(names: Iterable[Name], people: list[Person]) -> dict[tuple[str, str], str]:
    """Return by ``who`` and ``number`` the id of the student, where only one can be meant.

    Nobody is meant by two: one of them is somebody whom the gradebook does not know.
    """
    kinds = {(name.who, name.number): name.form for name in names}
    users = _users({who for (who, _), form in kinds.items() if form is BLACKBOARD}, people)
    found = {}
    for (who, number), form in kinds.items():
        meant = {one.id for one in people if form is CANVAS and one.number == number}
        meant = meant or {one.id for one in people if _plain(who) in _called(one)}
        meant = users.get(who, set()) if form is BLACKBOARD else meant
        if len(meant) == 1:
            found[who, number] = meant.pop()
    times = Counter(found.values())
    return {key: owner for key, owner in found.items() if times[owner] == 1}


def _users(titled: Iterable[str], people: list[Person]) -> dict[str, set[str]]:
    """Return who is meant by each TITLE_USER, all of which begin with the same title.

    More is left than the title where the name of somebody else ends like a student's.
    """
    users = {_folded(one.id): one.id for one in people}
    ends = {text: [user for user in users if _folded(text).endswith(f"_{user}")] for text in titled}
    found = {text: max(some, key=len) for text, some in ends.items() if some}
    titles = {text: len(_folded(text)) - len(user) for text, user in found.items()}
    title = min(titles.values(), default=0)
    return {text: {users[found[text]]} for text, size in titles.items() if size == title}


def _called(one: Person) -> set[str]:
    """Return what a student may be called, in either order of names."""
    names = [one.first_name + one.last_name, one.last_name + one.first_name]
    return {_plain(text) for text in (one.id, one.email, *names) if text}


def _plain(name: str) -> str:
    """Return a name without case, spaces and signs; a mark is a part of its letter."""
    return "".join(
        one for one in _folded(name) if one.isalnum() or unicodedata.category(one).startswith("M")
    )


def _folded(name: str) -> str:
    """Return a name without case, in one form: macOS writes the dots of an ö by themselves."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def moment(when: str, zone: tzinfo | None) -> datetime | None:
    """Return when something was handed in, in UTC, or None where a download does not say.

    Parameters
    ----------
    when
        As in `Name`.
    zone
        That it was written in; this machine's when None.
    """
    from dateutil.parser import ParserError, parse

    if not when:
        return None
    form = r"(\d{4})-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)|(.*\d)(\d\d\s[AP]M)"  # without colons
    *numbers, before, after = re.fullmatch(form, when, re.IGNORECASE).groups()
    try:
        found = parse(f"{before}:{after}") if before else datetime(*map(int, numbers))
    except (ParserError, ValueError):
        raise Refused(f"the date {when!r} cannot be read.") from None
    return found.replace(tzinfo=zone).astimezone(UTC)
