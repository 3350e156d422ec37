"""The run of a notebook that answers belong to, and the learner's own variant of an exercise."""

import os
import random
from numbers import Integral

LEARNER = "QLEARN_LEARNER"  # an instructor's word for who the learner is counts more than theirs
EXERCISES = ("ex1", "ex2", "ex3", "ex4", "ex5")
VARIANTS = {
    "ex1": {"channels": range(48, 97, 4), "hidden": range(64, 193, 8)},
    "ex2": {"order": range(6)},
    "ex4": {"first": range(192, 321, 16), "second": range(96, 161, 8)},
}
begun: str | None = None  # the exercise of this process's run
_handed_in: set[str] | None = None  # names of this process's run; None when it has begun none


def start(exercise: str, learner: str | int) -> dict[str, int]:
    """Begin an exercise: answers of an earlier run no longer count, until they are handed in again.

    Parameters
    ----------
    exercise
        "ex1" … "ex5".
    learner
        Your name or student id. It decides the sizes of your own variant, where there are any.
        The environment variable ``QLEARN_LEARNER`` goes before it.

    Returns
    -------
    dict
        What was drawn for this learner, by name; the same for the same learner everywhere.

    Raises
    ------
    ValueError
        If there is no such exercise, or the learner is neither a number nor a text, or empty.
    """
    global begun, _handed_in
    from qlearn.exercises.writing import submit_text

    require_exercise(exercise)
    if isinstance(learner, Integral) and not isinstance(learner, bool):
        learner = str(learner)  # a student id
    said, learner = learner, fixed_learner() or learner
    if not isinstance(learner, str) or not learner.strip():
        shown = "empty" if isinstance(learner, str) else f"a {type(learner).__name__}"
        raise ValueError(
            f'learner is {shown}: give your name or student id as a text, as in "ada".'
        )
    variant = draw(exercise, learner)
    if variant and not same_learner(learner, said):
        print(
            f"Your variant follows from the student id {learner!r}, not from {said!r}: what was "
            "typed in for another does not fit."
        )
    begun, _handed_in = exercise, set()
    submit_text("learner", learner.strip())
    return variant


def require_exercise(exercise: object) -> None:
    """Raise a ValueError when there is no such exercise."""
    if exercise not in EXERCISES:
        raise ValueError(f"There is no exercise {exercise!r}; there are {', '.join(EXERCISES)}.")


def draw(exercise: str, learner: str) -> dict[str, int]:
    """Return a learner's variant of an exercise; without regard to case and spaces around it."""
    numbers = random.Random(f"{exercise} {_plain(learner)}")
    return {name: numbers.choice(some) for name, some in VARIANTS.get(exercise, {}).items()}


def fixed_learner() -> str:
    """Return who the learner is, as an instructor has said; empty when nobody has."""
    return os.environ.get(LEARNER, "")


def same_learner(one: object, other: object) -> bool:
    """Say whether two names draw the same variant."""
    return _plain(str(one)) == _plain(str(other))


def _plain(learner: str) -> str:
    return learner.strip().casefold()


def note(name: str) -> None:
    """Note that this process has handed in an answer."""
    if _handed_in is not None:
        _handed_in.add(name)


def counts(name: str) -> bool:
    """Say whether an answer counts here: it was handed in by this run, or none has begun."""
    return _handed_in is None or name in _handed_in
