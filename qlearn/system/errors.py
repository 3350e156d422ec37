"""Exceptions in words, for whoever did not write the code that raised them."""

import contextlib
import io
import linecache
import math
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path

from qlearn.system.causes import CAUSES

PACKAGE = str(Path(__file__).parents[1])
# Frames of a traceback, and files named in a message, that are not the author's.
LIBRARIES = ("site-packages", "dist-packages", "/lib/python", "<", PACKAGE)
MODELS = str(Path(PACKAGE, "models.py"))  # what a learner could have written
OURS = (ValueError, ArithmeticError, OSError, ImportError)  # raised here: whole sentences
PASSED = (*OURS[1:], MemoryError)  # of the system, or a sentence: they stay what they are


class Refusal(ValueError):
    """A model, an input or a file that is refused: its message is the whole explanation."""


def require_positive(name: str, value: object) -> None:
    """Raise a ValueError when an argument is no finite number above 0."""
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}: give a number above 0.")


def require_whole(name: str, value: object) -> None:
    """Raise a ValueError when an argument is no whole number from 1, of Python or NumPy."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}: give a whole number from 1.")


def explain(error: BaseException) -> str:
    """Say what an error means, and what to do, with `name_error`; only that for an unknown one.

    A sentence of this package is returned as it is, without its full stop.

    Parameters
    ----------
    error
        What making, running or exporting a model raised.
    """
    if _is_ours(error):
        return str(error).rstrip(".")
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = " ".join(" ".join(str(link) for link in chain).split())
    code = _find_line(chain)
    # What the author raised explains itself.
    line = f", in the line `{code}`" if code and not code.startswith("raise ") else ""
    for sign, meaning in CAUSES.items():
        if found := re.search(sign, text):
            return f"{meaning.format(*found.groups(), line=line)} ({name_error(chain[-1])})"
    return name_error(chain[-1]) + line


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise an error of the block again, as a ValueError that says what failed, and why.

    This package's own sentences pass, and so do errors of the system.
    """
    held = io.StringIO()
    try:
        # A traced model prints its own traceback before it raises.
        with contextlib.redirect_stderr(held):
            yield
    except Exception as error:
        if isinstance(error, PASSED) or _is_ours(error):
            raise
        held.truncate(0)
        raise ValueError(f"{what}: {explain(error)}.") from error
    finally:
        sys.stderr.write(held.getvalue())


def name_error(error: BaseException) -> str:
    """Return an exception's type and the line of its message that says why, cut after 160."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or ["no message"]
    # TorchScript puts its trace first, and the reason last.
    reason = lines[-1] if "TorchScript" in lines[0] else lines[0]
    reason = reason.removeprefix("builtins.").removeprefix("RuntimeError: ")
    said = textwrap.shorten(reason, 160, placeholder=" …")
    return f"{type(error).__name__}: {said.rstrip('.:')}"


def _is_ours(error: BaseException) -> bool:
    """Say whether code of this package raised an error, whose message is then a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, OURS) and bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _find_line(chain: list[BaseException]) -> str:
    """Return the innermost line of the author's code that the exceptions passed, or ""."""
    for error in reversed(chain):
        # TorchScript compiles, so the author's line is in its message and not in the traceback.
        named = re.findall(r'File "(.+?)", line (\d+)', str(error))
        frames = [
            (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
        for file, number in (*reversed(named), *reversed(frames)):
            if file == MODELS or not any(part in file for part in LIBRARIES):
                line = linecache.getline(file, int(number)).strip()
                return textwrap.shorten(line, 100, placeholder=" …")
    return ""
