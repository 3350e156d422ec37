"""When a submission was handed in, as nbgrader's ``timestamp.txt`` says.

What is in doubt is never guessed: it gets a sentence, and counts as in time.
"""

import codecs
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from qlearn.grading.intake import TIMESTAMP, shown

# A letter, a sign and a digit after the time of day, as in "UTC +3" and "CET+1": those who write so
# do not agree about what it means. "10:00 AM -0500" and "10:00 2-Nov-2026" are no such thing.
IN_DOUBT = re.compile(
    r"\d:\d\d.*[a-z](?<!\d[ap]m)(?<!\s[ap]m)[\s,(]*[+-]\s*(?!20\d\d)\d"
    r"|(?:UTC|GMT)[\s,(]*[+-]\s*\d",
    re.IGNORECASE | re.DOTALL,
)
NO_PLACES = {"localtime", "Factory"}  # zones by name, and not of any one place
ORDERS = ({"dayfirst": True}, {"yearfirst": True})


def read(files: Mapping[str, bytes]) -> tuple[datetime | None, str]:
    """Return when a submission was handed in, as nbgrader's ``timestamp.txt`` says, or None.

    Returns
    -------
    tuple
        The time in UTC, and why there is none although the file is there, or nothing.
    """
    content = files.get(TIMESTAMP, b"")[:200]
    wide = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as Windows may write it
    text = content.decode("utf-16" if wide else "utf-8-sig", errors="replace").strip()
    if not text:
        return None, ""
    try:
        when = _moment(text)
        certain = re.match(r"\d{4}\b", text)
        either = not certain and any(_moment(text, **order) != when for order in ORDERS)
    except LookupError:
        return None, f"{TIMESTAMP} names a zone that is not known or in doubt: {shown(text)}"
    except (ValueError, OverflowError):
        return None, f"{TIMESTAMP} holds no date: {shown(text)}"
    return (None, f"{TIMESTAMP} may be read in two ways: {shown(text)}") if either else (when, "")


def _moment(text: str, **order: bool) -> datetime:
    """Return a moment in UTC; raise ValueError at what is no whole date, LookupError at a zone."""
    from dateutil.parser import parse

    if "\0" in text:  # UTF-16 that does not say so
        raise ValueError(text)
    text = re.sub(r"(?<=\d) +(?=[+-]\d\d:?\d\d$)", "", text)  # else it is read as seconds
    text = re.sub(r"(?:utc|gmt)\b", lambda found: found[0].upper(), text, flags=re.IGNORECASE)
    rest, _, name = text.rpartition(" ")
    place = ZoneInfo(name) if name in available_timezones() - NO_PLACES else None
    unknown = place is None and rest and (re.search(r"[^\W\d]/", name) or name in NO_PLACES)
    if unknown or IN_DOUBT.search(rest if place else text):
        raise LookupError(name)
    first, second = (
        parse(rest if place else text, default=default, tzinfos=_zone, **order)
        for default in (datetime(2000, 1, 1), datetime(2001, 2, 2))
    )
    if first != second:  # a year, a month or a day is missing
        raise ValueError(text)
    named = first.replace(tzinfo=place or UTC)
    if place and first.tzinfo and first.utcoffset() != named.utcoffset():  # "+03:00 UTC"
        raise LookupError(name)
    return (first if first.tzinfo else named).astimezone(UTC).replace(tzinfo=None)


def _zone(name: str | None, seconds: int | None) -> tzinfo | None:
    """Return a zone that a date names, as dateutil asks for it, or None when it names none."""
    from dateutil.tz import tzoffset

    if name and seconds is None:
        raise LookupError(name)
    return None if seconds is None else tzoffset(name, seconds)
