"""The board of a room: what learners' notebooks have sent, kept as JSON lines, and its summary."""

import datetime
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qlearn.room import messages
from qlearn.system.cache import write_whole

MAX_LEARNERS = 500  # a room has some thirty; a runaway script must not fill the disk
MAX_EVENTS = 200_000
MAX_PARTS = 300

_SCHEMA = json.loads(Path(__file__).with_name("events.schema.json").read_text(encoding="utf-8"))
_VALIDATOR = messages.make_validator(_SCHEMA)
_LEAVING = messages.make_validator({
    "type": "object",
    "additionalProperties": False,
    "required": ["learner"],
    "properties": {"learner": {"$ref": "#/$defs/id"}},
    "$defs": _SCHEMA["$defs"],
})  # fmt: skip


@dataclass
class Learner:
    """What the board knows of a learner."""

    nickname: str
    hand: bool = False
    parts: dict[str, tuple[bool, str]] = field(default_factory=dict)  # passed, and the sentence
    shared: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    laptop: list[dict[str, str]] = field(default_factory=list)  # rows of qlearn doctor
    seen: dict[str, int] = field(default_factory=dict)  # session → number of its last event


class Board:
    """The learners of a room, kept in a file of JSON lines, which need not exist yet.

    A request's events are one line, written at once and on disk when ``take`` returns. A line that
    a crash has left unfinished was never acknowledged: it is skipped, and sent again.

    Parameters
    ----------
    path
        The file.
    parts
        Exercises' parts and your-turn cells that the board shows before anybody has tried them.
    """

    def __init__(self, path: Path, parts: list[str]) -> None:
        self.path, self.parts = path, parts
        self._lock = threading.Lock()
        self._learners: dict[str, Learner] = {}
        self._events = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                message = json.loads(line)
                message.pop("received")
                messages.validate(message, _VALIDATOR, "line")
            except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
                print(f"Notice: line {number} of {path} is no message; it is left as it is.")
                continue
            self._apply(message, self._new(message))
        if lines and not lines[-1].endswith(b"\n"):
            messages.append(path, b"\n")

    def take(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Keep a learner's events; return the answer's status and content."""
        try:
            message = messages.parse(body, "message")
            messages.validate(message, _VALIDATOR, "message")
            with self._lock:
                self._keep(message)
        except ValueError as error:
            return 400, {"error": str(error)}
        except OSError as error:
            return 503, {"error": f"The message could not be kept ({error.strerror or error})."}
        return 200, {}

    def _keep(self, message: dict[str, Any]) -> None:
        new = self._new(message)
        known = self._learners.get(message["learner"])
        if known and not new and known.nickname == message["nickname"]:
            return  # sent again, after an answer that was lost
        if known is None and len(self._learners) >= MAX_LEARNERS:
            raise OSError(f"there are {MAX_LEARNERS} learners already")
        if self._events + len(new) > MAX_EVENTS:
            raise OSError(f"there are {MAX_EVENTS} events already")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        kept = {**message, "events": new, "received": now}
        messages.append(self.path, json.dumps(kept).encode() + b"\n")
        self._apply(message, new)

    def _new(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that have not come before: a session numbers them in order."""
        known = self._learners.get(message["learner"])
        last = known.seen.get(message["session"], 0) if known else 0
        return [event for event in message["events"] if event["n"] > last]

    def _apply(self, message: dict[str, Any], new: list[dict[str, Any]]) -> None:
        learner = self._learners.setdefault(message["learner"], Learner(message["nickname"]))
        learner.nickname = message["nickname"]
        self._events += len(new)
        for event in new:
            learner.seen[message["session"]] = event["n"]
            if "part" in event:
                learner.parts[event["part"]] = event["passed"], event["sentence"]
                learner.hand = learner.hand and not event["passed"]
            if "shared" in event:
                learner.shared[event["shared"]] = event["rows"]
            learner.laptop = event.get("laptop", learner.laptop)
            learner.hand = event.get("hand", learner.hand)

    def forget(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Remove what a learner has sent, from the file too; return the status and content."""
        try:
            message = messages.parse(body, "message")
            messages.validate(message, _LEAVING, "message")
            with self._lock:
                if self._learners.pop(message["learner"], None):
                    self._erase(message["learner"])
        except ValueError as error:
            return 400, {"error": str(error)}
        except OSError as error:
            return 503, {"error": f"The file could not be written ({error.strerror or error})."}
        return 200, {}

    def _erase(self, learner: str) -> None:
        mark = f'"learner": "{learner}"'.encode()
        lines = self.path.read_bytes().splitlines(keepends=True)
        with write_whole(self.path) as unfinished:
            unfinished.write_bytes(b"".join(line for line in lines if mark not in line))

    def summarize(self) -> dict[str, Any]:
        """Return what the page shows.

        Returns
        -------
        dict
            ``learners``, their number; ``hands``, nicknames of those who ask for help; ``parts``,
            for each part ``passed`` and ``stuck`` (numbers of learners), the commonest failing
            ``sentence`` and ``times``, how many have it; ``shared``, by name and label a list of
            (speedup, low, high), one a learner; ``laptops``, for each that has told ``nickname``
            and the subjects of its rows ``FAIL`` and ``note``.
        """
        with self._lock:
            learners = list(self._learners.values())
            names = [*self.parts, *sorted({p for one in learners for p in one.parts})]
            parts = [_summarize_part(name, learners) for name in dict.fromkeys(names)]
            shared: dict[str, dict[str, list[list[float]]]] = {}
            for learner in learners:
                for name, rows in learner.shared.items():
                    for row in rows:
                        values = [row["speedup"], row["low"], row["high"]]
                        shared.setdefault(name, {}).setdefault(row["label"], []).append(values)
        hands = [one.nickname for one in learners if one.hand]
        laptops = [_summarize_laptop(one) for one in learners if one.laptop]
        return {"learners": len(learners), "hands": hands, "parts": parts[:MAX_PARTS],
                "shared": shared, "laptops": laptops}  # fmt: skip


def _summarize_laptop(learner: Learner) -> dict[str, Any]:
    verdicts = {
        verdict: [row["subject"] for row in learner.laptop if row["verdict"] == verdict]
        for verdict in ("FAIL", "note")
    }
    return {"nickname": learner.nickname, **verdicts}


def _summarize_part(name: str, learners: list[Learner]) -> dict[str, Any]:
    found = [one.parts[name] for one in learners if name in one.parts]
    sentences = Counter(sentence for passed, sentence in found if not passed)
    (sentence, times), *_ = sentences.most_common(1) or [("", 0)]
    return {"part": name, "passed": sum(passed for passed, _ in found),
            "stuck": sentences.total(), "sentence": sentence, "times": times}  # fmt: skip
