"""Artifacts that would run code, read files or use up memory where they are scored: refused.

Where PyTorch's own loader runs the payload, the test sees it do so first.
"""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import qlearn
from qlearn import checks
from qlearn.exercises.untrusted.allow_list import is_arithmetic, is_operator
from qlearn.exercises.untrusted.operators import is_harmless
from qlearn.exercises.untrusted.scripts import load_script

HOSTILE = Path(__file__).parents[2] / "grading"


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


class ReadsBeyond(nn.Module):
    def forward(self, x):
        ends = torch.tensor([[10**6]])
        return torch.segment_reduce(x, "sum", lengths=ends, axis=1, unsafe=True)


class WritesBeyond(nn.Module):
    def forward(self, x):
        places = torch.full([1, 1, 1], 10**9)
        return torch.ops.aten.adaptive_max_pool2d_backward(x[None, :1, :1], x[None], places)


class Unwiped(nn.Module):
    def forward(self, x):
        return torch.empty([100, 10]) + x.sum()


class Grown(nn.Module):
    def forward(self, x):
        return x.resize_([1000, 10])


class Unchecked(nn.Module):
    def forward(self, x):
        place = torch.full([1, 1], 10**12)
        return x + torch.sparse_coo_tensor(place, torch.ones(1), [2]).to_dense()[0]


@pytest.mark.parametrize("suffix", [".pt", ".ptl"])
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Reads, "from_file"), (Writes, "save"), (Unchecked, "sparse_coo_tensor"),
        (ReadsBeyond, "segment_reduce"), (WritesBeyond, "adaptive_max_pool2d_backward"),
        (Unwiped, "empty"), (Grown, "resize_"),
    ],
)  # fmt: skip
def test_a_script_that_does_more_than_compute_is_refused(model, said, suffix, folder):
    folder.mkdir()
    script = torch.jit.script(model())
    path = str(folder / f"first{suffix}")
    script.save(path) if suffix == ".pt" else script._save_for_lite_interpreter(path)
    with pytest.raises(AssertionError, match=f"it calls aten::{said}, which no answer may"):
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
        "torch.ops.aten.sparse_coo_tensor.indices", "torch.ops.aten.segment_reduce.default",
        "torch.ops.aten.adaptive_max_pool2d_backward.default", "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.resize_.default", "torch.ops.aten._foreach_add.List", "math.sin",
        "#", "torch.ops.image.read_file.x",
    ],
)  # fmt: skip
def test_a_program_may_call_operators_only(target):
    assert not is_operator(target) and is_operator("torch.ops.aten.linear.default")


@pytest.mark.parametrize(
    "name",
    """
    aten::_reshape_alias aten::_scaled_dot_product_flash_attention_for_cpu aten::ctc_loss
    aten::_ctc_loss aten::_embedding_bag aten::native_batch_norm aten::_weight_norm_interface
    aten::_pad_packed_sequence aten::grid_sampler_2d aten::slow_conv3d aten::_upsample_bilinear2d_aa
    aten::_dyn_quant_matmul_4bit aten::_remove_batch_dim
    quantized::embedding_bag_byte_rowwise_offsets quantized::embedding_bag_4bit_rowwise_offsets
    quantized::embedding_bag_byte quantized::unknown prims::as_strided mkldnn::data_ptr
    sparse::qlinear inductor::_reinterpret_tensor torchao::_scaled_embedding_bag prim::rpc_sync
    prim::MKLDNNLayerNorm quantized_decomposed::unknown
    """.split(),
)
def test_an_operator_that_trusts_what_it_gets_or_is_unknown_is_refused(name):
    assert not is_harmless(*name.split("::"))
    for honest in (
        "aten::scaled_dot_product_attention",
        "quantized::linear",
        "aten::fused_moving_avg_obs_fake_quant",  # of a model prepared for QAT
        "prim::ListConstruct",
    ):
        assert is_harmless(*honest.split("::"))


def test_what_a_model_says_is_read_by_its_author_only(folder, monkeypatch):
    class Tells(nn.Module):
        def forward(self, x):
            if x.size(0) == 1:
                raise RuntimeError(str(int(x[0, 0])))
            return torch.zeros([2, int(x[0, 0]), 1])

    folder.mkdir()
    torch.jit.script(Tells()).save(str(folder / "first.pt"))
    for begun, told in ((None, False), ("ex1", True)):
        monkeypatch.setattr("qlearn.exercises.run.begun", begun)
        for rows, words in ((1, "does not run on"), (2, "must return one tensor")):
            with pytest.raises(AssertionError, match=words) as found:
                checks.runs(checks.exists("first"), torch.full((rows, 3), 4711.0))
            assert ("4711" in str(found.value)) == told


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


class Little(nn.Module):
    def forward(self, x):
        return 2 * x


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        for number in range(60):
            setattr(self, f"f{number}", number)

    def forward(self, x):
        return x * self.f40


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Little(), Large()

    def forward(self, x):
        return self.one(x) + self.two(x)


@torch.jit.script
class Short:
    def __init__(self, n: int):
        self.n = n


@torch.jit.script
class Long:
    def __init__(self, x: torch.Tensor):
        self.a, self.b, self.c, self.d = x, x, x, x


class WithObjects(nn.Module):
    def forward(self, x):
        short, long = Short(2), Long(x)
        return long.d * short.n


def edit_code(model, path, *pairs):
    """Save a scripted model with some of its code replaced."""
    torch.jit.save(torch.jit.script(model), "honest.pt")
    replaced = 0
    with zipfile.ZipFile("honest.pt") as honest, zipfile.ZipFile(path, "w") as edited:
        for name in honest.namelist():
            content = honest.read(name)
            if name.endswith(".py"):
                for old, new in pairs:
                    replaced += content.count(old.encode())
                    content = content.replace(old.encode(), new.encode())
            if not name.endswith(".debug_pkl"):
                edited.writestr(name, content)
    assert replaced, "the code no longer holds what is replaced"


def test_a_submodule_of_another_class_than_declared_is_refused():
    """PyTorch would read a field beyond the object's end."""
    place = f"__torch__.{__name__}"
    edit_code(Pair(), "answers.pt", (f"one : {place}.Little", f"one : {place}.Large"))
    with pytest.raises(ValueError, match=r"it holds \S+Little where its code says \S+Large"):
        load_script(Path("answers.pt"))


class Contains(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts, self.two = nn.ModuleList([Little()]), Large()

    def forward(self, x):
        return self.parts[0](x) + self.two(x)


def test_a_submodule_of_another_class_in_a_container_is_refused():
    """No method of the container itself reads what it holds."""
    place = f'__annotations__["0"] = __torch__.{__name__}'
    edit_code(Contains(), "answers.pt", (f"{place}.Little", f"{place}.Large"))
    with pytest.raises(ValueError, match=r"it holds \S+Little where its code says \S+Large"):
        load_script(Path("answers.pt"))


def test_an_object_that_is_cast_to_another_class_is_refused():
    cast = (
        f"    c = unchecked_cast(__torch__.{__name__}.Long, short)\n    return torch.mul(c.d, 1)\n"
    )
    returns = "    return torch.mul("
    edit_code(WithObjects(), "answers.pt", (returns, cast + returns))
    with pytest.raises(ValueError, match="takes an object for one of another class"):
        load_script(Path("answers.pt"))


class Chooses(nn.Module):
    """Optional arguments, branches, loops and lists, as honest models have them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.scale: float | None = 2.0

    def forward(self, x, mask: torch.Tensor | None = None):
        kept = torch.jit.annotate(list[torch.Tensor], [])
        for layer in self.layers:
            x = layer(x)
            kept.append(x)
        if mask is not None:
            x = x * mask
        scale = self.scale
        if scale is not None:
            x = x * scale
        return x + torch.stack(kept).sum(0)


def test_honest_scripts_load(tmp_path):
    inputs = torch.rand(2, 3)
    for number, model in enumerate((Pair(), Contains(), WithObjects(), Chooses())):
        path = tmp_path / f"{number}.pt"
        torch.jit.script(model.eval()).save(path)
        assert torch.equal(load_script(path)(inputs), model(inputs))


INSTRUCTIONS = [
    (("STOREN", 1, 2), ("LOAD", 1, 0), ("GET_ATTR", 5_000_000, 0), ("RET", 0, 0)),
    (("STOREN", 1, 2), ("LOAD", 2, 0), ("OP", 1_000_000, 0), ("RET", 0, 0)),
    (("STOREN", 1, 2), ("LOAD", 2, 0), ("LOADC", 0, 0), ("OP", 1, 0), ("RET", 0, 0)),
]


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_the_bytecode_that_came_with_a_file_is_not_run(instructions, tmp_path):
    """The interpreter would follow what points outside of its tables, or end the process."""
    content = torch.jit.script(Little())._save_to_buffer_for_lite_interpreter()
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    version, (name, (_, *tables), schema) = pickle.loads(reader.get_record("bytecode.pkl"))
    forged = version, (name, (("instructions", instructions), *tables), schema)
    writer = torch._C.PyTorchFileWriter(str(tmp_path / "lite.ptl"))
    writer.set_min_version(6)
    for record in set(reader.get_all_records()) - {"version", "byteorder", ".data/version"}:
        own = record != "bytecode.pkl" and not record.startswith(".data")
        made = reader.get_record(record) if own else pickle.dumps(forged, protocol=2)
        if own or record == "bytecode.pkl":
            writer.write_record(record, made, len(made))
    writer.write_end_of_file()
    inputs = torch.rand(2, 3)
    answer = qlearn.submit("lite", tmp_path / "lite.ptl", inputs)
    assert torch.equal(answer.load()(inputs), 2 * inputs)
