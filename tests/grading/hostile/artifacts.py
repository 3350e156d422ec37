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
    """A scripted model whose forward does this; TorchScript needs a file to read the source of."""
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
        "kept: List[torch.Tensor] = []\nfor i in range(10**6):\n"
        "    kept.append(torch.ones(10**6) * i)\nreturn 2 * x"
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
        "qlearn.artifacts.writing._verify = lambda *a: None\n"
        "class Other(torch.nn.Module):\n    def forward(self, x):\n        return 3 * x\n"
        "qlearn.submit('first', Other().eval(), torch.ones(2, 3))"
    ),
}  # fmt: skip
