"""Three steps of help for each part of each exercise, none of which gives the answer away."""

import tomllib
from pathlib import Path

from qlearn.exercises.run import require_exercise

STEPS = 3


def hint(exercise: str, part: int, step: int = 1) -> None:
    """Print one step of help.

    Parameters
    ----------
    exercise
        "ex1" … "ex5".
    part
        The number of the part, as in the exercise's headings.
    step
        1 says where to look, 2 what to use, 3 how it goes together.

    Raises
    ------
    ValueError
        If there is no such exercise, part or step: the message says which there are.
    """
    folder = Path(__file__).parent
    require_exercise(exercise)
    parts = tomllib.loads((folder / f"{exercise}.toml").read_text(encoding="utf-8"))["parts"]
    if part not in range(1, len(parts) + 1):
        raise ValueError(f"{exercise} has parts 1 to {len(parts)}, and {part!r} is none of them.")
    if step not in range(1, STEPS + 1):
        raise ValueError(f"A part has hints 1 to {STEPS}, and {step!r} is none of them.")
    print(parts[part - 1][step - 1])
    if step < STEPS:
        print(f'(More: qlearn.hint("{exercise}", {part}, step={step + 1}))')
