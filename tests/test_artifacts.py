"""What is handed in can be read back and runs; what cannot is refused in a sentence."""

import copy
import json
import subprocess
import sys
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
from qlearn.artifacts import writing
from qlearn.artifacts.graphs import is_arithmetic, is_operator

HOSTILE = Path(__file__).parent / "grading"
ENGINE = torch.backends.quantized.engine


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "answers"


@pytest.fixture(scope="module")
def images():
    return next(iter(qlearn.loaders(qlearn.data.digits())[1]))[0]


@pytest.fixture(scope="module")
def cnn(base_models):
    return qlearn.pretrained.small_cnn()


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
    with pytest.raises(AssertionError, match="3 of 3 scales in 'int8' are exactly 1"):
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
    assert json.loads((folder / "share.json").read_text()) == 0.25


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


@pytest.mark.parametrize("claimed", ["fast", None, float("nan"), -1, 1000.0, 0.001])
def test_a_made_up_speedup_does_not_hold(cnn, images, claimed):
    with pytest.raises(AssertionError, match="speedup"):
        checks.faster_claim_holds(claimed, cnn, copy.deepcopy(cnn), images)


def test_a_speedup_of_a_model_that_fails_is_refused_in_a_sentence(cnn, images):
    with pytest.raises(AssertionError, match="cannot be measured again, a model fails"):
        checks.faster_claim_holds(1.0, cnn, nn.Linear(3, 3).eval(), images)


def test_an_honest_speedup_holds(cnn, images):
    checks.faster_claim_holds(1.0, cnn, copy.deepcopy(cnn), images)


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


@pytest.fixture(scope="module")
def forge():
    """What the bank of hostile submissions makes its files with."""
    sys.path.insert(0, str(HOSTILE))
    from hostile.artifacts import FORGE

    class Model(nn.Module):
        def forward(self, x):
            return 2 * x

    made = {"Model": Model, "torch": torch, "__name__": "forge"}
    exec(FORGE, made)
    return made


def runs_its_payload(load, file, monkeypatch):
    monkeypatch.setattr(torch, "equal", torch.equal)
    monkeypatch.setattr(torch, "forged", False, raising=False)
    try:
        program = load(file)
        (program.module() if isinstance(program, torch.export.ExportedProgram) else program)(
            torch.ones(2, 3)
        )
    except Exception as error:
        return torch.forged, str(error)
    return torch.forged, ""


@pytest.mark.parametrize(
    ("how", "refused"),
    [
        ("pickled_tensor", "pickled as more than a tensor"),
        ("pickled_object", "no tensor's file"),
        ("pickled_weights", "holds 'data/weights/model.pt'"),
        ("pickled_constants", "holds 'data/constants/model.pt'"),
        ("pickled_inputs", ""),  # they are left out, as the guards are
        ("guard", ""),
        ("expression", "holds an expression that no exported program has"),
    ],
)
def test_a_program_that_runs_code_when_it_is_loaded_runs_none(
    how, refused, forge, folder, monkeypatch
):
    forge["forge"](forge[how])
    file = folder / "first.pt2"
    assert runs_its_payload(torch.export.load, file, monkeypatch)[0], "it should be an attack"
    answer = qlearn.answers()["first"]
    ran, said = runs_its_payload(lambda _: answer.load(), file, monkeypatch)
    assert not ran and refused in said and bool(refused) == bool(said)


@pytest.mark.parametrize("how", ["operator", "native_code"])
def test_a_program_with_what_none_needs_is_refused(how, forge):
    forge["forge"](forge[how])
    with pytest.raises(AssertionError, match="it holds .*hand it in again"):
        checks.exists("first")


def test_native_code_in_a_program_would_be_run(forge, folder, tmp_path):
    code, library, trace = (tmp_path / name for name in ("a.c", "a.so", "ran"))
    code.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) void run(void) "
        f'{{ fclose(fopen("{trace}", "w")); }}'
    )
    made = subprocess.run(["cc", "-shared", "-fPIC", code, "-o", library], capture_output=True)
    if made.returncode:
        pytest.skip("no C compiler")

    def change(parts, program):
        parts["data/aotinductor/model/a.wrapper.so"] = library.read_bytes()
        parts["data/aotinductor/model/a.wrapper_metadata.json"] = b'{"AOTI_DEVICE_KEY": "cpu"}'

    forge["forge"](change)
    with pytest.raises(AssertionError, match="it holds 'data/aotinductor"):
        checks.exists("first")
    assert not trace.exists()
    with pytest.raises(RuntimeError):
        torch.export.load(folder / "first.pt2")
    assert trace.exists(), "it should be an attack"


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("kind", ["plain", "no_grad", "int8_weight_only", "int8_dynamic"])
def test_an_honest_program_comes_back_equal(kind, dynamic, images, base_models, tmp_path):
    from torchao import quantization

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = qlearn.pretrained.mlp()

        def forward(self, x):
            with torch.no_grad():
                return self.model(x) + torch.tensor([1.0])

    model = Shifted().eval() if kind == "no_grad" else qlearn.pretrained.mlp()
    if kind == "int8_weight_only":
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    if kind == "int8_dynamic":
        quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    program = torch.export.export(model, (images,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "honest.pt2")
    qlearn.submit("honest", tmp_path / "honest.pt2", images)
    with torch.no_grad():
        assert torch.equal(qlearn.answers()["honest"].load()(images), program.module()(images))


def test_what_unpacks_to_too_much_is_refused(forge, folder):
    forge["bomb"]()
    path = folder / "first.pt"
    assert path.stat().st_size < 10**6
    assert torch.jit.load(path)(torch.ones(1)) == 2, "it should be an attack"
    with pytest.raises(AssertionError, match="unpacks to 220 MB"):
        checks.exists("first")


def test_onnx_weights_in_another_file_are_refused(forge, folder):
    forge["outside"]()
    assert qlearn.export.onnx_session(folder / "first.onnx")(torch.ones(2, 3)).sum() == 12
    with pytest.raises(AssertionError, match="its weights are in another file"):
        checks.exists("first")


def test_two_files_for_one_answer_are_none(folder):
    qlearn.submit("one", 1)
    (folder / "one.pt").write_bytes(b"")
    with pytest.raises(AssertionError, match="several files .* one.json and one.pt: remove all"):
        checks.exists("one")
    qlearn.submit("one", 2)
    assert checks.exists("one").load() == 2


class Reads(nn.Module):
    def forward(self, x):
        return x + torch.from_file("/etc/hostname", False, 1, dtype=torch.uint8)


class Writes(nn.Module):
    def forward(self, x):
        torch.save(x, "written")
        return x


class Unchecked(nn.Module):
    def forward(self, x):
        place = torch.full([1, 1], 10**12)
        return x + torch.sparse_coo_tensor(place, torch.ones(1), [2]).to_dense()[0]


@pytest.mark.parametrize("suffix", [".pt", ".ptl"])
@pytest.mark.parametrize(
    ("model", "said"), [(Reads, "from_file"), (Writes, "save"), (Unchecked, "sparse_coo_tensor")]
)
def test_a_script_that_does_more_than_compute_is_refused(model, said, suffix, folder):
    folder.mkdir()
    script = torch.jit.script(model())
    path = str(folder / f"first{suffix}")
    script.save(path) if suffix == ".pt" else script._save_for_lite_interpreter(path)
    with pytest.raises(AssertionError, match=f"it calls aten::{said}, and a model may only"):
        checks.exists("first")
    assert not Path("written").exists()


def test_a_script_that_hides_in_a_fork_is_refused(folder):
    class Forks(nn.Module):
        def write(self, x):
            torch.save(x, "written")
            return x

        def forward(self, x):
            return torch.jit.wait(torch.jit.fork(self.write, x))

    folder.mkdir()
    torch.jit.script(Forks()).save(str(folder / "first.pt"))
    with pytest.raises(AssertionError, match="it calls aten::save"):
        checks.exists("first")


def test_a_model_cannot_change_what_it_is_measured_on(folder):
    class Zeroes(nn.Module):
        def forward(self, x):
            return x.zero_()

    folder.mkdir()
    torch.jit.script(Zeroes()).save(str(folder / "first.pt"))
    inputs = torch.ones(2, 3)
    answer = checks.exists("first")
    assert checks.runs(answer, inputs).sum() == 0 and inputs.sum() == 6
    with pytest.raises(AssertionError, match="changes its input"):
        checks.faster_claim_holds(1.0, lambda x: x, answer.load(), inputs)


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system", "torch.builtins.exec", "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default", "torch.ops.aten.linear.__class__", "_operator.methodcaller",
        "torch.ops.aten.sparse_coo_tensor.indices", "math.sin", "#", "torch.ops.image.read_file.x",
    ],
)  # fmt: skip
def test_a_program_may_call_operators_only(target):
    assert not is_operator(target) and is_operator("torch.ops.aten.linear.default")


@pytest.mark.parametrize(
    "text",
    [
        "exec('1')", "__import__('os')", "s0.__class__", "(lambda: 1)()", "[s0 for s0 in s1]",
        "Symbol('s0', positive=exec('1'))", "Symbol('__import__(1)')", "1" * 3000, "(" * 1000,
        "sympify('exec')", "s0 if s1 else s2", "Max(*s0)", "f'{s0}'", "open",
    ],
)  # fmt: skip
def test_an_expression_is_arithmetic(text):
    assert not is_arithmetic(text)
    assert is_arithmetic("Add(Mul(Integer(2), Symbol('s31', positive=True, integer=True)), s0)")


def test_inputs_are_plain_containers(forge):
    """An enumeration among the keys of a dict would have its module imported."""

    def change(parts, program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        key = json.dumps([{"__enum__": True, "fqn": "antigravity:x", "name": "y"}])
        leaf = {"type": "builtins.dict", "context": key, "children_spec": []}
        signature["in_spec"] = json.dumps([1, leaf])

    forge["forge"](change)
    with pytest.raises(AssertionError, match="a structure of inputs that no exported program"):
        checks.exists("first")


def test_many_large_artifacts_are_not_all_read(folder, monkeypatch):
    from qlearn.grading import scratch

    monkeypatch.setattr(scratch, "ANSWERS_MB", 0.002)
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.json").write_bytes(bytes(900))
    kept, left = scratch.collect(folder.parent)
    assert [*kept] == ["a.json", "b.json"] and "c.json was left out: all artifacts" in left[0]
