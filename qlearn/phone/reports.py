"""What phones report: each field checked on arrival, each report kept once, on disk."""

import datetime
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qlearn.phone.bundle import MODELS, PRECISIONS

MAX_REPORTS = 5000  # a class has hundreds; a runaway script must not fill the disk
NICKNAME = 24  # characters
_ID = re.compile(r"[0-9a-f]{32}")

Check = Callable[[Any], bool]


def _number(low: float, high: float) -> Check:
    """Accept a finite number in [low, high]; True and False are not numbers."""
    return lambda v: type(v) in (int, float) and low <= v <= high


def _whole(low: int, high: int) -> Check:
    return lambda v: type(v) is int and low <= v <= high


def _text(longest: int) -> Check:
    """Accept text on one line, without control or direction characters."""
    return lambda v: isinstance(v, str) and len(v) <= longest and v.isprintable()


def _or_null(check: Check) -> Check:
    return lambda v: v is None or check(v)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


_RUN: dict[str, Check] = {
    "rounds": _whole(1, 1000),
    "calls": _whole(1, 1_000_000),  # a round
    "median_ms": _number(1e-6, 1e6),
    "q1_ms": _number(1e-6, 1e6),
    "q3_ms": _number(1e-6, 1e6),
    "sqnr_db": _or_null(_number(-400, 400)),  # null: every number equals the host's
    "top1": _number(0, 1),
}
_REPORT: dict[str, Check] = {
    "id": _is_id,
    "phone": _is_id,
    "page": _whole(1, 1000),
    "nickname": _text(NICKNAME),
    "models": lambda v: isinstance(v, dict) and 1 <= len(v) <= len(MODELS),
    "threads": _whole(1, 256),
    "isolated": lambda v: isinstance(v, bool),
    "user_agent": _text(400),
    "memory_gb": _or_null(_number(0, 1024)),
    "cores": _or_null(_whole(1, 1024)),
    "screen": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_whole(1, 20000), v)),
}


def parse(body: bytes) -> dict[str, Any]:
    """Return the report in a request's body, every field of it checked.

    Raises
    ------
    ValueError
        If it is no report: the message says what is wrong, in a sentence.
    """
    try:
        report = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("The report is not JSON.") from None
    _check(report, _REPORT, "the report")
    for name, runs in report["models"].items():
        if name not in MODELS:
            raise ValueError("The report names a model that the lab does not know.")
        _check(runs, dict.fromkeys(PRECISIONS, lambda v: True), f"models.{name}")
        for precision, run in runs.items():
            where = f"models.{name}.{precision}"
            _check(run, _RUN, where)
            if not run["q1_ms"] <= run["median_ms"] <= run["q3_ms"]:
                raise ValueError(f"In {where}, the median is not between the quartiles.")
    return report


def _check(values: Any, checks: dict[str, Check], where: str) -> None:
    """Raise ValueError unless ``values`` has the fields of ``checks``, no others, all right."""
    if not isinstance(values, dict):
        raise ValueError(f"The value of {where} is not an object.")
    if missing := [name for name in checks if name not in values]:
        raise ValueError(f"The field {missing[0]} is missing in {where}.")
    if len(values) > len(checks):
        raise ValueError(f"There is an unknown field in {where}.")
    for name, check in checks.items():
        if not check(values[name]):
            raise ValueError(f"The field {name} in {where} has a value that is not allowed.")


class Reports:
    """The reports of a lab, kept as JSON lines.

    A line is added with one write and is on disk when ``add`` returns. A line that a crash has
    left unfinished was never acknowledged: it is skipped, and its phone sends it again.

    Parameters
    ----------
    path
        The file; its reports are read, and it is made when the first one arrives.

    Raises
    ------
    OSError
        If the file cannot be read, or its folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._reports: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        self._unfinished = bool(text) and not text.endswith(b"\n")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                stored = json.loads(line)
                received = stored.pop("received")
                report = parse(json.dumps(stored).encode())
            except (ValueError, AttributeError, KeyError):
                print(f"Notice: line {number} of {path} is no report; it is left as it is.")
                continue
            self._reports.setdefault(report["id"], {**report, "received": received})

    def add(self, report: dict[str, Any]) -> bool:
        """Keep a report; return whether it is new. A report sent twice is kept once.

        Raises
        ------
        OSError
            If it cannot be written; the file is then as it was.
        """
        with self._lock:
            if report["id"] in self._reports:
                return False
            if len(self._reports) >= MAX_REPORTS:
                raise OSError(f"there are {MAX_REPORTS} reports already")
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            stored = {**report, "received": now}
            self._append(json.dumps(stored).encode() + b"\n")
            self._reports[report["id"]] = stored
            return True

    def _append(self, line: bytes) -> None:
        """Write a line and wait until the disk has it."""
        with self.path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            whole = b"\n" * self._unfinished + line
            try:
                if file.write(whole) != len(whole):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        self._unfinished = False

    def all(self) -> list[dict[str, Any]]:
        """Return every report, in the order in which they came."""
        with self._lock:
            return list(self._reports.values())

    def latest(self) -> list[dict[str, Any]]:
        """Return the last report of each phone, in the order in which phones first came."""
        return list({report["phone"]: report for report in self.all()}.values())


def speedup(runs: dict[str, dict[str, Any]]) -> float:
    """How many times as fast int8 is as fp32: the ratio of their medians."""
    return runs["fp32"]["median_ms"] / runs["int8"]["median_ms"]


def standing(reports: list[dict[str, Any]], identity: str) -> dict[str, Any] | None:
    """Return a report's place among the others, or None if it is not one of them.

    Parameters
    ----------
    reports
        One a phone.
    identity
        The id of a report.

    Returns
    -------
    dict
        ``model``, the largest one that the report has; ``phones`` that have run it; ``speed``,
        the place by the median of int8, and ``speedup``, the place by int8 against fp32. 1 is
        the best; equals share a place.
    """
    mine = next((report for report in reports if report["id"] == identity), None)
    if mine is None:
        return None
    model = [name for name in MODELS if name in mine["models"]][-1]
    rivals = [report["models"][model] for report in reports if model in report["models"]]
    own = mine["models"][model]
    faster = sum(r["int8"]["median_ms"] < own["int8"]["median_ms"] for r in rivals)
    gained = sum(speedup(r) > speedup(own) for r in rivals)
    return {
        "model": MODELS[model].title,
        "phones": len(rivals),
        "speed": 1 + faster,
        "speedup": 1 + gained,
    }
