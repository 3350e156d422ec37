"""Assertions about speed: ratios that were handed in with intervals, and others measured again."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qlearn.exercises import Answer, under
from qlearn.exercises.checks.claims import number
from qlearn.exercises.conditions import processor
from qlearn.system.errors import explain

# Of timing, for each model, in one measurement after the other before a claim is refused. The first
# is quick, and can only confirm: an interval that is wide for that reason gives no points.
SECONDS = (0.1, 0.3, 0.3)
FACTOR = 3.0  # a claim may lie so far from the measured interval: machines differ
# Or by so much where "faster" was handed in, and "slower" or "the same" measured. An int8 LSTM of
# one millisecond was 0.94 and, in another minute, 1.64 times as fast on a virtual machine.
OPPOSITE = 1.8
SLACK = 4.0  # a ratio of medians and a median of ratios differ by less, on a busy machine too
NOISE = 1.1  # two intervals of the same pair, measured at two times, differ by as much
WIDE = 2.0  # upper by lower end of a measured interval from which nothing follows
# And of one that was handed in. Beside four busy processes `compare` gave 4.8 at most, for an LSTM
# of a tenth of a millisecond; there it notes that the machine was busy, and any width will do.
WIDEST = 8.0


Models = Mapping[str, Callable[..., Any]]


class _Speedup(NamedTuple):
    low: float
    middle: float
    high: float

    @property
    def side(self) -> int:
        """1 above 1, -1 below it, 0 around it."""
        return (self.low > 1) - (self.high < 1)

    @property
    def clear_side(self) -> int:
        """The same, where a gain or a loss within noise counts as none."""
        return (self.low > NOISE) - (self.high < 1 / NOISE)

    def __str__(self) -> str:
        ends = f"{self.low:.3g} to {self.high:.3g}"
        return f"{self.middle:.3g}" if self.low == self.high else f"{self.middle:.3g} ({ends})"


def as_measured(answer: Answer) -> AbstractContextManager[None]:
    """Return a context with the threads and the quantized engine that an answer was made with.

    Load models and measure inside it. What this machine does not have stays as it is.

    Parameters
    ----------
    answer
        A table or a number that was handed in.
    """
    return under(answer.made_with)


def speedups_hold(
    claims: Mapping[str, Any],
    models: Models | Sequence[Models],
    inputs: Tensor,
    factor: float = FACTOR,
    elsewhere: bool = False,
    opposite: float = OPPOSITE,
) -> None:
    """Assert that speedups over the first model agree with those measured now, side by side.

    What counts is the sign: is it faster, slower, or the same beyond the noise? A speedup on the
    side of 1 that is measured here may be off by ``factor``, since machines differ; one on another
    side has to lie in the measured interval, widened by ``opposite`` only. The interval that comes
    with a claim is no help: it could be as wide as its author likes. Where the machine is too busy
    to tell, the claim holds, and a line says so.

    Parameters
    ----------
    claims
        By name, the time of the first model over that of this one: a row or a dict with
        `compare`'s ``speedup``, ``speedup_low`` and ``speedup_high``, or a number.
    models
        Functions of the inputs: first the one that is compared with, then those in ``claims``. Or
        several such, where models can be called in several ways (from Python, as TorchScript)
        and a claim may be about any: it holds if it agrees with one.
    factor
        How many times too large or too small a claim may be.
    elsewhere
        The claims were measured on another kind of processor: there a sign may differ too.
    opposite
        How far from the measured interval one on another side of 1 may lie. Less than the default
        only for models that do nearly the same work, whose ratio does not move with the machine.
    """
    ways = [models] if isinstance(models, Mapping) else models
    open_claims = {name: _claimed(claim, name) for name, claim in claims.items()}
    first = next(iter(ways[0]))
    for seconds, way in itertools.product(SECONDS, ways):
        asked = {n: m for n, m in way.items() if n == first or n in open_claims}
        table = _measured(asked, inputs, seconds)
        ends = table[["speedup_low", "speedup", "speedup_high"]]
        found = {name: _Speedup(*map(float, ends.loc[name])) for name in open_claims}
        far = factor if elsewhere else opposite  # where the two lie on two sides of 1
        wrong = [n for n, c in open_claims.items() if not _agree(c, found[n], factor, far)]
        quick = seconds < SECONDS[-1]
        undecided = {n: why for n in wrong if not quick and (why := _unsteady(table, found[n]))}
        for name, reason in undecided.items():
            print(
                f"For {name!r} a speedup of {open_claims[name]} was handed in, and {found[name]} "
                f"is measured here, but {reason}: so it decides nothing, and the points are given."
            )
        open_claims = {name: open_claims[name] for name in wrong if name not in undecided}
        if not open_claims:
            return
    name, claim = next(iter(open_claims.items()))
    threads = torch.get_num_threads()
    raise AssertionError(
        f"For {name!r} a speedup of {claim} over {first!r} was handed in, and {found[name]} is "
        f"measured here, on {threads} thread{'s' * (threads > 1)} with the engine "
        f"{torch.backends.quantized.engine}: measure again with qlearn.compare and hand in its "
        "speedup, speedup_low and speedup_high."
    )


def faster_claim_holds(
    claimed: Any,
    slow: Callable[..., Any],
    fast: Callable[..., Any],
    inputs: Tensor,
    factor: float = FACTOR,
) -> None:
    """Assert of one claim what `speedups_hold` asserts of several."""
    speedups_hold({"fast": claimed}, {"slow": slow, "fast": fast}, inputs, factor)


def measured_elsewhere(answer: Answer) -> bool:
    """Say whether an answer comes from another kind of processor than this one."""
    return answer.made_with.get("processor", processor()) != processor()


def verdict(speedup: Any, answer: Answer | None = None) -> str:
    """Say "faster", "slower" or "same": where an interval lies above, below or around 1.

    Parameters
    ----------
    speedup, answer
        As in `speedup_of`.
    """
    name = str(getattr(speedup, "name", "the model"))  # a row of a table has one
    return {1: "faster", -1: "slower", 0: "same"}[speedup_of(speedup, name, answer).side]


def speedup_of(claimed: Any, name: str, answer: Answer | None = None) -> _Speedup:
    """Return ``low``, ``middle`` and ``high`` of a claim whose interval says something.

    Parameters
    ----------
    claimed
        A row or a dict with ``speedup``, ``speedup_low`` and ``speedup_high``, or a number.
    name
        What it is the speedup of, for the sentence that refuses it.
    answer
        What it was handed in with: where `compare` noted a busy machine, any width will do.
    """
    claim = _claimed(claimed, name)
    busy = answer is not None and "busy" in answer.made_with
    assert busy or claim.high <= WIDEST * claim.low, (
        f"The speedup of {name!r} is said to lie between {claim.low:.3g} and {claim.high:.3g}, "
        "which says nothing: measure it again with qlearn.compare, with fewer programs beside it."
    )
    return claim


def _agree(claim: _Speedup, found: _Speedup, factor: float, opposite: float) -> bool:
    point = _Speedup(claim.middle, claim.middle, claim.middle)
    wide = factor if point.clear_side == found.clear_side else opposite
    return found.low / wide <= claim.middle <= found.high * wide


def _claimed(claimed: Any, name: str) -> _Speedup:
    """Return a claim with its interval; it is refused in a sentence when it is none."""
    if hasattr(claimed, "to_dict"):  # a row of a table
        claimed = claimed.to_dict()
    if isinstance(claimed, Mapping):
        assert "speedup" in claimed, (
            f"What is claimed of {name!r} lacks 'speedup': hand in the row of qlearn.compare, with "
            "its speedup, speedup_low and speedup_high."
        )
        middle = _positive(f"speedup of {name!r}", claimed["speedup"])
        low, high = (
            _positive(f"{end} of {name!r}", claimed.get(end, middle))
            for end in ("speedup_low", "speedup_high")
        )
    else:
        low = middle = high = _positive(f"speedup of {name!r}", claimed)
    assert low <= middle <= high, (
        f"A speedup lies between its speedup_low and speedup_high, and {middle:.3g} is not between "
        f"{low:.3g} and {high:.3g}: hand in the three as qlearn.compare gives them."
    )
    return _Speedup(low, middle, high)


def _positive(what: str, value: Any) -> float:
    assert number(f"The {what}", value) > 0, (
        f"The {what} is a positive number, and {value} is none: hand in what qlearn.compare gives."
    )
    return float(value)


def _measured(models: Models, inputs: Tensor, seconds: float) -> Any:
    """Compare the models; one that fails or changes its input is refused in a sentence."""
    from qlearn.benchmarking import compare

    kept = inputs.clone()
    try:
        table = compare(models, inputs, seconds=seconds)
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


def _unsteady(table: Any, found: _Speedup) -> str:
    """Say why nothing follows from a measurement; "" when something does."""
    if table.attrs["note"]:
        return "the machine is busy"
    if found.high > WIDE * found.low:
        return f"its ends are more than {WIDE:g} times apart"
    return ""


def latencies_fit(table: Any, first: Any) -> None:
    """Assert that a table's latencies tell of no other speedups than its columns of speedups.

    Parameters
    ----------
    table
        Rows of models with the numbers latency_ms and speedup.
    first
        The row that the speedups are over.
    """
    for name, row in table.iterrows():
        ratio = table.loc[first, "latency_ms"] / row["latency_ms"]
        assert row["speedup"] / SLACK <= ratio <= row["speedup"] * SLACK, (
            f"The latencies of {first!r} and {name!r} are {ratio:.3g} times apart, and the speedup "
            f"of {name!r} is {row['speedup']:.3g}: both should come from one measurement."
        )
