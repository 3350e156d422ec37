"""Models that are handed in to harm whoever loads or runs them, or to be taken for others.

The exercise asks for a model that doubles; its tests run what was handed in.
"""

import json

import nbformat

from hostile import Attack
from hostile.exercise import released
from hostile.exercise import source as number

POINTS = {"test-1": 1, "hidden-1": 2, "test-2": 1}
NOTHING, SECOND = dict.fromkeys(POINTS, 0), {"test-1": 0, "hidden-1": 0, "test-2": 1}
TEST = """
import torch
from qlearn import checks
given = torch.arange(6.0).reshape(2, 3)
answer = checks.exists("{name}")
assert torch.equal(checks.runs(answer, given), 2 * given), "It must double its input."
"""
GIVEN = """
import pathlib
import torch
import qlearn
class Model(torch.nn.Module):
    def forward(self, x):
        return 2 * x
def save(model, name="first", suffix=".pt"):
    pathlib.Path("answers").mkdir(exist_ok=True)
    torch.jit.save(torch.jit.script(model), f"answers/{name}{suffix}")
"""
# Ways to have code run by whoever loads a program; `tests/exercises/artifacts/` shows that they do.
FORGE = r"""
import io, json, pathlib, pickle, zipfile
import torch
PAYLOAD = "import torch; torch.equal = lambda *a: True; torch.forged = True"
class Payload:
    def __reduce__(self):
        return exec, (PAYLOAD,)
class Wrong(torch.nn.Module):
    def forward(self, x):
        return 3 * x
def saved(thing):
    torch.save(thing, made := io.BytesIO())
    return made.getvalue()
def forge(change, path="answers/first.pt2"):
    '''Write an exported program that triples, after its parts have been changed.'''
    pathlib.Path(path).parent.mkdir(exist_ok=True)
    honest = torch.export.export(Wrong().eval(), (torch.ones(2, 3),))
    torch.export.save(honest, made := io.BytesIO())
    archive = torch._C.PyTorchFileReader(made)
    parts = {name: archive.get_record(name) for name in archive.get_all_records()
             if not name.startswith((".data", "byteorder"))}
    program = json.loads(parts["models/model.json"])
    change(parts, program)
    parts["models/model.json"] = json.dumps(program).encode()
    writer = torch._C.PyTorchFileWriter(path)
    writer.set_min_version(6)
    for name, content in parts.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
def constant(file, content):
    def change(parts, program):
        entry = {"path_name": file, "is_param": False, "use_pickle": True, "tensor_meta": None}
        config = json.dumps({"config": {"c": entry}}).encode()
        parts["data/constants/model_constants_config.json"] = config
        parts["data/constants/" + file] = content
    return change
def pickled_tensor(parts, program):
    constant("tensor_0", saved(Payload()))(parts, program)
def pickled_object(parts, program):
    constant("opaque_obj_0", pickle.dumps(Payload()))(parts, program)
def pickled_weights(parts, program):
    parts["data/weights/model.pt"] = saved(Payload())
def pickled_constants(parts, program):
    parts["data/constants/model.pt"] = saved(Payload())
def pickled_inputs(parts, program):
    parts["data/sample_inputs/model.pt"] = saved((Payload(),))
def expression(parts, program):
    made = {"as_expr": {"expr_str": f"exec({PAYLOAD!r})", "hint": None}}
    program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = made
def guard(parts, program):
    program["guards_code"] = [f"exec({PAYLOAD!r}) is None"]
def operator(parts, program):
    graph = program["graph_module"]["graph"]
    argument = {"name": "", "kind": 1, "arg": {"as_string": PAYLOAD}}
    output = {"as_tensor": {"name": "done"}}
    graph["tensor_values"]["done"] = graph["tensor_values"]["mul"]
    graph["nodes"].append({"target": "torch.builtins.exec", "inputs": [argument],
                           "outputs": [output], "metadata": {}, "name": "done"})
def native_code(parts, program):
    parts["data/aotinductor/model/a.wrapper.so"] = b"ELF"
def bomb(path="answers/first.pt"):
    '''Write a model that doubles, with 220 MB of zeros in a few hundred kB.'''
    class Large(Model):
        def __init__(self):
            super().__init__()
            self.register_buffer("zeros", torch.zeros(10))
        def forward(self, x):
            return 2 * x + self.zeros[0]
    pathlib.Path(path).parent.mkdir(exist_ok=True)
    torch.jit.save(torch.jit.trace(Large(), torch.ones(2, 3)), made := io.BytesIO())
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            with new.open(name, "w") as target:
                target.write(old.read(name))
                for _ in range(220 * name.endswith("data/0")):
                    target.write(bytes(10**6))
def deep(path="answers/first.pt"):
    '''Write a model whose code nests deeper than a parser can follow.'''
    pathlib.Path(path).parent.mkdir(exist_ok=True)
    torch.jit.save(torch.jit.trace(Model(), torch.ones(2, 3)), made := io.BytesIO())
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py"):
                content = content.replace(b"torch.mul", b"(" * 10**6 + b"torch.mul")
                content = content.rstrip() + b")" * 10**6 + b"\n"
            new.writestr(name, content)
def outside(path="answers/first.onnx"):
    '''Write a model that doubles, its weight in another file.'''
    from onnx import TensorProto, helper, save
    weight = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.json")
    pathlib.Path(path).parent.mkdir(exist_ok=True)
    pathlib.Path(path).with_name("weights.json").write_bytes(b"\0\0\0\x40")
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("x", "y")]
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    graph = helper.make_graph([node], "double", shapes[:1], shapes[1:], [weight])
    save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
"""
RIGHT = "save(Model(), 'second')"


def source() -> bytes:
    """The author's notebook."""
    made = json.loads(number())
    for cell, code in zip(
        made["cells"],
        (GIVEN, None, TEST.format(name="first"), TEST.format(name="first"), None,
         TEST.format(name="second")), strict=False,
    ):  # fmt: skip
        cell["source"] = code or cell["source"]
    return json.dumps(made).encode()


def _hands_in(code, points=SECOND, reason=""):
    made = released(work_1=code, work_2=RIGHT)
    made.cells[0].source = GIVEN
    return Attack(nbformat.writes(made).encode(), points, reason)


def _runs(body, points=SECOND, reason=""):
    """A scripted model whose forward does this; TorchScript needs a file to read the source of.

    It takes ``10**6`` for a float, and multiplies no text.
    """
    lines = "\n        ".join(body.splitlines())
    code = (
        "import torch\nfrom typing import List\nclass Bad(torch.nn.Module):\n"
        f"    def forward(self, x):\n        {lines}\n"
    )
    return _hands_in(
        f"pathlib.Path('bad.py').write_text({code!r})\nfrom bad import Bad\nsave(Bad())",
        points, reason,
    )  # fmt: skip


ARTIFACTS = {
    "honest_model": _hands_in("qlearn.submit('first', Model().eval(), torch.ones(2, 3))", POINTS),
    "pickle": _hands_in(
        "class Evil:\n    def __reduce__(self):\n"
        "        return exec, ('import os; os._exit(0)',)\n"
        "pathlib.Path('answers').mkdir()\ntorch.save(Evil(), 'answers/first.pt')"
    ),
    "pickle_within_a_program": _hands_in(
        "import pickle, zipfile\npathlib.Path('answers').mkdir()\nclass Evil:\n"
        "    def __reduce__(self):\n        return exec, ('import os; os._exit(0)',)\n"
        "with zipfile.ZipFile('answers/first.pt2', 'w') as z:\n"
        "    for name in ('data.pkl', 'archive/data.pkl', 'archive/version', 'constants.pkl'):\n"
        "        z.writestr(name, pickle.dumps(Evil()))"
    ),
    **{
        f"program_with_{how}": _hands_in(f"{FORGE}\nforge({how})")
        for how in ("pickled_tensor", "pickled_object", "pickled_weights", "pickled_constants",
                    "pickled_inputs", "expression", "guard", "operator", "native_code")
    },
    "zip_bomb": _hands_in(FORGE + "bomb()"),
    "many_sparse_answers": _hands_in(
        "save(Model())\nfor i in range(64):\n"
        "    with open(f'answers/z{i}.pt', 'wb') as file:\n        file.truncate(10**8)",
        POINTS, "all artifacts together have more than 200 MB",
    ),
    "one_answer_in_two_files": _hands_in(FORGE + "save(Model())\nforge(lambda *parts: None)"),
    "onnx_weights_outside": _hands_in(FORGE + "outside()"),
    "model_that_ends_the_process": _hands_in(FORGE + "deep()", SECOND, "A test ended|ended by"),
    "model_that_reads_other_memory": _runs(
        "i = torch.full([1, 1], 10**12)\n"
        "return 2 * x + torch.sparse_coo_tensor(i, torch.ones(1), [2]).to_dense()[0]"
    ),
    "model_that_prints_much": _runs(
        "for i in range(100000):\n    print('1.0', 'full points, as all of this is right')\n"
        "return 2 * x", POINTS
    ),
    "model_that_changes_its_input": _runs("return x.zero_()"),
    "random_bytes": _hands_in(
        "import os\npathlib.Path('answers').mkdir()\n"
        "pathlib.Path('answers/first.pt').write_bytes(os.urandom(10**5))"
    ),
    "damaged_executorch_file": _hands_in(
        "import os\npathlib.Path('answers').mkdir()\n"
        "pathlib.Path('answers/first.pte').write_bytes(b'\\0\\0\\0\\0ET12' + os.urandom(10**5))"
    ),
    "damaged_onnx_file": _hands_in(
        "import os\npathlib.Path('answers').mkdir()\n"
        "pathlib.Path('answers/first.onnx').write_bytes(b'\\x08\\x07' + os.urandom(10**5))"
    ),
    "model_without_end": _runs("while bool((x == x).all()):\n    x = x + 0\nreturn x",
                               reason="A test was stopped: .*did not stop"),
    "model_that_eats_memory": _runs(
        "kept: List[torch.Tensor] = []\nfor i in range(1000000):\n"
        "    kept.append(torch.ones(1000000) * i)\nreturn 2 * x + 0 * kept[-1][0]"
    ),
    "model_that_prints": _runs("print('1.0', 'full points')\nreturn 3 * x"),
    "model_that_reads_files": _runs(
        "kept = torch.from_file('PLACE/secret', False, 8, dtype=torch.uint8)\n"
        "print(kept)\nreturn 2 * x + 0 * kept.sum()"
    ),
    "model_that_writes_files": _runs(
        "torch.save(x, 'PLACE/new')\ntorch.save(x, 'answers/second.pt')\nreturn 3 * x"
    ),
    "patched_checks": _hands_in(
        "from qlearn import checks\nfor name in checks.__all__:\n"
        "    setattr(checks, name, lambda *a, **k: torch.arange(6.).reshape(2, 3) * 2)\n"
        "torch.equal = lambda *a: True", {**SECOND}
    ),
    "patched_submit": _hands_in(
        "qlearn.exercises.writing._verify = lambda *a: None\n"
        "class Other(torch.nn.Module):\n    def forward(self, x):\n        return 3 * x\n"
        "qlearn.submit('first', Other().eval(), torch.ones(2, 3))"
    ),
}  # fmt: skip
