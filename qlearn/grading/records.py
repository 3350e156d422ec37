"""What travels between the coordinator and its workers: bytes in, bytes out, no shared disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Exercise:
    """An exercise as its author wrote it.

    Attributes
    ----------
    name
        Folder and notebook, such as "ex1_resnet_dynamic".
    source
        nbgrader's source notebook, with solutions and hidden tests, as UTF-8 JSON.
    """

    name: str
    source: bytes


@dataclass(frozen=True)
class Submission:
    """What a student handed in.

    Attributes
    ----------
    student, exercise
        Whose, and of what.
    notebook
        As it came: nothing in it is trusted.
    files
        What else was handed in, by its path relative to the notebook.
    learner
        Name that variants are drawn from; the one in the notebook when empty.
    """

    student: str
    exercise: str
    notebook: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    learner: str = ""


@dataclass(frozen=True)
class Verdict:
    """What grading a submission gave.

    Attributes
    ----------
    student, exercise
        Whose, and of what.
    notebook
        The source's notebook with the student's work cells and the outputs of both kernels, as
        nbgrader keeps it in ``autograded``: points follow from it by nbgrader's own rule.
    points
        By ``grade_id``, of the test cells.
    reason
        Empty, or a sentence for the instructor: why work was stopped or could not be graded.
    cpu_seconds, peak_mb, seconds
        CPU time, largest memory (10**6 bytes) and wall time of both kernels together.
    """

    student: str
    exercise: str
    notebook: bytes
    points: Mapping[str, float]
    reason: str = ""
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0
