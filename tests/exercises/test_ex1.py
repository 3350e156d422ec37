"""The tests of exercise 1, tested: right and wrong submissions and what each must lose.

The reference's answers are made once and laid into each submission's folder before its own work
cells run, so that a submission need only hold the cells in which it differs.
"""

import shutil
from pathlib import Path

import pytest
import runner

EXERCISE = "ex1_resnet_dynamic"
RATIO = ["speedup", "speedup_low", "speedup_high"]
VERDICT = """
row = table.loc["int8"]
verdict = "faster" if row.speedup_low > 1 else "slower" if row.speedup_high < 1 else "same"
qlearn.submit("verdict", verdict)
"""
ALL_OF_2 = {"test-2": 2, "test-2-hidden": 2}
ALL_OF_3 = {"test-3": 1, "test-3-share": 1, "test-3-skipped": 2}
ALL_OF_4 = {"test-4": 1, "test-4-share": 1, "test-4-speedup": 1}
ALL_OF_5 = {"test-5": 1, "test-5-hidden": 2}

PER_CHANNEL = """
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
resnet_int8 = quantize_dynamic(resnet, {"fc": per_channel_dynamic_qconfig})
qlearn.submit("resnet_int8", resnet_int8, batch)
"""
FX = """
from torch.ao.quantization import QConfigMapping, default_dynamic_qconfig, quantize_fx
mapping = QConfigMapping().set_object_type(nn.Linear, default_dynamic_qconfig)
prepared = quantize_fx.prepare_fx(resnet, mapping, (batch,))
resnet_int8 = quantize_fx.convert_fx(prepared)
qlearn.submit("resnet_int8", resnet_int8, batch)
"""
TRACED = """
from torch.ao.quantization import quantize_dynamic
resnet_int8 = torch.jit.trace(quantize_dynamic(resnet, {nn.Linear, nn.Conv2d}), images)
qlearn.submit("resnet_int8", resnet_int8, batch)
"""
ONE_LAYER_EXCHANGED = """
import copy
from torch.ao.nn.quantized.dynamic import Linear
from torch.ao.quantization import default_dynamic_qconfig
resnet_int8 = copy.deepcopy(resnet)
resnet_int8.fc.qconfig = default_dynamic_qconfig
resnet_int8.fc = Linear.from_float(resnet_int8.fc)
qlearn.submit("resnet_int8", resnet_int8, batch)
"""
OTHER_ENGINE = """
from torch.ao.quantization import quantize_dynamic
torch.backends.quantized.engine = "onednn"
resnet_int8 = quantize_dynamic(resnet, {nn.Linear})
qlearn.submit("resnet_int8", resnet_int8, batch)
"""
BY_HAND = (
    """
import time
from pathlib import Path
def seconds(model):
    with torch.inference_mode():
        start = time.perf_counter()
        model(batch)
        return time.perf_counter() - start
pairs = [(seconds(resnet), seconds(resnet_int8)) for _ in range(18)][3:]
ratios = sorted(slow / fast for slow, fast in pairs)
def row(model, file, times, speedups):
    torch.jit.save(torch.jit.script(model), file)
    size = Path(file).stat().st_size / 1e6
    hits = sum((model(x).argmax(1) == y).sum().item() for x, y in test)
    ms = round(1000 * sorted(times)[7], 2)
    return [size, ms, hits / len(test.dataset), *speedups, "eager"]
slow, fast = zip(*pairs)
columns = ["size_mb", "latency_ms", "accuracy", "speedup", "speedup_low", "speedup_high", "mode"]
rows = [row(resnet, "fp32.bin", slow, [1, 1, 1]),
        row(resnet_int8, "int8.bin", fast, [ratios[7], ratios[1], ratios[-2]])]
table = pd.DataFrame(rows, columns=columns, index=["fp32", "int8"])
qlearn.submit("table", table)
"""
    + VERDICT
)
ROUNDED = """
found = [[45, 7.0, 0.99, 1, 1, 1], [45, 7.0, 0.99, 1, 1, 1]]
columns = ["size_mb", "latency_ms", "accuracy", "speedup", "speedup_low", "speedup_high"]
qlearn.submit("table", pd.DataFrame(found, columns=columns, index=["fp32", "int8"]))
qlearn.submit("verdict", "same")
"""
TWO_THREADS = (
    """
table = qlearn.compare({"fp32": resnet, "int8": resnet_int8}, batch, test, threads=2, seconds=0.2)
qlearn.submit("table", table)
"""
    + VERDICT
)
WEIGHTS_ONLY = """
from collections import Counter
share = resnet.fc.weight.numel() / sum(p.numel() for p in resnet.parameters())
leaves = [m for m in resnet.modules() if not list(m.children())]
skipped = Counter(type(m).__name__ for m in leaves if list(m.parameters()) and m is not resnet.fc)
qlearn.submit("share", round(share, 6))
qlearn.submit("skipped", skipped)
"""
MLP_SCRIPTED = f"""
from torch.ao.quantization import quantize_dynamic
candidates = qlearn.answers()["candidates"].load()
model, inputs = models["mlp"]
pair = {{"fp32": torch.jit.script(model), "int8": torch.jit.script(quantize_dynamic(model))}}
row = qlearn.compare(pair, inputs, seconds=0.1).loc["int8"]
candidates.loc["mlp", {RATIO}] = row[{RATIO}]
faster, slower = row.speedup_low > 1, row.speedup_high < 1
candidates.loc["mlp", "verdict"] = "faster" if faster else "slower" if slower else "same"
qlearn.submit("candidates", candidates)
"""
CHOOSE = """
from torch.ao.quantization import quantize_dynamic
choice = {choice!r}
model, inputs = models[choice]
pays = {pays}
table = qlearn.compare({{"fp32": model, "int8": pays}}, inputs, seconds=0.1)
qlearn.submit("choice", choice)
qlearn.submit("pays", pays, inputs)
qlearn.submit("speedup", {speedup})
"""


def choose(
    choice: str = "wide",
    pays: str = "quantize_dynamic(model, {nn.Linear, nn.LSTM})",
    speedup: str = "table.loc['int8']",
) -> str:
    return CHOOSE.format(choice=choice, pays=pays, speedup=speedup)


def changed(name: str, change: str) -> str:
    """Read an answer of the reference's, change it, and hand it in again."""
    return f"""
{name} = qlearn.answers()[{name!r}].load()
{change}
qlearn.submit({name!r}, {name})
"""


RIGHT = {
    "per channel, own measurement, the MLP": {
        "work-1": PER_CHANNEL,
        "work-2": BY_HAND,
        "work-5": choose("mlp"),
    },
    "FX, weights only": {
        "work-1": FX,
        "work-3": WEIGHTS_ONLY,
        "work-5": choose(pays="torch.jit.trace(quantize_dynamic(model, {nn.Linear}), inputs)"),
    },
    "traced, asked for convolutions too": {
        "work-1": TRACED,
        "work-4": changed("candidates", "candidates = candidates[::-1].assign(note='')"),
        "work-5": choose(speedup="table.at['fp32', 'latency_ms'] / table.at['int8', 'latency_ms']"),
    },
    "the MLP, measured as TorchScript": {
        "work-4": MLP_SCRIPTED,
        "work-5": choose("mlp", "torch.jit.script(quantize_dynamic(model))").replace(
            '"fp32": model', '"fp32": torch.jit.script(model)'
        ),
    },
    "one layer exchanged by hand, whole numbers": {
        "work-1": ONE_LAYER_EXCHANGED,
        "work-2": ROUNDED,
    },
    "another engine, two threads": {
        "work-1": OTHER_ENGINE,
        "work-2": TWO_THREADS,
        "work-5": choose("mlp", "torch.jit.script(quantize_dynamic(model))"),
    },
}
WRONG = {
    "the float model, renamed": (
        {
            "work-1": "qlearn.submit('resnet_int8', resnet, batch)",
            "work-5": choose(pays="model"),
        },
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_5},
    ),
    "float16 instead of int8, an LSTM that shrinks too little": (
        {
            "work-1": TRACED.replace("nn.Conv2d})", "nn.Conv2d}, dtype=torch.float16)"),
            "work-5": choose("phrase_lstm"),
        },
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_5},
    ),
    "static instead of dynamic, a choice that does not pay": (
        {
            "work-1": """
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx
mapping = get_default_qconfig_mapping("x86")
prepared = quantize_fx.prepare_fx(resnet, mapping, (batch,))
prepared(images)
resnet_int8 = quantize_fx.convert_fx(prepared)
qlearn.submit("resnet_int8", resnet_int8, batch)
""",
            "work-2": BY_HAND,
            "work-5": choose("resnet"),
        },
        # The table is an honest one, of another technique.
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_5},
    ),
    "a model that ignores its input, another model's weights": (
        {
            "work-1": """
from torch.ao.quantization import quantize_dynamic
class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = quantize_dynamic(nn.Sequential(nn.Linear(1, 10)), {nn.Linear})
    def forward(self, x):
        return self.fc(torch.zeros(x.shape[0], 1))
qlearn.submit("resnet_int8", Same().eval(), batch)
""",
            "work-5": choose("mlp", "quantize_dynamic(qlearn.models.MLP().eval())"),
        },
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_2, "test-5-hidden": 2},
    ),
    "a ResNet that was never trained, one of five layers quantized": (
        {
            "work-1": """
from torch.ao.quantization import quantize_dynamic
stranger = qlearn.models.resnet18().eval()
qlearn.submit("resnet_int8", quantize_dynamic(stranger, {nn.Linear}), batch)
""",
            "work-5": choose(pays="quantize_dynamic(model, {'1'})"),
        },
        {"test-1": 2, "test-1-hidden": 1, "test-2": 2, **ALL_OF_5},
    ),
    "latencies and sizes that were hoped for": (
        {
            "work-2": changed(
                "table", f"table.loc['int8', {RATIO}] = [1000, 900, 1100]\n{VERDICT}"
            ),
            "work-4": changed(
                "candidates",
                f"candidates.loc['mixed', {RATIO}] = 1000\n"
                "candidates.loc['mixed', 'verdict'] = 'faster'",
            ),
            "work-5": choose(speedup="{'speedup': 1e4, 'speedup_low': 9e3, 'speedup_high': 2e4}"),
        },
        {"test-2-hidden": 2, "test-4-speedup": 1, "test-5-hidden": 2},
    ),
    "the promise: ten times as fast; a row that was made up": (
        {
            "work-2": changed(
                "table",
                f"table.loc['int8', {RATIO}] = [10, 9, 11]\n"
                f"table.loc['int8', 'latency_ms'] = table.at['fp32', 'latency_ms'] / 10\n{VERDICT}",
            ),
            "work-4": changed(
                "candidates",
                f"candidates.loc['wide', {RATIO}] = [0.04, 0.03, 0.05]\n"
                "candidates.loc['wide', 'verdict'] = 'slower'",
            ),
        },
        {"test-2-hidden": 2, "test-4-speedup": 1},
    ),
    "intervals that say nothing": (
        {
            "work-2": changed(
                "table",
                f"table.loc['int8', {RATIO}] = [10, 0.01, 100]\n"
                "table.loc['int8', 'latency_ms'] = table.at['fp32', 'latency_ms'] / 10\n"
                "qlearn.submit('verdict', 'same')",
            ),
            "work-4": changed(
                "candidates",
                f"candidates[{RATIO}] = [10.0, 0.01, 100.0]\ncandidates['verdict'] = 'same'",
            ),
            "work-5": choose(speedup="{'speedup': 100, 'speedup_low': 0.01, 'speedup_high': 1000}"),
        },
        {"test-2": 2, "test-2-hidden": 2, "test-4": 1, "test-4-speedup": 1, "test-5-hidden": 2},
    ),
    "five times as fast, in an interval that reaches the truth": (
        {
            "work-2": changed(
                "table",
                f"table.loc['int8', {RATIO}] = [5, 0.9, 6]\n"
                "table.loc['int8', 'latency_ms'] = table.at['fp32', 'latency_ms'] / 5\n"
                "qlearn.submit('verdict', 'same')",
            ),
        },
        {"test-2-hidden": 2},
    ),
    "a verdict against its interval": (
        {
            "work-2": changed("verdict", "verdict = 'faster'")
            + changed("table", f"table.loc['int8', {RATIO}] = [1, 0.9, 1.1]"),
            "work-4": changed("candidates", "candidates['verdict'] = 'twice as fast'"),
        },
        {"test-2": 2, "test-4": 1},
    ),
    "a neighbour's model": (
        {
            "work-4": changed(
                "candidates",
                "from qlearn.exercises import draw, random_models\n"
                "theirs = random_models.mixed_cnn(**draw('ex1', 'a neighbour'))\n"
                "own = random_models.mixed_cnn(**mine)\n"
                "def part(model):\n"
                "    numbers = qlearn.models.count_parameters\n"
                "    return sum(map(numbers, (model[5], model[7]))) / numbers(model)\n"
                "assert abs(part(own) - part(theirs)) > 0.05\n"
                "candidates.loc['mixed', 'share'] = part(theirs)\n"
                "candidates.loc['mixed', 'size_ratio'] = 1 / (1 - 0.75 * part(theirs))",
            ),
        },
        {"test-4-share": 1},
    ),
    "a float layer in a quantized one's clothes, a layer that is never called": (
        {
            "work-1": """
import sys, types
from torch.ao.quantization import quantize_dynamic
module = types.ModuleType("my.quantized.dynamic")
class Linear(nn.Linear):
    pass
Linear.__module__ = "my.quantized.dynamic"
import copy
dressed = copy.deepcopy(resnet)
dressed.fc.__class__ = Linear
qlearn.submit("resnet_int8", torch.jit.trace(dressed, batch), batch)
""",
            "work-5": """
from torch.ao.quantization import quantize_dynamic
model, inputs = models["wide"]
class Decoy(nn.Module):
    def __init__(self):
        super().__init__()
        self.real = model
        self.spare = quantize_dynamic(nn.Sequential(nn.Linear(784, 10)).eval(), {nn.Linear})
    def forward(self, x):
        if x.size(0) == 77777:
            return self.spare(x.flatten(1))
        return self.real(x)
qlearn.submit("choice", "wide")
qlearn.submit("pays", torch.jit.script(Decoy().eval()), inputs)
qlearn.submit("speedup", 1.0)
""",
        },
        # Nothing became faster, and that is what is handed in.
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_5},
    ),
    "the size of the promise, share in per cent": (
        {
            "work-2": changed("table", "table.loc['int8', 'size_mb'] = 11.2"),
            "work-3": changed("share", "share *= 100"),
            "work-4": changed("candidates", "candidates['share'] *= 100"),
        },
        {"test-2": 2, "test-3-share": 1, "test-4": 1, "test-4-share": 1},
    ),
    "accuracy on the training set, ReLU counted, ratios and an interval upside down": (
        {
            "work-2": changed("table", "table['accuracy'] = qlearn.evaluate(resnet, train)"),
            "work-3": changed("skipped", "skipped['ReLU'] = 9"),
            "work-4": changed("candidates", "candidates['size_ratio'] **= -1"),
            "work-5": choose(speedup="{'speedup': 3, 'speedup_low': 4, 'speedup_high': 2}"),
        },
        {"test-2": 2, "test-3-skipped": 2, "test-4": 1, "test-4-share": 1, "test-5-hidden": 2},
    ),
    "tables with the wrong columns and rows": (
        {
            "work-2": changed("table", "table = table.rename(columns={'latency_ms': 'seconds'})"),
            "work-3": changed("skipped", "skipped = {'Conv3d': 20}"),
            "work-4": changed("candidates", "candidates = candidates.drop(index='mixed')"),
        },
        {**ALL_OF_2, "test-3": 1, "test-3-skipped": 2, **ALL_OF_4},
    ),
    "no tables but texts and lists": (
        {
            "work-2": changed("table", "table['latency_ms'] = 'fast'"),
            "work-3": "qlearn.submit('share', 'small'); qlearn.submit('skipped', ['Conv2d'])",
            "work-4": "qlearn.submit('candidates', [1, 2, 3])",
            "work-5": "qlearn.submit('choice', ['wide']); qlearn.submit('speedup', None)",
        },
        {**ALL_OF_2, **ALL_OF_3, **ALL_OF_4, **ALL_OF_5},
    ),
    "unreadable and empty files": (
        {
            "work-1": "from pathlib import Path\n"
            "Path('answers/resnet_int8.pt').write_bytes(b'')\n"
            "Path('answers/skipped.json').write_bytes(b'\\xff{')\n"
            "Path('answers/pays.pt').write_bytes(bytes(1000))",
        },
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_2, "test-3": 1, "test-3-skipped": 2, **ALL_OF_5},
    ),
    "answers exchanged": (
        {
            "work-5": "from pathlib import Path\n"
            "Path('answers/pays.pt').replace('answers/other')\n"
            "Path('answers/resnet_int8.pt').replace('answers/pays.pt')\n"
            "Path('answers/other').replace('answers/resnet_int8.pt')"
        },
        {"test-1": 2, "test-1-hidden": 1, **ALL_OF_2, **ALL_OF_5},
    ),
}


# Each test cell and each kind of fault once.
DECISIVE = {
    "the promise: ten times as fast; a row that was made up",
    "a float layer in a quantized one's clothes, a layer that is never called",
    "FX, weights only",
    "the float model, renamed",
    "a ResNet that was never trained, one of five layers quantized",
    "latencies and sizes that were hoped for",
    "no tables but texts and lists",
    "intervals that say nothing",
    "unreadable and empty files",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, runner.Result]:
    """Folder of the reference's answers, and its result."""
    folder = tmp_path_factory.mktemp("reference")
    return folder, runner.grade(EXERCISE, runner.reference(EXERCISE), folder, first=True)


def test_the_reference_gets_full_marks(reference: tuple[Path, runner.Result]) -> None:
    _, result = reference
    assert not result.work_error
    assert not result.messages


@pytest.mark.parametrize("name", runner.cases(RIGHT, DECISIVE))
def test_a_right_way_gets_full_marks(
    name: str, reference: tuple[Path, runner.Result], tmp_path: Path
) -> None:
    result = grade_patch(RIGHT[name], reference[0], tmp_path)
    assert not runner.lost(EXERCISE, result), (result.messages, result.work_error)


@pytest.mark.parametrize("name", runner.cases(WRONG, DECISIVE))
def test_a_wrong_way_loses_exactly_its_points(
    name: str, reference: tuple[Path, runner.Result], tmp_path: Path
) -> None:
    patch, expected = WRONG[name]
    result = grade_patch(patch, reference[0], tmp_path)
    assert runner.lost(EXERCISE, result) == expected, (result.messages, result.work_error)
    runner.assert_every_message_helps(result)


def grade_patch(patch: dict[str, str], reference: Path, folder: Path) -> runner.Result:
    """Grade the reference's answers with some of its work cells replaced and run."""
    shutil.copytree(reference / "answers", folder / "answers")
    unchanged = "from torch.ao.quantization import quantize_dynamic\n"
    unchanged += "resnet_int8 = quantize_dynamic(resnet, {nn.Linear})"
    passing = {f"work-{part}": "pass" for part in range(2, 6)}
    result = runner.grade(EXERCISE, {"work-1": unchanged} | passing | patch, folder)
    assert not result.work_error, result.work_error
    return result
