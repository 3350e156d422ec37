"""What an answer says of its own making: it travels with it, and nothing in it can do harm."""

import json

import pandas as pd
import pytest
import torch

import qlearn
from qlearn import checks
from qlearn.exercises import under
from qlearn.exercises.conditions import processor
from qlearn.system.machine_load import NotedTable

ENGINES = [name for name in torch.backends.quantized.supported_engines if name != "none"]


def settings():
    return torch.get_num_threads(), torch.backends.quantized.engine


@pytest.fixture(autouse=True)
def other_settings():
    """Settings that no default has, put back afterwards."""
    before = settings()
    torch.set_num_threads(1)
    torch.backends.quantized.engine = ENGINES[0]
    yield
    torch.set_num_threads(before[0])
    torch.backends.quantized.engine = before[1]


def measured(threads=7, engine="fbgemm"):
    table = NotedTable({"speedup": [1.0, 2.0]}, index=["fp32", "int8"])
    table.attrs = {"note": "", "threads": threads, "engine": engine}
    return table


def test_a_table_and_its_row_say_what_they_were_measured_with(folder):
    for thing in (measured(), measured().round(2)[["speedup"]], measured().loc["int8"]):
        qlearn.submit("table", thing)
        said = qlearn.answers()["table"].made_with
        assert said == {
            "threads": 7,
            "engine": "fbgemm",
            "processor": processor(),
            "torch": torch.__version__,
        }
    assert qlearn.answers()["table"].load() == {"speedup": 2.0}
    assert "note" not in (folder / "table.json").read_text()


@pytest.mark.parametrize("thing", [1.5, {"a": 1}, "text", pd.DataFrame({"a": [1]})])
def test_anything_else_says_what_is_set_when_it_is_handed_in(thing):
    qlearn.submit("thing", thing)
    said = qlearn.answers()["thing"].made_with
    assert (said["threads"], said["engine"]) == settings()


def test_rows_inside_a_dict_are_dicts():
    qlearn.submit("both", {"one": measured().loc["int8"], "other": 3})
    assert qlearn.answers()["both"].load() == {"one": {"speedup": 2.0}, "other": 3}


@pytest.mark.parametrize("value", [{"value": 1, "made_with": 2}, {"made_with": {}}, None, []])
def test_what_looks_like_a_record_is_handed_in_whole(value):
    qlearn.submit("odd", value)
    assert qlearn.answers()["odd"].load() == value


@pytest.mark.parametrize("old", ["0.25", '{"a": 1}', '{"value": 3}', "null"])
def test_files_of_the_earlier_form_are_read(old, folder):
    folder.mkdir()
    (folder / "old.json").write_text(old)
    answer = checks.exists("old")
    assert answer.load() == json.loads(old) and answer.made_with == {}


def test_an_old_table_is_read(folder):
    folder.mkdir()
    (folder / "old.json").write_text(measured().to_json(orient="split"))
    assert checks.table_has(checks.exists("old"), ["speedup"]).loc["int8", "speedup"] == 2


def test_a_model_knows_the_engine_that_it_was_made_for(folder):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        int8 = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
        qlearn.submit("model", int8, torch.rand(2, 4))
        torch.jit.script(int8)._save_for_lite_interpreter(str(folder / "kept.ptl"))
        qlearn.submit("lite", str(folder / "kept.ptl"), torch.rand(2, 4))
        (folder / "kept.ptl").unlink()
        torch.backends.quantized.engine = ENGINES[0]
        for name in ("model", "lite"):
            answer = qlearn.answers()[name]
            assert answer.made_with["engine"] == engine
            assert checks.runs(answer, torch.rand(5, 4)).shape == (5, 3)
            assert checks.quantized_layers(answer) == {"dynamic linear": 1}
        assert torch.backends.quantized.engine == ENGINES[0]


@pytest.mark.parametrize(
    "record",
    [
        [], "fast", 3, None,
        {"threads": "many", "engine": 5},
        {"threads": None, "engine": "no such engine"},
        {"threads": True, "engine": "none"},
        {"threads": -1, "engine": ["x86"]},
        {"threads": 1.5, "engine": {"x86": 1}},
        {"threads": 0},
    ],
)  # fmt: skip
def test_a_record_that_says_nothing_leaves_the_settings(record, folder):
    folder.mkdir()
    (folder / "odd.json").write_text(json.dumps({"value": 1, "made_with": record}))
    answer, before = checks.exists("odd"), settings()
    with checks.as_measured(answer):
        assert settings() == before
    assert answer.load() == 1


def test_threads_and_engine_are_set_and_put_back(monkeypatch):
    monkeypatch.setattr("qlearn.exercises.conditions.usable_cores", lambda: [0, 1])
    before = settings()
    with under({"threads": 2, "engine": ENGINES[-1]}):
        assert settings() == (2, ENGINES[-1])
    assert settings() == before
    with under({"threads": 10**9}):
        assert settings() == (2, before[1]), "never more threads than cores"
    with pytest.raises(RuntimeError), under({"threads": 2, "engine": ENGINES[-1]}):
        raise RuntimeError
    assert settings() == before
