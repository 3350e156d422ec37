"""What phones report: checked against a JSON schema, and kept once each as JSON lines."""

import datetime
import json
import threading
from pathlib import Path
from typing import Any

from qlearn.room import messages
from qlearn.room.phone.model_files import MODELS

MAX_REPORTS = 5000  # a class has hundreds; a runaway script must not fill the disk

_SCHEMA = json.loads(Path(__file__).with_name("report.schema.json").read_text(encoding="utf-8"))
_SCHEMA["$defs"]["report"]["properties"]["models"]["propertyNames"] = {"enum": list(MODELS)}
_VALIDATOR = messages.make_validator(_SCHEMA)


def parse(body: bytes) -> dict[str, Any]:
    """Return the report in a request's body, or raise ValueError with a sentence."""
    report = messages.parse(body, "report")
    _validate(report)
    return report


def _validate(report: Any) -> None:
    messages.validate(report, _VALIDATOR, "report")
    for name, runs in report["models"].items():
        for precision, run in runs.items():
            if not run["q1_ms"] <= run["median_ms"] <= run["q3_ms"]:
                where = f"models.{name}.{precision}"
                raise ValueError(f"In {where}, the median is not between the quartiles.")


class Reports:
    """The reports of a lab, kept in a file of JSON lines, which need not exist yet.

    A line is added with one write and is on disk when ``add`` returns. A line that a crash has
    left unfinished was never acknowledged: it is skipped, and its phone sends it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._reports: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        for number, line in enumerate(text.splitlines(), 1):
            try:
                stored = json.loads(line)
                received = stored.pop("received")
                _validate(stored)
            except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
                print(f"Notice: line {number} of {path} is no report; it is left as it is.")
                continue
            self._reports.setdefault(stored["id"], {**stored, "received": received})
        if text and not text.endswith(b"\n"):
            messages.append(self.path, b"\n")

    def add(self, report: dict[str, Any]) -> bool:
        """Keep a report, unless it was sent before; return whether it is new.

        If it cannot be written, the file stays as it was and OSError is raised.
        """
        with self._lock:
            if report["id"] in self._reports:
                return False
            if len(self._reports) >= MAX_REPORTS:
                raise OSError(f"there are {MAX_REPORTS} reports already")
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            stored = {**report, "received": now}
            messages.append(self.path, json.dumps(stored).encode() + b"\n")
            self._reports[report["id"]] = stored
            return True

    def all(self) -> list[dict[str, Any]]:
        """Return every report, in the order in which they came."""
        # Without the lock, which is held while the disk writes: list() copies in one step.
        return list(self._reports.values())

    def latest(self) -> list[dict[str, Any]]:
        """Return the last report of each phone, in the order in which phones first came."""
        return list({report["phone"]: report for report in self.all()}.values())


def compute_speedup(runs: dict[str, dict[str, Any]]) -> float:
    """Return how many times as fast int8 is as fp32: the ratio of their medians."""
    return runs["fp32"]["median_ms"] / runs["int8"]["median_ms"]


def rank(reports: list[dict[str, Any]], identity: str) -> dict[str, Any] | None:
    """Return how the report with an id ranks among the others; None if there is none.

    There is one report for each phone. The result has ``model``, the largest one that the report
    has; ``phones`` that have run it; ``speed``, the rank by the median of int8, and ``speedup``,
    the rank by int8 against fp32. 1 is the best; equals share a rank.
    """
    mine = next((report for report in reports if report["id"] == identity), None)
    if mine is None:
        return None
    model = [name for name in MODELS if name in mine["models"]][-1]
    rivals = [report["models"][model] for report in reports if model in report["models"]]
    own = mine["models"][model]
    faster = sum(r["int8"]["median_ms"] < own["int8"]["median_ms"] for r in rivals)
    gained = sum(compute_speedup(r) > compute_speedup(own) for r in rivals)
    return {
        "model": MODELS[model].title,
        "phones": len(rivals),
        "speed": 1 + faster,
        "speedup": 1 + gained,
    }
