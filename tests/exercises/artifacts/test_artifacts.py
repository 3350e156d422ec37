"""What is handed in can be read back and runs; what cannot is refused in a sentence."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.ao.quantization import (
    QuantWrapper,
    convert,
    fuse_modules,
    get_default_qconfig,
    get_default_qconfig_mapping,
    prepare,
    quantize_dynamic,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import qlearn
from qlearn import checks
from qlearn.exercises import writing

ENGINE = torch.backends.quantized.engine


def static(cnn, images, calibrate=True, stubs=True):
    model = copy.deepcopy(cnn)
    model = QuantWrapper(model).eval() if stubs else nn.Sequential(model).eval()
    name = "module" if stubs else "0"
    groups = [[f"{name}.{part}{i}" for part in ("conv", "bn", "relu")] for i in (1, 2)]
    model = fuse_modules(model, groups)
    model.qconfig = get_default_qconfig(ENGINE)
    prepared = prepare(model)
    if calibrate:
        prepared(images)
    return convert(prepared)


def fx(cnn, images):
    prepared = prepare_fx(copy.deepcopy(cnn), get_default_qconfig_mapping(ENGINE), (images,))
    prepared(images)
    return convert_fx(prepared)


@pytest.mark.parametrize("make", [static, fx, lambda cnn, x: torch.jit.trace(static(cnn, x), x)])
def test_a_static_model_comes_back_equal_and_is_known_for_what_it_is(cnn, images, make, capsys):
    model = make(cnn, images)
    qlearn.submit("int8", model, images)
    assert "Handed in 'int8': TorchScript" in capsys.readouterr().out
    answer = qlearn.answers()["int8"]
    assert torch.equal(checks.runs(answer, images), model(images))
    assert checks.quantized_layers(answer) == {"static conv": 2, "static linear": 1}
    checks.is_quantized(answer, "static conv", 2)
    checks.is_calibrated(answer)
    checks.agrees_with(answer, cnn, images, 0.9)
    with pytest.raises(AssertionError, match="at least 3 static conv layers.*holds: 2 static conv"):
        checks.is_quantized(answer, "static conv", 3)


def test_an_uncalibrated_model_is_found_out(cnn, images):
    answer = qlearn.submit("int8", static(cnn, images, calibrate=False), images)
    with pytest.raises(AssertionError, match="Of 4 scales in 'int8', exactly 1 .*: 4. Run batches"):
        checks.is_calibrated(answer)


def test_dynamic_models(base_models):
    lstm = qlearn.pretrained.phrase_lstm()
    ids = qlearn.data.encode("good morning")[None]
    answer = qlearn.submit("lstm", quantize_dynamic(lstm, {nn.LSTM, nn.Linear}), ids)
    assert checks.quantized_layers(answer) == {"dynamic lstm": 1, "dynamic linear": 1}


def test_a_torchao_model_is_exported_and_takes_other_batches(images, base_models):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = qlearn.pretrained.mlp()
    quantize_(model, Int8WeightOnlyConfig())
    answer = qlearn.submit("weight_only", model, images)
    assert answer.kind == "exported program"
    assert torch.allclose(checks.runs(answer, images[:7]), model(images[:7]), atol=1e-4)


def test_tables_numbers_and_texts_come_back(folder):
    table = pd.DataFrame({"size_mb": [4.0, 1.0]}, index=["fp32", "int8"])
    qlearn.submit("table", table)
    pd.testing.assert_frame_equal(qlearn.answers()["table"].load(), table)
    qlearn.submit("share", torch.tensor(0.25))
    assert qlearn.answers()["share"].load() == 0.25
    qlearn.submit("names", {"skipped": ["conv1"]})
    assert qlearn.answers()["names"].load() == {"skipped": ["conv1"]}
    assert json.loads((folder / "share.json").read_text())["value"] == 0.25


def test_a_second_time_replaces_the_first(cnn, images, folder):
    qlearn.submit("thing", cnn, images)
    qlearn.submit("thing", 3)
    assert [path.name for path in folder.iterdir()] == ["thing.json"]


def test_a_missing_stub_is_explained_and_an_earlier_answer_kept(cnn, images, folder):
    qlearn.submit("int8", 1)
    with pytest.raises(ValueError, match=r"in layer '0.conv1', .*put a QuantStub before it"):
        qlearn.submit("int8", static(cnn, images, stubs=False), images)
    assert qlearn.answers()["int8"].load() == 1
    assert len(list(folder.iterdir())) == 1, "nothing half written stays"


@pytest.mark.parametrize(
    ("thing", "inputs", "message"),
    [
        (nn.Linear(2, 2).eval(), None, "give example_inputs"),
        (nn.Linear(2, 2), torch.rand(1, 2), "training mode"),
        (nn.Linear(2, 2).eval(), torch.rand(1, 3), "do not have the shape"),
        (object(), None, "cannot be handed in"),
    ],
)
def test_submit_refuses(thing, inputs, message):
    with pytest.raises(ValueError, match=message):
        qlearn.submit("x", thing, inputs)
    assert not qlearn.answers()


def test_submit_refuses_names_that_leave_the_folder():
    for name in ("../x", "a/b", "", "A"):
        with pytest.raises(ValueError, match="is no name"):
            qlearn.submit(name, 1)


def test_submit_refuses_what_is_too_large(monkeypatch):
    monkeypatch.setattr(writing, "LIMIT_MB", 0.001)
    with pytest.raises(ValueError, match="the limit is"):
        qlearn.submit("x", list(range(1000)))


def test_a_model_that_is_traced_says_so(capsys):
    class Loops(nn.Module):
        def forward(self, x, *unused):
            return x + len(unused)

    qlearn.submit("x", Loops().eval(), torch.rand(2, 2))
    assert "cannot be scripted" in (said := capsys.readouterr().out) and "was traced" in said


def test_submit_refuses_a_model_that_depends_on_its_surroundings():
    class Counter(nn.Module):
        calls = 0

        def forward(self, x):
            Counter.calls += 1
            return x + Counter.calls

    with pytest.raises(ValueError, match="can neither script nor trace it"):
        qlearn.submit("x", Counter().eval(), torch.rand(2, 2))


def test_what_is_missing_or_unreadable_gets_a_sentence(folder):
    with pytest.raises(AssertionError, match="no answer 'int8' yet: run the work cell"):
        checks.exists("int8")
    folder.mkdir()
    (folder / "int8.pt").write_bytes(b"nonsense")
    (folder / "table.json").write_text("{")
    for name in ("int8", "table"):
        with pytest.raises(AssertionError, match="cannot be read .* hand it in again"):
            checks.exists(name)


def test_checks_name_what_is_wrong(cnn, images, base_models):
    model = qlearn.submit("fp32", cnn, images)
    with pytest.raises(AssertionError, match="holds: none at all"):
        checks.is_quantized(model, "static conv")
    with pytest.raises(AssertionError, match="at most 0.30 times"):
        checks.smaller_than(model, model.size_mb, 0.3)
    checks.smaller_than(model, model.size_mb)
    test = qlearn.loaders(qlearn.data.digits())[1]
    assert checks.accuracy(model, test) == pytest.approx(qlearn.evaluate(cnn, test))
    with pytest.raises(AssertionError, match="at least 99.9% is asked for"):
        checks.accuracy_at_least(model, test, 0.999)
    with pytest.raises(AssertionError, match="does not run on"):
        checks.runs(model, torch.rand(2, 3))


def test_a_model_that_ignores_its_input_is_found_out(images):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(x.shape[0], 10)

    answer = qlearn.submit("constant", Constant().eval(), images)
    with pytest.raises(AssertionError, match="ignores its input"):
        checks.looks_at_its_input(answer, images)


def test_table_has():
    answer = qlearn.submit("table", pd.DataFrame({"a": [1]}, index=["fp32"]))
    assert checks.table_has(answer, ["a"], ["fp32"]).loc["fp32", "a"] == 1
    with pytest.raises(AssertionError, match="lacks the column 'b'; it has a"):
        checks.table_has(answer, ["b"])
    with pytest.raises(AssertionError, match="lacks the row 'int8'"):
        checks.table_has(answer, ["a"], ["int8"])
    twice = qlearn.submit("twice", pd.DataFrame({"a": [1, 2]}, index=["fp32", "fp32"]))
    with pytest.raises(AssertionError, match="the row 'fp32' more than once"):
        checks.table_has(twice, ["a"], ["fp32"])
    with pytest.raises(AssertionError, match="is no table"):
        checks.table_has(qlearn.submit("number", 1), ["a"])


def test_claim_close():
    checks.claim_close("The accuracy", 0.91, 0.912, 0.005)
    checks.claim_close("The accuracy", np.float32(0.91), 0.912, 0.005)
    checks.claim_close("The count", np.int64(3), 3, 0)
    with pytest.raises(AssertionError, match="measured from the artifact it is 0.8"):
        checks.claim_close("The accuracy", 0.91, 0.8, 0.005)
    with pytest.raises(AssertionError, match="finite number"):
        checks.claim_close("The accuracy", "high", 0.8, 0.005)
