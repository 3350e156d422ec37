"""What is handed in can be read back and runs; what cannot is refused in a sentence."""

import copy
import json
import re
from pathlib import Path

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
from qlearn.exercises import run, writing

ENGINE = torch.backends.quantized.engine


class Named:
    """Something that is a path and no `Path`, as what an exporter returns."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


class Says(nn.Module):
    """Gives an output of another form."""

    def __init__(self, model, form):
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x):
        y = self.model(x)
        return y[:, :0] if self.form == 0 else y[:, :, None].expand(-1, -1, 3).contiguous()


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


def test_a_frozen_lite_file_is_told_why_it_is_large(cnn, images, folder):
    frozen = torch.jit.freeze(torch.jit.script(static(cnn, images)))
    for name, module in {
        "frozen": frozen,
        "scripted": torch.jit.script(static(cnn, images)),
    }.items():
        module._save_for_lite_interpreter(f"{name}.ptl")
        answer = qlearn.submit(name, f"{name}.ptl", images[:1])
        with pytest.raises(AssertionError, match="at most 0.10 times") as refused:
            checks.smaller_than(answer, answer.size_mb, 0.1)
        assert ("stand in it twice" in str(refused.value)) == (name == "frozen")


@pytest.mark.parametrize("form", [str, Path, Named])
def test_a_path_is_a_file_in_whatever_form(cnn, images, form):
    torch.jit.script(cnn).save("cnn.pt")
    assert qlearn.submit("cnn", form("cnn.pt"), images).kind == "TorchScript"
    with pytest.raises(ValueError, match="cannot be the file lost.pt"):
        qlearn.submit("cnn", form("lost.pt"), images)
    assert qlearn.answers()["cnn"].load()(images).shape == (len(images), 10)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1.5, "number"), ("wide", "text"), ([1], "list"), ({"a": 1}, "dict"), (None, "missing value"),
     (True, "truth value"), (pd.DataFrame({"a": [1]}), "table")],
)  # fmt: skip
def test_plain_data_is_called_what_it_is(value, kind, capsys):
    assert qlearn.submit("thing", value).kind == kind
    assert f"'thing': {kind}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "place"),
    [({"size": {"a", "b"}}, "fronts['size'] is a set"), ({"size": pd.Index(["a"])}, "['size']"),
     ({"size": pd.Series([1, 2])}, "['size']"), ([[1], torch.ones(2)], "fronts[1] is a Tensor"),
     ({"a": {"b": [object()]}}, "fronts['a']['b'][0] is an object"),
     ({"a": 10**5000}, "fronts['a'] has more than 4000 digits"),
     ({1: "a", "1": "b"}, "fronts has two entries '1'"),
     (pd.Series([1, 2], index=["a", "a"]), "fronts has two entries 'a'"),
     (pd.DataFrame({"a": [{1}]}), "fronts[0]['a'] is a set"),
     (pd.DataFrame({"a": [1, 1j]}, index=["x", "y"]), "fronts['x']['a'] is a complex"),
     (pd.DataFrame({"a": [torch.qint8]}), "fronts[0]['a'] is a dtype"),
     (pd.DataFrame({"a": pd.to_datetime(["2026-01-02"])}), "fronts[0]['a'] is a Timestamp"),
     (pd.DataFrame({"a": [1, 2]}, index=pd.cut([1, 2], 2)), "fronts.index[0] is an Interval")],
)  # fmt: skip
def test_what_cannot_be_handed_in_is_named_with_its_key(value, place):
    with pytest.raises(ValueError, match=re.escape(place)):
        qlearn.submit("fronts", value)


def test_the_same_model_gives_the_same_file(cnn, images):
    first = qlearn.submit("first", cnn, images).path.read_bytes()
    torch.jit.script(cnn).save("first.pt")
    same = [qlearn.submit(name, Path("first.pt"), images).path.read_bytes() for name in ("a", "b")]
    assert same[0] == same[1] and len(first) > len(Path("first.pt").read_bytes())


def test_a_model_of_other_classes_is_near_to_nothing(cnn, images):
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 15)).eval()
    answer = qlearn.submit("other", other, images)
    for check in (checks.agrees_with, checks.is_near):
        with pytest.raises(AssertionError, match=r"another shape, and the original \(\d+, 10\)"):
            check(answer, cnn, images, 0.0)


@pytest.mark.parametrize("form", [0, 3])
def test_an_output_of_another_form_agrees_with_nothing(cnn, images, form):
    qlearn.submit("model", cnn, images)
    # `submit` refuses it, and a file can be written without `submit`.
    torch.jit.trace(Says(cnn, form).eval(), images).save("answers/model.pt")
    answer = qlearn.answers()["model"]
    with pytest.raises(AssertionError, match="must return one tensor with a row of logits"):
        checks.agrees_with(answer, cnn, images, 0.0)


class Unfinished(nn.Module):
    """Lacks the DeQuantStub at its end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.quantize_per_tensor(x.flatten(1), 0.1, 128, torch.quint8)


def test_a_quantized_output_is_called_that_and_what_to_do_is_said(cnn, images):
    qlearn.submit("model", cnn, images)
    with pytest.raises(ValueError, match="returns a quantized tensor.* with a DeQuantStub, or"):
        qlearn.submit("model", Unfinished().eval(), images)
    # A file can be written without `submit`.
    torch.jit.script(Unfinished().eval()).save("answers/model.pt")
    with pytest.raises(AssertionError, match="returns a quantized tensor.* with a DeQuantStub, or"):
        checks.agrees_with(qlearn.answers()["model"], cnn, images, 0.0)


def test_a_number_in_memory_counts_once_whatever_its_shape(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    model.register_buffer("wide", torch.zeros(1, dtype=torch.int8).expand(10**6))
    answer = qlearn.submit("model", torch.jit.trace(model, images), images)
    assert checks.weight_types(answer) == {"float32": 7850, "int8": 1}


def test_floats_beside_int8_layers_are_seen_when_they_run(images):
    first, second = nn.Linear(784, 32), nn.Linear(32, 10)
    float_model = nn.Sequential(nn.Flatten(), first, second).eval()
    half = quantize_dynamic(float_model, {"1"})
    answer = qlearn.submit("model", half, images)
    checks.is_quantized(answer, "dynamic linear")
    assert checks.operators_run(answer, images)["float32 linear"] == 1
    with pytest.raises(AssertionError, match="runs 1 float32 linear beside its int8 layers"):
        checks.is_quantized(answer, "dynamic linear", inputs=images)
    same = qlearn.submit("same", float_model, images)
    with pytest.raises(AssertionError, match="to the last bit"):
        checks.is_near(same, float_model, images, 20)
    whole = qlearn.submit("whole", quantize_dynamic(float_model, {nn.Linear}), images)
    checks.is_quantized(whole, "dynamic linear", at_least=2, inputs=images)
    checks.is_near(whole, float_model, images, 20)


def test_an_lstm_of_16_bit_floats_is_no_int8(base_models):
    lstm, ids = qlearn.pretrained.phrase_lstm(), qlearn.data.encode("good morning")[None]
    half = quantize_dynamic(lstm, {nn.LSTM, nn.Linear}, dtype=torch.float16)
    found = checks.quantized_layers(qlearn.submit("lstm", half, ids))
    assert found == {"float16 lstm": 1, "float16 linear": 1}


def test_one_scale_of_one_is_enough_to_be_found(cnn, images):
    model = static(cnn, images)
    model.module.fc.scale = 1.0
    with pytest.raises(AssertionError, match="exactly 1 as before any calibration: 1"):
        checks.is_calibrated(qlearn.submit("model", model, images))


def test_ranges_that_images_do_not_fill_are_found(cnn, images):
    checks.is_calibrated(qlearn.submit("model", static(cnn, images), images), images)
    wide = qlearn.submit("wide", static(cnn, 4 * images), images)
    with pytest.raises(AssertionError, match="of 256 levels"):
        checks.is_calibrated(wide, images)


def test_dynamic_models(base_models):
    lstm = qlearn.pretrained.phrase_lstm()
    ids = qlearn.data.encode("good morning")[None]
    answer = qlearn.submit("lstm", quantize_dynamic(lstm, {nn.LSTM, nn.Linear}), ids)
    assert checks.quantized_layers(answer) == {"dynamic lstm": 1, "dynamic linear": 1}


def test_a_torchao_model_is_exported_and_takes_other_batches(images, base_models):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = qlearn.pretrained.mlp()
    quantize_(model, Int8WeightOnlyConfig())
    alone = qlearn.submit("alone", model, images[:1])
    assert torch.allclose(checks.runs(alone, images[:7]), model(images[:7]), atol=1e-4)
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


def test_a_table_comes_back_to_the_last_digit():
    values = {"small": [1e-12, 3.1e-11, 0.1 + 0.2], "far": [np.inf, -np.inf, np.nan],
              "whole": [2**53 + 1, 2**62, 0], "said": ["a", None, "c"], "yes": [True, False, True],
              "mixed": [np.float32(0.5), torch.tensor([3]), True]}  # fmt: skip
    qlearn.submit("table", pd.DataFrame(values, index=["x", 2, 0.5]))
    read = qlearn.answers()["table"].load()
    assert list(read.index) == ["x", 2, 0.5] and list(read["mixed"]) == [0.5, 3, True]
    for name in ("small", "far", "whole", "yes"):
        np.testing.assert_array_equal(read[name], values[name])
    assert read["said"].isna().tolist() == [False, True, False]
    qlearn.submit("table", pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}))
    assert qlearn.answers()["table"].load()["a"].isna().tolist() == [False, True]


def test_what_contains_itself_is_refused(folder):
    endless = [1]
    endless.append(endless)
    with pytest.raises(ValueError, match="x contains itself"):
        qlearn.submit("x", endless)
    folder.write_text("")
    with pytest.raises(ValueError, match="answers is a file here"):
        qlearn.submit("x", 1)


@pytest.mark.parametrize("text", ["model.pth", "OK.PT", " results.pte ", "res.csv", "notes.txt"])
def test_a_text_that_names_a_file_is_no_answer(text, folder):
    qlearn.submit("x", 1)
    Path("notes.txt").write_text("")
    with pytest.raises(ValueError, match="'x' cannot be the file"):
        qlearn.submit("x", text)
    assert qlearn.answers()["x"].load() == 1
    qlearn.submit("x", f"It is in {text.strip()}, as asked.")


def test_a_file_of_torch_save_is_named(cnn, images):
    torch.save(cnn.state_dict(), "cnn.PT")
    with pytest.raises(ValueError, match=r"written by torch.save: hand in the model itself"):
        qlearn.submit("cnn", "cnn.PT", images)
    torch.jit.script(cnn).save("cnn.PT")
    assert qlearn.submit("cnn", "cnn.PT", images).path.name == "cnn.pt"


def test_a_second_time_replaces_the_first(cnn, images, folder):
    qlearn.submit("thing", cnn, images)
    qlearn.submit("thing", 3)
    assert [path.name for path in folder.iterdir()] == ["thing.json"]


def test_files_of_the_learners_own_stay(folder):
    qlearn.submit("thing", 1)
    for name in ("thing.csv", "thing.notes.md", "thing.old.json"):
        (folder / name).write_text("")
    qlearn.submit("thing", nn.Linear(2, 2).eval(), torch.rand(1, 2))
    left = {path.name for path in folder.iterdir()}
    assert left == {"thing.pt", "thing.csv", "thing.notes.md", "thing.old.json"}


def test_a_folder_in_the_way_is_named(folder):
    (folder / "thing.json").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"'thing' cannot be written to answers.thing.json"):
        qlearn.submit("thing", 1)


def test_an_address_that_ends_as_a_file_is_a_learner(folder, monkeypatch):
    for name in ("begun", "_handed_in"):  # as they are without a run, for the tests that follow
        monkeypatch.setattr(run, name, None)
    qlearn.start("ex3", "ana@univ.pt")
    assert qlearn.answers()["learner"].load() == "ana@univ.pt"


def test_a_missing_stub_is_explained_and_an_earlier_answer_kept(cnn, images, folder):
    qlearn.submit("int8", 1)
    with pytest.raises(ValueError, match=r"in layer '0.conv1', .*put a QuantStub before it"):
        qlearn.submit("int8", static(cnn, images, stubs=False), images)
    assert qlearn.answers()["int8"].load() == 1
    assert len(list(folder.iterdir())) == 1, "nothing half written stays"


class Constant(nn.Module):
    """Its forward leaves PyTorch, so a trace keeps what it computed once."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.eval()

    def forward(self, x):
        return torch.from_numpy(self.inner(x).detach().numpy())


class Layerless(nn.Module):
    def __init__(self):
        pass

    def forward(self, x):
        return x


TRAINED_PART = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
TRAINED_PART[1].train()
EXPORTED = torch.export.export(nn.Linear(2, 2), (torch.rand(2, 2),))


@pytest.mark.parametrize(
    ("thing", "inputs", "message"),
    [
        (nn.Linear(2, 2).eval(), None, "give example_inputs"),
        (nn.Linear(2, 2), torch.rand(1, 2), "training mode"),
        (nn.Linear(2, 2).eval(), torch.rand(1, 3), "do not have the shape"),
        (nn.DataParallel(nn.Linear(2, 2)).eval(), torch.rand(1, 2), "hand in its .module"),
        (
            nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))).eval(),
            torch.rand(1, 2),
            "remove_parametrizations",
        ),
        (TRAINED_PART, torch.rand(2, 2), "layer '1' of 'x' is in training mode"),
        (EXPORTED.module(), torch.rand(2, 2), "comes from torch.export"),
        (Constant(), torch.rand(2, 2), "the same output for every input"),
        (Layerless(), torch.rand(2, 2), "super"),
        (nn.Linear(2, 2).eval(), torch.rand(0, 2), "are empty"),
        (nn.Linear(2, 2).eval(), [torch.rand(1, 2)], "are a list: give a tensor"),
        (nn.Linear(2, 2).to("meta").eval(), torch.rand(1, 2, device="meta"), "meta device"),
        ("no file", torch.rand(1, 2), "is a text, and example_inputs go with a model"),
        (..., None, "an ellipsis.*put your answer in its place"),
        ([nn.Linear(2, 2)], None, "each model in under a name of its own"),
        (nn.Linear, None, "call it with parentheses"),
        (torch.ones((), device="meta"), None, "is a Tensor"),
        (Path("x" * 300 + ".pt"), None, "cannot be the file"),
        (object(), None, "cannot be handed in"),
        (torch.rand(3), None, "is a Tensor, which cannot be handed in: hand in a model"),
        (nn.Linear(2, 2).state_dict(), None, "cannot be handed in: hand in a model, or its tolist"),
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
    with pytest.raises(AssertionError, match="lacks the column 'b'; it has 'a'"):
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
    with pytest.raises(AssertionError, match="computed here it is 0.8"):
        checks.claim_close("The accuracy", 0.91, 0.8, 0.005)
    with pytest.raises(AssertionError, match="finite number"):
        checks.claim_close("The accuracy", "high", 0.8, 0.005)


def test_an_exported_file_is_handed_in_as_its_report(tmp_path):
    from qlearn import export

    model, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.rand(2, 4)
    made = export.torchscript(model, x, tmp_path / "made.pt")
    assert torch.equal(qlearn.submit("file", made).load()(x), model(x))


def test_a_transformer_is_handed_in_without_its_fast_path():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    parts = nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(12, 3)
    model, x = nn.Sequential(*parts).eval(), torch.rand(2, 3, 4)
    answer = qlearn.submit("transformer", model, x)
    with torch.no_grad():
        assert torch.allclose(answer.load()(x), model(x), atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()
