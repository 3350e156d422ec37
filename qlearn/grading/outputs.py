"""Outputs of cells: what is kept of what a kernel says, so that it can harm nobody who looks."""

import binascii
import re
from typing import Any

# Neither HTML nor SVG nor JavaScript: formgrader shows outputs in the instructor's own session.
PICTURES = ("image/png", "image/jpeg")
SENTENCE = 5000  # characters of an error that are kept whatever else was said
LETTERS = 500  # of what `sentence` returns
CUT = "\n… the rest of the output was not kept.\n"
# What is taken for the content of a message that is too long to be read, of whatever kind it is.
TOO_LONG = {
    "text": CUT, "data": {"text/plain": CUT}, "status": "error", "ename": "Failed",
    "evalue": "The cell failed, and what it said is too long to be kept.",
}  # fmt: skip


class Kept:
    """Outputs of one cell, up to a size.

    Parameters
    ----------
    limit
        Characters to keep.

    Attributes
    ----------
    size
        Characters until now, with those that were not kept.
    outputs
        As nbformat has them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._failed = False
        self.outputs: list[dict[str, Any]] = []

    def take(self, message: dict[str, Any]) -> bool:
        """Keep what a message of the kernel shows; return whether it says that the cell is done.

        Parameters
        ----------
        message
            From the iopub channel; its content may be anything.
        """
        content = message.get("content")
        if not isinstance(content, dict):
            return False
        kind = message.get("msg_type")
        if kind == "status":
            return content.get("execution_state") == "idle"
        if kind == "stream":
            self._stream(text(content.get("text")))
        elif kind == "error":
            self._add(error(*(text(content.get(name)) for name in ("ename", "evalue")),
                            _lines(content.get("traceback"))))  # fmt: skip
        elif kind in ("display_data", "execute_result"):
            self._add(_shown(kind, content))
        return False

    def cut(self) -> None:
        """Say that more was shown than is kept."""
        self.outputs.append({"output_type": "stream", "name": "stdout", "text": CUT})

    def _add(self, output: dict[str, Any]) -> None:
        if output["output_type"] == "error":
            # The first is what a test cell says, and the reason for its points: it is always kept.
            if self._failed and self.size >= self.limit:
                return
            output = _shortened(output, max(self.limit - self.size, SENTENCE))
            self.size += _length(output)
            self._failed = True
            self.outputs.append(output)
        elif self._room(_length(output)):
            self.outputs.append(output)

    def _stream(self, words: str) -> None:
        """Add to the stream; stderr too is shown as stdout, so that it costs no points."""
        room = self.limit - self.size
        if room <= 0:
            return
        self.size += len(words)
        words = words if len(words) <= room else words[:room] + CUT
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream":
            last["text"] += words
        else:
            self.outputs.append({"output_type": "stream", "name": "stdout", "text": words})

    def _room(self, size: int) -> bool:
        """Count something of that size; say whether it fits."""
        if self.size >= self.limit:
            return False
        self.size += size
        if self.size > self.limit:
            self.cut()
            return False
        return True


def error(name: str, value: str, traceback: list[str] | None = None) -> dict[str, Any]:
    """Return an output that says that a cell failed.

    Parameters
    ----------
    name, value
        Of the exception.
    traceback
        Its lines; one made of the two when None.
    """
    lines = [f"{name}: {value}"] if traceback is None else traceback
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}


def sentence(output: dict[str, Any]) -> str:
    """Return what an output of kind "error" says, in one line; of an assertion its message alone.

    Parameters
    ----------
    output
        As `error` returns it.
    """
    name, words = (" ".join(output[key].split()) for key in ("ename", "evalue"))
    alone = name == "AssertionError" and words
    return (words if alone else f"{name}: {words}")[:LETTERS].rstrip(": ")


def text(value: Any) -> str:
    """Return a text that UTF-8 can hold, whatever came; nothing for what is no text.

    Parameters
    ----------
    value
        Anything.
    """
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _lines(value: Any) -> list[str]:
    return [text(line) for line in value[:200]] if isinstance(value, list) else []


def _shortened(output: dict[str, Any], limit: int) -> dict[str, Any]:
    kept, room = [], limit
    for line in output["traceback"]:
        kept.append(line[: max(room, 0)])
        room -= len(line)
    return {**output, "ename": output["ename"][:200], "evalue": output["evalue"][:SENTENCE],
            "traceback": [line for line in kept if line]}  # fmt: skip


def _length(output: dict[str, Any]) -> int:
    return len(repr(output))


def _shown(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    data = content.get("data")
    data = data if isinstance(data, dict) else {}
    kept = {"text/plain": text(data.get("text/plain"))}
    kept |= {name: data[name] for name in PICTURES if is_base64(data.get(name))}
    output: dict[str, Any] = {"output_type": kind, "metadata": {}, "data": kept}
    return output | ({"execution_count": None} if kind == "execute_result" else {})


def is_base64(value: Any) -> bool:
    """Say whether a value is a text in base64, which cannot break out of a page's attribute.

    Parameters
    ----------
    value
        Anything.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9+/=\s]+", value):
        return False
    try:
        binascii.a2b_base64(value)
    except binascii.Error:
        return False
    return True
