"""Assertions about speed: a ratio that was handed in with its interval, and one measured again."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qlearn.exercises import Answer, under
from qlearn.system.errors import explain

TRIES = 3  # measurements before a claim is refused
FACTOR = 3.0  # either end of a claimed interval may be off by so much: machines differ
WIDE = 2.0  # upper by lower end of an interval from which nothing follows
SECONDS = 0.3  # of timing, for each model


class _Interval(NamedTuple):
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3g}" if self.low == self.high else f"{self.low:.3g} to {self.high:.3g}"


def as_measured(answer: Answer) -> AbstractContextManager[None]:
    """Return a context with the threads and the quantized engine that an answer was made with.

    Load models and measure inside it. What this machine does not have stays as it is.

    Parameters
    ----------
    answer
        A table or a number that was handed in.
    """
    return under(answer.made_with)


def faster_claim_holds(
    claimed: Any,
    slow: Callable[..., Any],
    fast: Callable[..., Any],
    inputs: Tensor,
    factor: float = FACTOR,
) -> None:
    """Assert that a claimed speedup agrees with one measured now, on the threads now set.

    The interval of the claim, widened by the factor at both ends, has to overlap the interval
    that is measured. Where the machine is too busy to tell, the claim holds, and a line says so.

    Parameters
    ----------
    claimed
        Time of ``slow`` over time of ``fast``, as handed in: a row or a dict with `compare`'s
        ``speedup``, ``speedup_low`` and ``speedup_high``, or a number, which has no width.
    factor
        How many times too large or too small the claim may be.
    """
    claim = _claimed(claimed)
    for _ in range(TRIES):
        table = _measured(slow, fast, inputs)
        found = _Interval(*map(float, table.loc["fast", ["speedup_low", "speedup_high"]]))
        if claim.low / factor <= found.high and found.low <= claim.high * factor:
            return
        if reason := _unsteady(table, found):
            print(
                f"A speedup of {claim} was handed in, and {found} is measured here, but {reason}: "
                "so the measurement decides nothing, and the points are given."
            )
            return
    threads = torch.get_num_threads()
    raise AssertionError(
        f"A speedup of {claim} was handed in, and {found} is measured here, on {threads} "
        f"thread{'s' * (threads > 1)} with the engine {torch.backends.quantized.engine}: measure "
        "again with qlearn.compare and hand in its speedup, speedup_low and speedup_high."
    )


def _claimed(claimed: Any) -> _Interval:
    """Return the interval of a claim; it is refused in a sentence when it is none."""
    if hasattr(claimed, "to_dict"):  # a row of a table
        claimed = claimed.to_dict()
    if isinstance(claimed, Mapping):
        assert "speedup" in claimed, (
            "The claim lacks 'speedup': hand in the row of qlearn.compare, with its speedup, "
            "speedup_low and speedup_high."
        )
        middle = _positive("speedup", claimed["speedup"])
        low, high = (
            _positive(end, claimed.get(end, middle)) for end in ("speedup_low", "speedup_high")
        )
    else:
        low = middle = high = _positive("speedup", claimed)
    assert low <= middle <= high, (
        f"A speedup lies between its speedup_low and speedup_high, and {middle:.3g} is not between "
        f"{low:.3g} and {high:.3g}: hand in the three as qlearn.compare gives them."
    )
    return _Interval(low, high)


def _positive(name: str, value: Any) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    assert number and math.isfinite(value) and value > 0, (
        f"A {name} is a positive number, and {str(value)[:60]!r} is none."
    )
    return float(value)


def _measured(slow: Callable[..., Any], fast: Callable[..., Any], inputs: Tensor) -> Any:
    """Compare the two models; one that fails or changes its input is refused in a sentence."""
    from qlearn.benchmarking import compare

    kept = inputs.clone()
    try:
        table = compare({"slow": slow, "fast": fast}, inputs, seconds=SECONDS)
    except Exception as error:
        raise AssertionError(
            f"The speedup cannot be measured again, a model fails: {explain(error)}."
        ) from None
    # Either model is timed on what the other leaves: it could make that one's work longer.
    assert inputs.shape == kept.shape and inputs.equal(kept), (
        "A model changes its input while it runs, so its speed cannot be measured: have it "
        "work on a copy."
    )
    return table


def _unsteady(table: Any, found: _Interval) -> str:
    """Say why nothing follows from a measurement; "" when something does."""
    if table.attrs["note"]:
        return "the machine is busy"
    if found.high > WIDE * found.low:
        return f"its ends are more than {WIDE:g} times apart"
    return ""
