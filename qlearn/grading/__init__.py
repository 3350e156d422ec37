"""Grading a class: each submission in sandboxes of its own, many at once, all in one gradebook."""

from qlearn.grading.records import Exercise, Submission, Verdict
from qlearn.system import imports

imports.defer()  # for the command line and each worker: both read notebooks

__all__ = ["Exercise", "Submission", "Verdict"]
