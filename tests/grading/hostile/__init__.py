"""Submissions that try to gain points, to look around, to do harm, or to break the grader.

Each is a submission to the small exercise of `exercise.py`; `work.py` holds those whose cells do
it, `files.py` those whose notebook itself is not what it should be.
"""

from dataclasses import dataclass

from hostile.exercise import EARNED, FIRST, NOTHING, notebook, source


@dataclass(frozen=True)
class Attack:
    """A submission, the points that its artifacts earn, and what the verdict must say."""

    notebook: bytes
    points: dict
    reason: str = ""
    files: tuple = ()


__all__ = ["Attack", "EARNED", "FIRST", "NOTHING", "notebook", "source"]
