"""Grading a class: each submission in sandboxes of its own, many at once, all in one gradebook."""

from qlearn.grading.records import Exercise, Submission, Verdict

__all__ = ["Exercise", "Submission", "Verdict"]
