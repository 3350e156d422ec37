"""A model is loaded and run once for all test cells, and no cell sees what another did."""

from pathlib import Path

import pytest
import torch
from torch import nn

import qlearn
from qlearn import checks
from qlearn.exercises import keeping
from qlearn.exercises.untrusted import scripts


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(keeping, "_models", keeping._Latest(keeping.MODELS_MB))
    monkeypatch.setattr(keeping, "_outputs", keeping._Latest(keeping.OUTPUTS_MB))


@pytest.fixture
def loads(monkeypatch):
    """Paths that were loaded."""
    found, load = [], scripts.load_script
    monkeypatch.setattr(scripts, "load_script", lambda path: found.append(path) or load(path))
    return found


class Counts(nn.Module):
    """Says how often it was called."""

    def __init__(self, start: float = 0.0):
        super().__init__()
        self.register_buffer("calls", torch.tensor(start))

    def forward(self, x):
        self.calls += 1
        return x * 0 + self.calls


def hand_in(start=0.0):
    path = Path("answers") / "model.pt"
    path.parent.mkdir(exist_ok=True)
    torch.jit.script(Counts(start).eval()).save(str(path))
    return qlearn.answers()["model"]


def test_a_file_is_loaded_and_run_once(loads):
    answer, inputs = hand_in(), torch.ones(2, 1)
    for _ in range(3):
        assert checks.runs(checks.exists("model"), inputs).tolist() == [[1], [1]]
    assert checks.runs(answer, torch.ones(3, 1)).tolist() == [[1], [1], [1]]
    assert len(loads) == 1


def test_a_model_that_changes_itself_changes_no_other():
    answer, inputs = hand_in(), torch.ones(1, 1)
    first, second = answer.load(), answer.load()
    assert [first(inputs).item() for _ in range(3)] == [1, 2, 3]
    assert second(inputs).item() == 1 and answer.load()(inputs).item() == 1


def test_an_output_that_is_changed_changes_no_other():
    answer, inputs = hand_in(), torch.ones(1, 1)
    checks.runs(answer, inputs).zero_()
    assert checks.runs(answer, inputs).item() == 1


def test_what_is_handed_in_again_is_read_again(loads):
    inputs = torch.ones(1, 1)
    assert checks.runs(hand_in(0.0), inputs).item() == 1
    assert checks.runs(hand_in(5.0), inputs).item() == 6
    assert checks.runs(hand_in(0.0), inputs).item() == 1
    assert len(loads) == 2, "the first was still known"


def test_other_inputs_types_batches_and_engines_are_other_runs(loads):
    answer = hand_in()
    assert checks.runs(answer, torch.ones(4, 1), batch=2).flatten().tolist() == [1, 1, 2, 2]
    assert checks.runs(answer, torch.ones(4, 1)).flatten().tolist() == [1, 1, 1, 1]
    assert checks.runs(answer, torch.ones(4, 1).double()).dtype == torch.float64
    assert checks.runs(answer, torch.ones(2, 2)).shape == (2, 2)
    quantized = torch.backends.quantized
    before = quantized.engine
    other = next(name for name in quantized.supported_engines if name not in ("none", before))
    try:
        quantized.engine = other
        answer.load()
    finally:
        quantized.engine = before
    assert len(loads) == 2, "packed weights belong to an engine"


def test_what_fails_is_not_kept():
    answer = qlearn.submit("linear", nn.Linear(3, 2).eval(), torch.ones(1, 3))
    for _ in range(2):
        with pytest.raises(AssertionError, match="does not run on"):
            checks.runs(answer, torch.ones(2, 4))
    answer.path.write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(AssertionError, match="cannot be read"):
            checks.runs(answer, torch.ones(2, 3))


def test_no_more_is_kept_than_fits():
    kept = keeping._Latest(10)
    for name in "abc":
        kept.keep(name, name.upper(), 4)
    assert [kept.find(name) for name in "abc"] == [None, "B", "C"]
    kept.find("b"), kept.keep("d", "D", 4)
    assert kept.find("b") == "B" and kept.find("c") is None, "the one used longest ago goes"
    kept.keep("large", 1, 11)
    assert kept.find("large") is None and kept.find("b") == "B"
