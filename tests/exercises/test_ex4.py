"""A bank of submissions to exercise 4, each with the points it must lose."""

import shutil
from itertools import zip_longest
from pathlib import Path

import pytest
import runner

EXERCISE = "ex4_schemes"
HANDED_IN = {
    "work-1": ["fp32", "bf16", "fp16"],
    "work-2": ["int8_dynamic", "int8_weight_only"],
    "work-3": ["int8_tensor", "int8_channel"],
    "work-4": ["schemes"],
    "work-5": ["fronts"],
    "work-6": ["choices"],
}
MODELS = ["work-1", "work-2", "work-3"]
FOLLOWING = ["work-4", "work-5", "work-6"]
ALL_OF_3 = {"test-3-static": 2, "test-3-scales": 1, "hidden-3": 1}
ALL_OF_4_TO_6 = {
    "test-4-measured": 2,
    "test-4-latency": 1,
    "test-5": 1,
    "hidden-5": 1,
    "test-6": 1,
    "hidden-6": 1,
}

SETUP = """
import copy
import torch.ao.quantization as tq
from torch import nn
from torchao.quantization import *

class Cast(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)

def half(model, dtype):
    inner = copy.deepcopy(model).to(dtype)
    return nn.Sequential(Cast(dtype), inner, Cast(torch.float32)).eval()

def torchao(config):
    quantized = copy.deepcopy(model)
    quantize_(quantized, config)
    return quantized

def eager(qconfig, batches=calibration, wrap=tq.QuantWrapper):
    wrapped = wrap(copy.deepcopy(model)).eval()
    wrapped.qconfig = qconfig
    prepared = tq.prepare(wrapped)
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    return tq.convert(prepared)

def fx(mapping):
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(copy.deepcopy(model), mapping, (images,))
    with torch.no_grad():
        for batch in calibration:
            prepared(batch)
    return convert_fx(prepared)

def weights(observer, activation=tq.get_default_qconfig("x86").activation):
    return tq.QConfig(activation, observer)

TENSOR = weights(tq.default_weight_observer)
CHANNEL = weights(tq.default_per_channel_weight_observer)
FLOATS = {"fp32": model, "bf16": half(model, torch.bfloat16), "fp16": half(model, torch.float16)}
def floats(**other):
    for name, thing in (FLOATS | other).items():
        qlearn.submit(name, thing, images)

def static(tensor, channel):
    qlearn.submit("int8_tensor", tensor, images)
    qlearn.submit("int8_channel", channel, images)

def free(dynamic=None, weight_only=None):
    dynamic = dynamic or tq.quantize_dynamic(model, {nn.Linear})
    qlearn.submit("int8_dynamic", dynamic, images)
    qlearn.submit("int8_weight_only", weight_only or torchao(Int8WeightOnlyConfig()), images)
"""
TABLE = "schemes = qlearn.answers()['schemes'].load()\n"

RIGHT_WAYS = {
    "frozen TorchScript": {
        "work-1": "floats(bf16=torch.jit.freeze(torch.jit.script(FLOATS['bf16'])))"
    },
    "16 bits as exported program": {
        "work-1": "dynamic = ({0: torch.export.Dim.AUTO},)\n"
        "inputs = (images[:4],)\n"
        "program = torch.export.export(FLOATS['fp16'], inputs, dynamic_shapes=dynamic)\n"
        "floats(fp16=program)"
    },
    "16 bits, traced": {"work-1": "floats(bf16=torch.jit.trace(FLOATS['bf16'], images))"},
    "dynamic per channel and torchao's other int8": {
        "work-2": "per_channel = {nn.Linear: tq.per_channel_dynamic_qconfig}\n"
        "free(tq.quantize_dynamic(model, per_channel),\n"
        "     torchao(IntxWeightOnlyConfig(weight_dtype=torch.int8)))"
    },
    "FX and min-max observers": {
        "work-3": "least = tq.MinMaxObserver.with_args(quant_max=127)\n"
        "both = [weights(w, least) for w in (tq.default_weight_observer,\n"
        "                                    tq.default_per_channel_weight_observer)]\n"
        "static(*[fx(tq.QConfigMapping().set_global(q)) for q in both])"
    },
    # Not onednn's, whose range saturates the sums of a CPU without VNNI.
    "not fused, qconfigs of other engines": {
        "work-3": "static(eager(tq.get_default_qconfig('qnnpack')),\n"
        "       eager(tq.get_default_qconfig('fbgemm')))"
    },
    "table by hand, in another order and with more columns": {
        "work-4": """
from torch.utils.benchmark import Timer
rows = {}
for name in reversed(NAMES):
    answer = qlearn.answers()[name]
    loaded, reference = answer.load(), qlearn.answers()["fp32"].load()
    with torch.no_grad():
        both = {"loaded": loaded, "reference": reference, "images": images}
        own, whole = (Timer(f"{which}(images)", globals=both) for which in ("loaded", "reference"))
        pairs = [(own.timeit(50).median, whole.timeit(50).median) for _ in range(9)]
        ratios = sorted(slow / fast for fast, slow in pairs)
        ms = 1e3 * sorted(fast for fast, _ in pairs)[4]
        parts = [(loaded(x), reference(x), y) for x, y in test]
    got, wanted, y = (torch.cat(part) for part in zip(*parts))
    right = (got.argmax(1) == y).double().mean().item()
    rows[name] = {"kind": answer.kind, "sqnr_db": qlearn.sqnr(wanted, got), "accuracy": right,
                  "size_mb": answer.size_mb, "latency_ms": ms, "speedup": ratios[4],
                  "speedup_low": ratios[1], "speedup_high": ratios[-2]}
qlearn.submit("schemes", pd.DataFrame(rows).T.infer_objects())
"""
    },
    "fronts by sorting, best first": {
        "work-5": TABLE
        + """
def front(table, small, large):
    best, names = -1, []
    table = table.fillna({large: float("inf")})
    for _, group in table.sort_values(small).groupby(small):
        top = group[large].max()
        if top > best:
            best, names = top, [*group.index[group[large] == top][:1]] + names
    return names
fronts = {"size": front(schemes, "size_mb", "sqnr_db"),
          "latency": front(schemes, "latency_ms", "accuracy"),
          "published": front(published, "size_mb", "accuracy")}
qlearn.submit("fronts", fronts)
"""
    },
}

RIGHT = {name: (patch, {}) for name, patch in RIGHT_WAYS.items()}

WRONG = {
    "a row that was made up and dominates all": (
        {
            "work-4": """%s
made_up = {"size_mb": 1e-4, "latency_ms": 1e-6, "accuracy": 1.0, "sqnr_db": 200.0}
schemes.loc["int2"] = {column: made_up.get(column, 1.0) for column in schemes}
qlearn.submit("schemes", schemes)
"""
        },
        {"test-5": 1, "hidden-5": 1, "test-6": 1, "hidden-6": 1},
    ),
    "a float model renamed": (
        {"work-1": "floats(fp16=model)"},
        {"test-1": 2, "hidden-1": 1},
    ),
    "bf16 that returns bf16": (
        {"work-1": "floats(bf16=FLOATS['bf16'][:2].eval())"},
        {"test-1": 2},
    ),
    "fp16 in name: weights packed, stored and computed in float32": (
        {"work-1": "floats(fp16=tq.quantize_dynamic(model, {nn.Linear}, dtype=torch.float16))"},
        {"test-1": 2, "hidden-1": 1},
    ),
    "16-bit weights, computed in 32": (
        {
            "work-1": """
class Stored(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model).to(torch.float16)
    def forward(self, x):
        x = x.flatten(1)
        for layer in (self.model.fc1, self.model.fc2):
            x = nn.functional.linear(x, layer.weight.float(), layer.bias.float()).relu()
        last = self.model.fc3
        return nn.functional.linear(x, last.weight.float(), last.bias.float())
floats(fp16=torch.jit.trace(Stored(model).eval(), images))
"""
        },
        {"test-1": 2},
    ),
    "a neighbour's model": (
        {
            "work-1": """
from qlearn.exercises import draw
model = qlearn.models.MLP(**draw("ex4", "a neighbour"))
qlearn.fit(model, train, epochs=5, learning_rate=2e-3)
model.eval()
FLOATS = {"fp32": model, "bf16": half(model, torch.bfloat16), "fp16": half(model, torch.float16)}
floats()
""",
            "work-2": "free()",
            "work-3": "static(eager(TENSOR), eager(CHANNEL))",
        },
        {"hidden-1": 1},
    ),
    "bf16 and fp16 exchanged": (
        {"work-1": "floats(bf16=FLOATS['fp16'], fp16=FLOATS['bf16'])"},
        {"test-1": 2},
    ),
    "16 bits without a cast at the entrance": (
        {"work-1": "floats(bf16=copy.deepcopy(model).to(torch.bfloat16))"},
        {"test-1": 2, "hidden-1": 1} | ALL_OF_4_TO_6,
    ),
    "dynamic, but of 16 bits": (
        {"work-2": "free(tq.quantize_dynamic(model, {nn.Linear}, dtype=torch.float16))"},
        {"test-2-dynamic": 1, "hidden-2": 1},
    ),
    "dynamic, one layer only": (
        {"work-2": "free(tq.quantize_dynamic(model, {'fc1'}))"},
        {"test-2-dynamic": 1},
    ),
    "torchao with activations too": (
        {"work-2": "free(weight_only=torchao(Int8DynamicActivationInt8WeightConfig()))"},
        {"test-2-weights": 1},
    ),
    "weight-only by the legacy API": (
        {"work-2": "free(weight_only=tq.quantize_dynamic(model, {nn.Linear}))"},
        {"test-2-weights": 1},
    ),
    "weight-only: the float model exported": (
        {
            "work-2": "free(weight_only=torch.export.export(model, (images,),\n"
            "     dynamic_shapes=({0: torch.export.Dim.AUTO},)))"
        },
        {"test-2-weights": 1, "hidden-2": 1},
    ),
    "a model that ignores its input": (
        {"work-2": "free(tq.quantize_dynamic(nn.Sequential(model, nn.Threshold(99, 0)).eval()))"},
        {"test-2-dynamic": 1, "hidden-2": 1},
    ),
    "an exported program with its example inputs": (
        {
            "work-2": "free()\n"
            "program = torch.export.export(torchao(Int8WeightOnlyConfig()), (images,),\n"
            "     dynamic_shapes=({0: torch.export.Dim.AUTO},))\n"
            "torch.export.save(program, 'own.pt2')\n"
            "qlearn.submit('int8_weight_only', 'own.pt2', images)"
        },
        {"hidden-2": 1},
    ),
    "a text for the float model": (
        {"work-1": "floats()\nqlearn.submit('fp32', 'the model')"},
        {"test-1": 2, "hidden-1": 1, "test-2-dynamic": 1, "test-2-weights": 1, "hidden-2": 1}
        | {"test-3-static": 2, "hidden-3": 1}
        | ALL_OF_4_TO_6,
    ),
    "one scale and many exchanged": (
        {"work-3": "static(eager(CHANNEL), eager(TENSOR))"},
        {"test-3-scales": 1},
    ),
    "the default qconfig twice": (
        {"work-3": "static(eager(CHANNEL), eager(CHANNEL))"},
        {"test-3-scales": 1},
    ),
    "calibrated on even noise": (
        {"work-3": "static(*[eager(q, [3 * torch.rand(640, 784)]) for q in (TENSOR, CHANNEL)])"},
        {"test-3-static": 2},
    ),
    "no calibration": (
        {"work-3": "static(eager(TENSOR, []), eager(CHANNEL, []))"},
        {"test-3-static": 2},
    ),
    "calibrated on noise": (
        {"work-3": "static(*[eager(q, [100 * torch.randn(64, 784)]) for q in (TENSOR, CHANNEL)])"},
        {"test-3-static": 2, "hidden-3": 1},
    ),
    "dynamic instead of static": (
        {"work-3": "d = tq.quantize_dynamic(model, {nn.Linear})\nstatic(d, d)"},
        {"test-3-static": 2, "test-3-scales": 1},
    ),
    "static, one layer only": (
        {
            "work-3": "static(*[fx(tq.QConfigMapping().set_module_name('fc1', q))\n"
            "         for q in (TENSOR, CHANNEL)])"
        },
        ALL_OF_3,
    ),
    "stubs missing": (
        {"work-3": "static(*[eager(q, wrap=nn.Sequential) for q in (TENSOR, CHANNEL)])"},
        ALL_OF_3 | ALL_OF_4_TO_6,
    ),
    "not quantized at all": (
        {"work-3": "static(model, model)"},
        ALL_OF_3,
    ),
    "a model of another exercise": (
        {
            "work-3": "model = qlearn.pretrained.small_cnn()\n"
            "static(*[fx(tq.QConfigMapping().set_global(q)) for q in (TENSOR, CHANNEL)])"
        },
        {"test-3-static": 2, "test-3-scales": 1},
    ),
    "size of something else": (
        {
            "work-4": "%s\nschemes['size_mb'] = [qlearn.model_size(m) for m in shipped.values()]\n"
            "qlearn.submit('schemes', schemes)"
        },
        {"test-4-measured": 2},
    ),
    "latency is a text": (
        {
            "work-4": "%s\nschemes = schemes.astype({'latency_ms': str})\n"
            "qlearn.submit('schemes', schemes)"
        },
        ALL_OF_4_TO_6,
    ),
    "accuracy on the training set": (
        {
            "work-4": "%s\nschemes['accuracy'] = qlearn.compare(shipped, images, train,\n"
            "     seconds=0.01).accuracy\nqlearn.submit('schemes', schemes)"
        },
        {"test-4-measured": 2},
    ),
    "made-up speedup": (
        {
            "work-4": "%s\nschemes.loc['fp16', 'latency_ms'] /= 1000\n"
            "schemes.loc['fp16', ['speedup', 'speedup_low', 'speedup_high']] = [1e3, 9e2, 2e3]\n"
            "qlearn.submit('schemes', schemes)"
        },
        {"test-4-latency": 1},
    ),
    "a row that was made up": (
        {
            "work-4": "%s\nschemes.loc['int8_dynamic', 'latency_ms'] *= 1000\n"
            "ratios = ['speedup', 'speedup_low', 'speedup_high']\n"
            "schemes.loc['int8_dynamic', ratios] /= 1000\n"
            "qlearn.submit('schemes', schemes)"
        },
        {"test-4-latency": 1},
    ),
    "intervals that say nothing": (
        {
            "work-4": "%s\nfor name, ms in zip(NAMES, (10, 5, 5, 2.5, 2.5, 2.5, 2.6)):\n"
            "    ratios = ['latency_ms', 'speedup', 'speedup_low', 'speedup_high']\n"
            "    schemes.loc[name, ratios] = [ms, 10 / ms, 0.001, 1000]\n"
            "schemes.attrs = {}\nqlearn.submit('schemes', schemes)"
        },
        {"test-4-latency": 1},
    ),
    "SQNR as a text": (
        {
            "work-4": "%s\nschemes['sqnr_db'] = schemes.sqnr_db.map('{:.1f}'.format)\n"
            "qlearn.submit('schemes', schemes)"
        },
        {"test-4-measured": 2, "test-5": 1, "hidden-5": 1, "test-6": 1, "hidden-6": 1},
    ),
    "SQNR of a row is missing": (
        {"work-4": "%s\nschemes.loc['bf16', 'sqnr_db'] = None\nqlearn.submit('schemes', schemes)"},
        {"test-4-measured": 2},
    ),
    "a row twice": (
        {"work-4": "%s\nqlearn.submit('schemes', pd.concat([schemes, schemes.loc[['bf16']]]))"},
        ALL_OF_4_TO_6,
    ),
    "SQNR as a ratio instead of decibels": (
        {
            "work-4": "%s\nschemes['sqnr_db'] = 10 ** (schemes.sqnr_db / 20)\n"
            "qlearn.submit('schemes', schemes)"
        },
        {"test-4-measured": 2},
    ),
    "a row is missing": (
        {"work-4": "%s\nqlearn.submit('schemes', schemes.drop('bf16'))"},
        {"test-4-measured": 2, "test-4-latency": 1},
    ),
    "wrong columns": (
        {"work-4": "%s\nqlearn.submit('schemes', schemes.rename(columns={'size_mb': 'size'}))"},
        {"test-4-measured": 2, "test-5": 1, "hidden-5": 1, "test-6": 1, "hidden-6": 1},
    ),
    "no table": (
        {"work-4": "%s\nqlearn.submit('schemes', schemes.latency_ms.to_dict())"},
        ALL_OF_4_TO_6,
    ),
    "a front of everything": (
        {
            "work-5": "fronts = dict(size=NAMES, latency=NAMES, published=[*published.index])\n"
            "qlearn.submit('fronts', fronts)"
        },
        {"test-5": 1, "hidden-5": 1},
    ),
    "a front of the smallest alone": (
        {
            "work-5": TABLE + "fronts = dict(size=[schemes.size_mb.idxmin()],\n"
            "     latency=[schemes.latency_ms.idxmin()], published=[published.size_mb.idxmin()])\n"
            "qlearn.submit('fronts', fronts)"
        },
        {"hidden-5": 1},
    ),
    "fronts in a list": (
        {"work-5": "qlearn.submit('fronts', [NAMES[0], NAMES[1]])"},
        {"test-5": 1, "hidden-5": 1},
    ),
    "fp32 for everybody": (
        {"work-6": "qlearn.submit('choices', dict.fromkeys(['archive', 'machine'], 'fp32'))"},
        {"test-6": 1, "hidden-6": 1},
    ),
    "good enough, not best": (
        {
            "work-6": TABLE + "small = schemes[schemes.size_mb < schemes.size_mb['fp32'] / 3]\n"
            "least = small[small.accuracy > small.accuracy.max() - 0.005].sqnr_db.idxmin()\n"
            "choices = dict(archive=least, machine='fp32', instrument='fp32')\n"
            "qlearn.submit('choices', choices)"
        },
        {"hidden-6": 1},
    ),
    "an empty file": (
        {"work-6": "%s\nopen('answers/bf16.pt', 'wb').close()"},
        {"test-1": 2, "hidden-1": 1, "test-4-measured": 2, "test-4-latency": 1},
    ),
    "an unreadable file": (
        {"work-6": "%s\nopen('answers/int8_channel.pt', 'wb').write(b'PK no model')"},
        ALL_OF_3 | {"test-4-measured": 2, "test-4-latency": 1},
    ),
}


# Each test cell and each kind of fault once.
DECISIVE = {
    "16-bit weights, computed in 32",
    "calibrated on even noise",
    "frozen TorchScript",
    "dynamic per channel and torchao's other int8",
    "FX and min-max observers",
    "fronts by sorting, best first",
    "a float model renamed",
    "dynamic, one layer only",
    "weight-only: the float model exported",
    "the default qconfig twice",
    "static, one layer only",
    "stubs missing",
    "accuracy on the training set",
    "made-up speedup",
    "a front of everything",
    "fp32 for everybody",
    "an unreadable file",
}


def merged(bank: dict[str, tuple[dict, dict]]) -> dict[str, tuple[dict, dict]]:
    """Put submissions that concern one part each together, one of every part, to save time."""
    queues, alone = {}, {}
    for name, (patch, expected) in bank.items():
        cell = min(patch)
        own = len(patch) == 1 and all(test.split("-")[1] == cell.split("-")[1] for test in expected)
        (queues.setdefault(cell, {}) if own else alone)[name] = (patch, expected)
    together = {}
    for names in zip_longest(*queues.values()):
        names = [name for name in names if name]
        patches, losses = zip(*(bank[name] for name in names), strict=True)
        together["; ".join(names)] = (
            {k: v for p in patches for k, v in p.items()},
            {k: v for e in losses for k, v in e.items()},
        )
    return together | alone


@pytest.fixture(scope="module")
def reference(tmp_path_factory, base_models):
    folder = tmp_path_factory.mktemp("reference")
    return folder, runner.grade(EXERCISE, runner.reference(EXERCISE), folder, first=True)


def work(patch: dict[str, str], folder: Path, done: Path) -> dict[str, str]:
    """Put the patch into the reference; what comes before it is taken as done."""
    solution = runner.reference(EXERCISE)
    solution["work-4"] = solution["work-4"].replace("seconds=0.2", "seconds=0.05")
    again = [cell for cell in FOLLOWING if cell > min(patch)]
    if min(patch) >= "work-5":  # nothing reads the fronts or the choices
        again = []
    (folder / "answers").mkdir()
    for cell in HANDED_IN.keys() - patch.keys() - set(again):
        for name in HANDED_IN[cell]:
            for file in (done / "answers").glob(f"{name}.*"):
                shutil.copy(file, folder / "answers")
    cells = {cell: "pass" for cell in solution if cell != "explain"}
    cells |= {cell: solution[cell] for cell in again}
    for cell, code in patch.items():
        code = code.replace("%s", solution[cell])
        cells[cell] = (SETUP if cell in MODELS else "") + code
    return cells


def test_the_reference_gets_full_marks(reference):
    _, result = reference
    assert not result.messages and not result.work_error


def cases(bank: dict[str, tuple[dict, dict]]) -> list:
    """Parameters for a bank: decisive ones together, and the others for `make test-long`."""
    rest = {name: case for name, case in bank.items() if name not in DECISIVE}
    decisive = {name: case for name, case in bank.items() if name in DECISIVE}
    made = [pytest.param(n, *case) for n, case in merged(decisive).items()]
    return made + [pytest.param(n, *c, marks=pytest.mark.long) for n, c in merged(rest).items()]


@pytest.mark.parametrize("names, patch, lost", cases(RIGHT))
def test_other_right_ways_get_full_marks(names, patch, lost, reference, tmp_path):
    result = runner.grade(EXERCISE, work(patch, tmp_path, reference[0]), tmp_path)
    assert runner.lost(EXERCISE, result) == lost and not result.messages, result.work_error


@pytest.mark.parametrize("names, patch, expected", cases(WRONG))
def test_wrong_ones_lose_their_points(names, patch, expected, reference, tmp_path):
    result = runner.grade(EXERCISE, work(patch, tmp_path, reference[0]), tmp_path)
    assert runner.lost(EXERCISE, result) == expected, (result.messages, result.work_error)
    runner.assert_every_message_helps(result)
