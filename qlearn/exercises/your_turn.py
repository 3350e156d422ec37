"""What a lesson says of the few lines that a learner writes in it."""

import copy
import dis
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch

Check = Callable[[Any], str | None]
# Each is told the part, whether it is right, and the counterexample (a board, once joined).
listeners: list[Callable[[str, bool, str], None]] = []


def your_turn(part: str, answer: Any, check: Check) -> None:
    """Print whether what a learner wrote is right, with a counterexample when it is not.

    Parameters
    ----------
    part
        Lesson and name, such as "10 GPTQ".
    answer
        The learner's value or function. ``...``, or a function that does nothing, was left alone.
    check
        Takes the answer. Returns None if it is right, else a clause that says for which input it
        is not. An error that the answer raises is a counterexample too.
    """
    if _is_left_alone(answer):
        print("Left alone: the lesson goes on with the reference.")
        return
    try:
        fault = check(answer)
    except Exception as error:
        fault = _stops(error)
    print(f"Not yet: {fault}." if fault else "Right.")
    for listener in listeners:
        listener(part, not fault, f"{fault}." if fault else "")


def against(reference: Callable, cases: Sequence[dict[str, Any]]) -> Check:
    """Return a check that holds a learner's function against the reference.

    Parameters
    ----------
    reference
        Returns a number, a tensor, or a tuple of them.
    cases
        Arguments by name, in the order of the parameters; both functions get copies.
    """

    def check(answer: Callable) -> str | None:
        for case in cases:
            given = ", ".join(f"{name} = {_shown(value)}" for name, value in case.items())
            wanted = _parts(reference(*copy.deepcopy(case).values()))
            try:
                found = _parts(answer(*copy.deepcopy(case).values()))
            except Exception as error:
                return f"with {given} {_stops(error)}"
            fault = _difference(found, wanted)
            if fault:
                return f"with {given} {fault}"
        return None

    return check


def _is_left_alone(answer: Any) -> bool:
    """Tell whether nothing was written: a function of ``...`` loads None and returns it."""
    if not isinstance(answer, FunctionType):
        return answer is ...
    steps = [step for step in dis.get_instructions(answer) if step.opname not in ("RESUME", "NOP")]
    return all(
        step.opname.startswith(("LOAD_CONST", "RETURN_")) and step.argval is None for step in steps
    )


def _stops(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return f"it stops with {type(error).__name__}: {first}"


def _parts(values: Any) -> list[Any]:
    return list(values) if isinstance(values, tuple) else [values]


def _difference(found: list[Any], wanted: list[Any]) -> str | None:
    """Say where two results differ, or return None."""
    if len(found) != len(wanted):
        return f"it returns {len(found)} values instead of {len(wanted)}"
    for number, (mine, right) in enumerate(zip(found, wanted, strict=True), 1):
        value = f"value {number} of it" if len(wanted) > 1 else "it"
        if mine is None or mine is ...:
            return f"{value} is {mine}"
        mine, right = (torch.as_tensor(part).detach().double() for part in (mine, right))
        if mine.shape != right.shape and not mine.numel() == right.numel() == 1:
            return f"{value} has shape {tuple(mine.shape)} instead of {tuple(right.shape)}"
        mine, right = mine.flatten(), right.flatten()
        if not torch.allclose(mine, right, rtol=1e-5, atol=1e-7):
            worst = (mine - right).abs().argmax()
            place = f" at place {int(worst)}" if len(right) > 1 else ""
            return f"{value} is {mine[worst]:.6g}{place} instead of {right[worst]:.6g}"
    return None


def _shown(value: Any) -> str:
    """Write an argument in few characters."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 8:
            return f"a tensor {tuple(value.shape)}"
        value = value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
