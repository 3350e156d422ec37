"""What `qlearn prepare --all` makes for lessons 07 and 08; `qlearn.sweep` has tests of its own."""

import pandas as pd
from typer.testing import CliRunner

from qlearn import cli, pretrained
from qlearn.sweeps import preparation


def test_every_sweep_and_the_study_are_made(monkeypatch, base_models):
    swept = []

    def sweep(model, schemes, samples, *, batch, force):
        swept.append((type(model).__name__, set(schemes) == set(preparation.ALL), batch, force))
        return pd.DataFrame({"accuracy": [0.9, None]})

    monkeypatch.setattr(preparation, "sweep", sweep)
    monkeypatch.setattr(preparation, "keep_study", lambda force: f"made, force {force}")
    states = preparation.prepare_sweeps(force=True)
    assert states.pop("study of few bits") == "made, force True"
    assert states["sweep of phrase_lstm, batch 32"] == "1 of 2 schemes"
    assert len(states) == len(swept) == 5
    assert ("PhraseLSTM", True, 32, True) in swept and ("MLP", True, 1, True) in swept


def test_nothing_is_swept_where_no_model_can_be_kept(monkeypatch):
    monkeypatch.setattr(pretrained, "prepare_all", lambda **_: {"mlp": "not kept"})
    monkeypatch.setattr(preparation, "prepare_sweeps", lambda force: {"a sweep": "made"})
    result = CliRunner().invoke(cli.app, ["prepare", "--all"])
    assert result.exit_code == 1 and "a sweep" not in result.output
    monkeypatch.setattr(pretrained, "prepare_all", lambda **_: {"mlp": "there"})
    result = CliRunner().invoke(cli.app, ["prepare", "--all"])
    assert result.exit_code == 0 and "a sweep" in result.output
