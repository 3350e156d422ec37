"""Claims about speed against a measurement that is made up: no test depends on a real time."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import qlearn
from qlearn import benchmarking, checks
from qlearn.system.machine_load import NotedTable

MODEL, INPUTS = nn.Identity().eval(), torch.rand(2, 3)
COLUMNS = ["speedup", "speedup_low", "speedup_high"]


@pytest.fixture
def machine(monkeypatch):
    """Give what `compare` measures, and count how often it is asked."""
    calls = []

    def set_to(low, high, note=""):
        def compare(models, inputs, **options):
            calls.append((torch.get_num_threads(), torch.backends.quantized.engine, options))
            rows = [[1.0, 1.0, 1.0], [np.sqrt(low * high), low, high]]
            table = NotedTable(rows, index=[*models], columns=COLUMNS)
            table.attrs["note"] = note
            return table

        monkeypatch.setattr(benchmarking, "compare", compare)
        return calls

    return set_to


def row(low, high):
    return dict(zip(COLUMNS, ((low + high) / 2, low, high), strict=True))


@pytest.mark.parametrize(
    ("claim", "factor"),
    [(row(1.8, 2.2), 1.0), (2.0, 1.0), (row(3.5, 4.5), 2.0), (row(1, 3), 1.0),
     (pd.Series(row(1.9, 2.1)), 1.0), (np.float32(2), 1.0), ({"speedup": 2}, 1.0)],
)  # fmt: skip
def test_a_claim_in_the_measured_interval_holds(machine, claim, factor, capsys):
    calls = machine(1.9, 2.1)
    checks.faster_claim_holds(claim, MODEL, MODEL, INPUTS, factor)
    assert len(calls) == 1 and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("claim", "text"),
    [(row(4.4, 5.0), "4.7 (4.4 to 5)"), (row(0.1, 0.9), "0.5 (0.1 to 0.9)"),
     ({"speedup": 9, "speedup_low": 0.01, "speedup_high": 100}, "9 (0.01 to 100)"),
     (100, "100"), (0.01, "0.01")],
)  # fmt: skip
def test_a_claim_that_a_calm_machine_does_not_confirm_is_refused(machine, claim, text, capsys):
    calls = machine(1.9, 2.1)
    with pytest.raises(AssertionError) as refused:
        checks.faster_claim_holds(claim, MODEL, MODEL, INPUTS, 2.0)
    said, (threads, engine, _) = str(refused.value), calls[0]
    assert f"a speedup of {text} over 'slow' was handed in, and 2 (1.9 to 2.1) is measured" in said
    assert f"on {threads} thread" in said and f"engine {engine}" in said and "compare" in said
    assert len(calls) == 3 and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("claim", "measured", "holds"),
    [
        (row(2.3, 2.5), (0.93, 0.99), False),  # the myth of the ResNet
        (row(0.95, 3.5), (0.93, 0.99), False),  # and with an interval that leaves all open
        (row(2.3, 2.5), (1.01, 1.05), False),  # and where noise is on its side
        (row(0.4, 0.5), (0.95, 0.99), False),
        (row(1.01, 1.04), (0.93, 0.99), True),  # both are noise around 1
        (row(0.9, 1.1), (1.3, 1.5), True),
        (row(1.32, 1.42), (0.94, 0.99), True),  # an LSTM, in two minutes of one machine
        (row(1.9, 2.1), (0.94, 0.99), False),
        (row(0.9, 1.1), (3.0, 4.0), False),  # "the same", and it is much faster
        (row(0.5, 0.6), (3.0, 4.0), False),
        (row(5.0, 5.5), (1.9, 2.1), True),  # faster, and how much depends on the machine
        (row(0.2, 0.25), (0.5, 0.6), True),
        (row(0.05, 0.1), (0.5, 0.6), False),
    ],
)
def test_what_counts_is_the_side_of_one(machine, claim, measured, holds):
    machine(*measured)
    if holds:
        return checks.faster_claim_holds(claim, MODEL, MODEL, INPUTS)
    with pytest.raises(AssertionError, match="measure again with qlearn.compare"):
        checks.faster_claim_holds(claim, MODEL, MODEL, INPUTS)
    # On another kind of processor the sign may be another one too, within the factor.
    models = {"slow": MODEL, "fast": MODEL}
    if claim["speedup_high"] * checks.speed.FACTOR > measured[0] > claim["speedup_low"]:
        checks.speedups_hold({"fast": claim}, models, INPUTS, elsewhere=True)


def test_models_that_do_nearly_the_same_work_are_held_more_narrowly(machine):
    machine(0.94, 0.99)
    models, claim = {"slow": MODEL, "fast": MODEL}, {"fast": row(1.45, 1.55)}
    checks.speedups_hold(claim, models, INPUTS)
    with pytest.raises(AssertionError, match=r"1\.5 \(1\.45 to 1\.55\) over 'slow' was handed in"):
        checks.speedups_hold(claim, models, INPUTS, opposite=1.3)


@pytest.mark.parametrize(("claim", "holds"), [(0.9, True), (2.2, True), (9.0, False), (0.2, False)])
def test_a_claim_may_be_about_either_way_of_calling_a_model(monkeypatch, claim, holds):
    """A small MLP: from Python int8 takes as long, as TorchScript half the time."""
    scripted = nn.Identity().eval()

    def compare(models, inputs, **options):
        ends = row(1.9, 2.1) if models["fast"] is scripted else row(0.85, 0.95)
        table = NotedTable([[1.0] * 3, [*ends.values()]], index=["slow", "fast"], columns=COLUMNS)
        table.attrs["note"] = ""
        return table

    monkeypatch.setattr(benchmarking, "compare", compare)
    ways = [{"slow": MODEL, "fast": MODEL}, {"slow": MODEL, "fast": scripted}]
    if holds:
        return checks.speedups_hold({"fast": claim}, ways, INPUTS, 2.0)
    with pytest.raises(AssertionError, match="measure again"):
        checks.speedups_hold({"fast": claim}, ways, INPUTS, 2.0)


@pytest.mark.parametrize(
    ("low", "high", "word"), [(1.1, 2, "faster"), (0.5, 0.9, "slower"), (0.9, 1.1, "same")]
)
def test_a_verdict_is_read_off_the_interval(low, high, word):
    assert checks.verdict(row(low, high)) == word


@pytest.mark.parametrize("ends, tells", [((1.5, 4.5), True), ((0.01, 100), False)])
def test_an_interval_that_says_nothing_is_refused_unless_the_machine_was_busy(ends, tells):
    claim = pd.DataFrame([row(*ends)], index=["int8"])
    for note in ("", "Note: the machine was busy"):
        claim.attrs = {"note": note}
        answer = qlearn.submit("table", claim)
        if tells or note:
            assert checks.speedup_of(claim.loc["int8"], "int8", answer).high == ends[1]
            continue
        with pytest.raises(AssertionError, match="The speedup of 'int8' .* which says nothing"):
            checks.verdict(claim.loc["int8"], answer)


@pytest.mark.parametrize("latency, fits", [(0.5, True), (0.3, True), (0.05, False), (3.0, False)])
def test_latencies_go_with_the_speedups(latency, fits):
    rows = [[1.0, 1.0, 1.0, 1.0], [latency, 2.0, 1.9, 2.1]]
    table = pd.DataFrame(rows, index=["fp32", "int8"], columns=["latency_ms", *COLUMNS])
    if fits:
        return checks.latencies_fit(table, "fp32")
    with pytest.raises(AssertionError, match="should come from one measurement"):
        checks.latencies_fit(table, "fp32")


@pytest.mark.parametrize(
    ("measured", "reason"),
    [((1.9, 2.1, "Note: the machine was busy"), "the machine is busy"),
     ((1.0, 2.5, ""), "more than 2 times apart")],
)  # fmt: skip
def test_an_unsteady_measurement_gives_the_points_and_says_why(machine, measured, reason, capsys):
    calls = machine(*measured)
    checks.faster_claim_holds(row(50, 60), MODEL, MODEL, INPUTS, 2.0)
    quick, longer = (options["seconds"] for _, _, options in calls)
    assert quick < longer, "a quick measurement gives no points away"
    said = capsys.readouterr().out
    assert (
        reason in said and "a speedup of 55 (50 to 60)" in said and "the points are given" in said
    )


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("fast", "'fast' is none"), (None, "'None' is none"), (True, "'True' is none"),
        (-1, "-1 is none"), (float("nan"), "'nan' is none"), (float("inf"), "'inf' is none"),
        ([1, 2], "is none"), ({"time": 2}, "lacks 'speedup'"),
        (row(3, 2), "not between 3 and 2"),
        ({"speedup": 5, "speedup_low": 1, "speedup_high": 2}, "5 is not between 1 and 2"),
        ({"speedup": 2, "speedup_low": "low", "speedup_high": 3}, "speedup_low of 'fast' must be"),
        ({"speedup": 2, "speedup_low": 1, "speedup_high": None}, "speedup_high of 'fast' must be"),
        ({"speedup": 2, "speedup_low": 1, "speedup_high": float("inf")}, "speedup_high"),
    ],
)  # fmt: skip
def test_a_claim_that_is_none_gets_a_sentence(machine, claim, text):
    calls = machine(1.9, 2.1)
    with pytest.raises(AssertionError, match="speedup") as refused:
        checks.faster_claim_holds(claim, MODEL, MODEL, INPUTS)
    assert text in str(refused.value) and not calls


def test_it_is_measured_as_the_claim_was(machine, folder, monkeypatch):
    monkeypatch.setattr("qlearn.exercises.conditions.usable_cores", lambda: [0, 1])
    calls = machine(1.9, 2.1)
    before = torch.get_num_threads(), torch.backends.quantized.engine
    folder.mkdir()
    for engine in torch.backends.quantized.supported_engines:
        for threads in (1, 2):
            made_with = {"threads": threads, "engine": engine}
            file = {"value": row(1.9, 2.1), "made_with": made_with}
            (folder / "speedup.json").write_text(json.dumps(file))
            claim = qlearn.answers()["speedup"]
            with checks.as_measured(claim):
                checks.faster_claim_holds(claim.load(), MODEL, MODEL, INPUTS)
            assert calls[-1][:2] == (threads, engine if engine != "none" else before[1])
            assert calls[-1][2].get("threads") is None, "the threads that are set"
    assert (torch.get_num_threads(), torch.backends.quantized.engine) == before


def test_a_table_of_compare_is_a_claim_as_it_is(images, cnn):
    table = qlearn.compare({"fp32": cnn, "same": cnn}, images, seconds=0.05)
    qlearn.submit("table", table)
    claimed = checks.table_has(checks.exists("table"), COLUMNS, ["fp32", "same"])
    checks.faster_claim_holds(claimed.loc["same"], cnn, cnn, images)


def test_a_model_that_fails_is_refused_in_a_sentence(cnn, images):
    with pytest.raises(AssertionError, match="cannot be measured again, a model fails"):
        checks.faster_claim_holds(1.0, cnn, nn.Linear(3, 3).eval(), images)
