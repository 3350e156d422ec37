"""The tests of exercise 5, tested: right and wrong submissions and what each must lose.

The reference's answers are made once and laid into each submission's folder before its own work
cells run, so that a submission need only hold the cells in which it differs.
"""

import shutil
from pathlib import Path

import pytest
import runner

EXERCISE = "ex5_mobile"
ALL_OF_1 = {"test-1": 1, "test-1-hidden": 1}
ALL_OF_2 = {"test-2": 1, "test-2-size": 1, "test-2-hidden": 1}
ALL_OF_3 = {"test-3": 1, "test-3-xnnpack": 1, "test-3-hidden": 1}
ALL_OF_4 = {"test-4": 1, "test-4-size": 1, "test-4-hidden": 2}
ALL_OF_5 = {"test-5": 1, "test-5-agreement": 1, "test-5-latency": 1}
NOT_RUN = {"test-5-agreement": 1, "test-5-latency": 1}

# What submissions share: the ways into the two formats.
LITE = """
def lite(module, name, example=one):
    module._save_for_lite_interpreter(str(folder / f"{name}.ptl"))
    qlearn.submit(name, folder / f"{name}.ptl", example)
"""
EXECUTORCH = """
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
from executorch.exir import to_edge, to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
def executorch(module, name, example=one, shapes=None, parts=(XnnpackPartitioner(),)):
    exported = torch.export.export(module, (example,), dynamic_shapes=shapes)
    program = to_edge_transform_and_lower(exported, partitioner=list(parts)).to_executorch()
    (folder / f"{name}.pte").write_bytes(program.buffer)
    qlearn.submit(name, folder / f"{name}.pte", example)
def int8(quantizer, images, example=one, shapes=None):
    exported = torch.export.export(reader, (example,), dynamic_shapes=shapes)
    prepared = prepare_pt2e(exported.module(), quantizer)
    for image in images:
        prepared(image)
    return convert_pt2e(prepared)
def everywhere(**how):
    scheme = xnnpack_quantizer.get_symmetric_quantization_config(**how)
    return xnnpack_quantizer.XNNPACKQuantizer().set_global(scheme)
images = next(iter(train))[0].split(1)
reader = torch.nn.Sequential(model, torch.nn.Softmax(1)).eval()
"""

EAGER = """
from torch.ao.quantization import (QuantWrapper, convert, fuse_modules, get_default_qconfig,
    prepare)
groups = [["module.conv1", "module.bn1", "module.relu1"],
          ["module.conv2", "module.bn2", "module.relu2"]]
wrapped = fuse_modules(QuantWrapper(qlearn.pretrained.small_cnn()).eval(), groups)
wrapped.qconfig = get_default_qconfig(torch.backends.quantized.engine)
prepared = prepare(wrapped)
prepared(next(iter(train))[0])
lite(torch.jit.script(convert(prepared)), "lite_int8")
"""
FX = """
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
prepared = prepare_fx(qlearn.pretrained.small_cnn(), get_default_qconfig_mapping("ENGINE"), (one,))
prepared(next(iter(train))[0])
lite(torch.jit.trace(convert_fx(prepared), one), "lite_int8")
"""
ET_NOISE = """
torch.manual_seed(0)
noise = [100 * torch.randn(1, 1, 28, 28) for _ in range(32)]
executorch(int8(everywhere(is_per_channel=True), noise), "et_int8")
"""
FOR_SHOW = """
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
class Both(torch.nn.Module):
    def __init__(self, counts, shown):
        super().__init__()
        self.counts, self.shown = counts, shown
    def forward(self, x):
        return self.counts(x) + 0.0 * self.shown(x).mean()
def static(model, mapping):
    prepared = prepare_fx(model.eval(), mapping, (one,))
    prepared(next(iter(train))[0])
    return convert_fx(prepared)
mapping, halves = get_default_qconfig_mapping("x86"), get_default_qconfig_mapping("x86")
for layer in ("conv1", "bn1", "relu1"):
    halves.set_module_name(layer, None)
counts = static(qlearn.pretrained.small_cnn(), halves)
shown = static(torch.nn.Sequential(qlearn.pretrained.small_cnn().conv1), mapping)
lite(torch.jit.script(Both(counts, shown).eval()), "lite_int8")
"""
TRACED = 'lite(torch.jit.trace(model, one), "lite_fp32")'
FROZEN = 'lite(torch.jit.freeze(torch.jit.script(model)), "lite_fp32")'
ANY_BATCH = """
shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
batch = torch.cat(images[:4])
executorch(reader, "et_fp32", batch, shapes)
"""
ANY_BATCH_INT8 = """
quantized = int8(everywhere(is_per_channel=True), [torch.cat(images)], batch, shapes)
executorch(quantized, "et_int8", batch, shapes)
"""
PER_TENSOR = 'executorch(int8(everywhere(is_per_channel=False), images), "et_int8")'
TWO_STEPS = """
edge = to_edge(torch.export.export(reader, (one,))).to_backend(XnnpackPartitioner())
(folder / "et_fp32.pte").write_bytes(edge.to_executorch().buffer)
qlearn.submit("et_fp32", folder / "et_fp32.pte")
"""
TWO_STEPS_INT8 = """
quantized = torch.export.export(int8(everywhere(is_per_channel=True), images), (one,))
edge = to_edge(quantized).to_backend(XnnpackPartitioner())
(folder / "et_int8.pte").write_bytes(edge.to_executorch().buffer)
qlearn.submit("et_int8", folder / "et_int8.pte")
"""
COURSE = """
reader = torch.nn.Sequential(model, torch.nn.Softmax(1)).eval()
qlearn.export.executorch(reader, one, folder / "et_int8.pte", train)
qlearn.submit("et_int8", folder / "et_int8.pte")
"""
BY_HAND = """
import pandas as pd
from torch.utils.benchmark import Timer
rows, pictures = {}, torch.stack([image for image, _ in digits.test]).split(1)
names = ("et_int8", "et_fp32", "lite_int8", "lite_fp32")
runners = {name: qlearn.answers()[name].load() for name in names}
timers = {name: Timer("f(one)", globals={"f": f, "one": one})
          for name, f in ({"eager": model} | runners).items()}
with torch.inference_mode():
    wanted = [model(picture).argmax().item() for picture in pictures]
    rounds = [{name: timer.timeit(50).median for name, timer in timers.items()} for _ in range(9)]
    for name, f in runners.items():
        same = [f(picture).argmax().item() == digit for picture, digit in zip(pictures, wanted)]
        ratios = sorted(times["eager"] / times[name] for times in rounds)
        size = qlearn.answers()[name].path.stat().st_size / 1e6
        rows[name] = {"size_mb": round(size, 3), "agreement": sum(same) / len(same),
                      "latency_ms": 1000 * sorted(times[name] for times in rounds)[4],
                      "speedup": ratios[4], "speedup_low": ratios[1], "speedup_high": ratios[-2]}
table = pd.DataFrame(rows).T
qlearn.submit("table", table)
"""
PHONE = """
import pandas as pd
rows = {"phone": ["Pixel"], "model": ["small_cnn"], "fp32_ms": [0.4], "int8_ms": [0.2]}
qlearn.submit("phone", pd.DataFrame(rows))
"""

DEVICE = """
import json
state = {"clocks_mhz": None, "celsius": None}
report = {"device": "Pixel", "system": "Android 14", "cores": 8, "before": state, "after": state,
          "threads": 1, "agrees": True, "files": []}
for name, ms in (("et_fp32", 0.4), ("et_int8", 0.2)):
    ratio = {"speedup": 0.4 / ms, "speedup_low": 0.3 / ms, "speedup_high": 0.5 / ms}
    times = {"q1_ms": ms, "median_ms": ms, "q3_ms": ms}
    report["files"].append({"name": f"{name}.pte", "size_mb": 0.1, "agrees": True, "sqnr_db": None,
                            "top1": 1.0, **times, **ratio})
(folder / "device.json").write_text(json.dumps(report))
qlearn.submit("phone", qlearn.device.read(folder / "device.json"))
"""

NOISE = "torch.manual_seed(0)\n" + FX.replace("ENGINE", "x86").replace(
    "next(iter(train))[0]", "torch.randn(64, 1, 28, 28)"
)
UNCALIBRATED = FX.replace("ENGINE", "x86").replace("prepared(next", "(next")
FLOAT_RENAMED = 'lite(torch.jit.script(model), "lite_int8")'
DYNAMIC = """
from torch.ao.quantization import quantize_dynamic
lite(torch.jit.script(quantize_dynamic(model, {torch.nn.Linear})), "lite_int8")
"""
NO_STUBS = """
from torch.ao.quantization import convert, get_default_qconfig, prepare
bare = torch.nn.Sequential(qlearn.pretrained.small_cnn()).eval()
bare.qconfig = get_default_qconfig(torch.backends.quantized.engine)
prepared = prepare(bare)
prepared(one)
lite(torch.jit.script(convert(prepared)), "lite_int8", None)
"""
ORDINARY_FILE = """
quantized = qlearn.answers()["lite_int8"].path
qlearn.submit("lite_int8", torch.jit.load(quantized), one)
"""
INT8_AS_FP32 = 'qlearn.submit("lite_fp32", qlearn.answers()["lite_int8"].path)'
UNTRAINED = 'lite(torch.jit.script(qlearn.models.SmallCNN().eval()), "lite_fp32")'
PERCEPTRON = 'lite(torch.jit.script(qlearn.pretrained.mlp()), "lite_fp32")'
NOT_LOWERED = 'executorch(reader, "et_fp32", parts=())'
# The portable kernels take a linear layer in no time, and convolutions in hundredths of a second.
LINEAR_LEFT_OUT = """
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
rest = [c for c in ALL_PARTITIONER_CONFIGS if c.__name__ not in ("AddmmConfig", "LinearConfig")]
executorch(reader, "et_fp32", parts=[XnnpackPartitioner(rest)])
"""
BATCH_OF_8 = 'executorch(reader, "et_fp32", torch.cat(images[:8]))'
IGNORES_ITS_INPUT = """
class Constant(torch.nn.Module):
    def forward(self, x):
        return 0 * x.flatten(1)[:, :10] + torch.arange(10.0)
executorch(Constant().eval(), "et_fp32")
"""
ET_FLOAT_RENAMED = """
padded = folder / "padded.pte"
padded.write_bytes(qlearn.answers()["et_fp32"].path.read_bytes())
qlearn.submit("et_int8", padded)
"""
ET_ONLY_LINEAR = """
quantizer = xnnpack_quantizer.XNNPACKQuantizer()
scheme = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
quantizer.set_module_type(torch.nn.Linear, scheme)
executorch(int8(quantizer, images), "et_int8")
"""
ET_DYNAMIC = """
quantizer = everywhere(is_per_channel=True, is_dynamic=True)
executorch(int8(quantizer, images), "et_int8")
"""
ET_UNCALIBRATED = 'executorch(int8(everywhere(is_per_channel=False), []), "et_int8")'
ET_DARK = """
dark = [image / 100 for image in images]
executorch(int8(everywhere(is_per_channel=True), dark), "et_int8")
"""
DAMAGED = """
path = qlearn.answers()["et_int8"].path
data = bytearray(path.read_bytes())
path.write_bytes(CONTENT)
"""
TABLE = """
table = qlearn.answers()["table"].load()
CHANGE
qlearn.submit("table", table)
"""
SPEEDUP = """
speedup = qlearn.answers()["speedup"].load()
same, eager = speedup["same_engine"], speedup["against_eager"]
qlearn.submit("speedup", CHANGE)
"""
# The float file is clearly faster than eager mode here, however the reference was measured.
FIVE_TIMES = """
table = qlearn.answers()["table"].load()
ratio = ["speedup", "speedup_low", "speedup_high"]
table.loc["et_fp32", ratio], table.loc["et_int8", ratio] = [1.5, 1.4, 1.6], [5, 4.8, 5.2]
qlearn.submit("table", table)
qlearn.submit("speedup", {"same_engine": 5, "against_eager": 5})
"""
# Whatever is measured lies in such intervals.
WIDE = """
table = qlearn.answers()["table"].load()
ratio = ["speedup", "speedup_low", "speedup_high"]
table.loc["et_fp32", ratio], table.loc["et_int8", ratio] = [1, 0.01, 100], [5, 0.01, 100]
table.loc["et_fp32", "latency_ms"] = 5 * table.at["et_int8", "latency_ms"]
qlearn.submit("table", table)
wide = {"speedup": 5, "speedup_low": 0.01, "speedup_high": 1000}
qlearn.submit("speedup", {"same_engine": wide, "against_eager": wide})
"""
ACCURACY = """
import torch.utils.data
single = torch.utils.data.DataLoader(digits.test, batch_size=1)
runners = {name: qlearn.answers()[name].load() for name in table.index}
table["agreement"] = qlearn.compare(runners, one, test=single, seconds=0.1)["accuracy"]
"""


def table(change: str) -> dict[str, str]:
    return {"work-5": TABLE.replace("CHANGE", change)}


def speedup(change: str) -> dict[str, str]:
    return {"work-6": SPEEDUP.replace("CHANGE", change)}


def damaged(content: str) -> dict[str, str]:
    return {"work-4": DAMAGED.replace("CONTENT", content)}


# Name → the work cells that differ. Where a file does, the table is made anew (grade_patch).
RIGHT = {
    "eager mode": {"work-2": LITE + EAGER},
    "fp32 traced": {"work-1": LITE + TRACED},
    "qnnpack's ranges, traced; fp32 frozen": {
        "work-1": LITE + FROZEN,
        "work-2": FX.replace("ENGINE", "qnnpack"),
    },
    "any batch": {"work-3": EXECUTORCH + ANY_BATCH, "work-4": ANY_BATCH_INT8},
    "per channel; lowered in two steps": {
        "work-3": EXECUTORCH + TWO_STEPS,
        "work-4": TWO_STEPS_INT8,
    },
    "the course's exporter; a table by hand, and a device": {
        "work-4": COURSE,
        "work-5": BY_HAND + DEVICE,
        "work-6": runner.reference(EXERCISE)["work-6"],
    },
}
WRONG = {
    "the int8 file as fp32; dynamic instead of static": (
        {"work-1": INT8_AS_FP32, "work-2": LITE + DYNAMIC},
        ALL_OF_1 | ALL_OF_2,
    ),
    "float files renamed": (
        {"work-2": LITE + FLOAT_RENAMED, "work-4": ET_FLOAT_RENAMED},
        ALL_OF_2 | ALL_OF_4,
    ),
    "an untrained model; a constant; PT2E for the linear layer only": (
        {
            "work-1": LITE + UNTRAINED,
            "work-3": EXECUTORCH + IGNORES_ITS_INPUT,
            "work-4": ET_ONLY_LINEAR,
        },
        ALL_OF_1 | ALL_OF_3 | ALL_OF_4,
    ),
    "the model of another exercise; PT2E, dynamic": (
        {"work-1": LITE + PERCEPTRON, "work-4": EXECUTORCH + ET_DYNAMIC},
        ALL_OF_1 | ALL_OF_4,
    ),
    "no calibration": (
        {"work-2": LITE + UNCALIBRATED, "work-4": EXECUTORCH + ET_UNCALIBRATED},
        {"test-2": 1, "test-2-hidden": 1} | ALL_OF_4,
    ),
    "not for the lite interpreter; calibrated in the dark": (
        {"work-2": ORDINARY_FILE, "work-4": EXECUTORCH + ET_DARK},
        ALL_OF_2 | ALL_OF_4,
    ),
    "a partitioner without linear layers": (
        {"work-3": EXECUTORCH + LINEAR_LEFT_OUT},
        {"test-3-xnnpack": 1},
    ),
    "no partitioner": ({"work-3": EXECUTORCH + NOT_LOWERED}, {"test-3-xnnpack": 1}),
    "no stubs; a batch of eight": (
        {
            "work-2": LITE + NO_STUBS,
            "work-3": EXECUTORCH + BATCH_OF_8,
            "work-5": "pass",
            "work-6": "pass",
        },
        # Its table is still that of the reference's files, which are of another size.
        {"test-2": 1, "test-2-hidden": 1, "test-3": 1, "test-3-hidden": 1, "test-5": 1}
        | NOT_RUN
        | {"test-6-hidden": 1},
    ),
    "an empty file": (damaged('b""'), ALL_OF_4 | ALL_OF_5 | {"test-6-hidden": 1}),
    "half a file": (damaged("data[: len(data) // 2]"), ALL_OF_4 | ALL_OF_5 | {"test-6-hidden": 1}),
    "a file that would end the process": (
        damaged("data.replace(b'XH00', bytes([88, 185, 48, 48]), 1)"),
        ALL_OF_4 | ALL_OF_5 | {"test-6-hidden": 1},
    ),
    "made-up speedups": (
        table('table.loc["et_int8", ["speedup", "speedup_low", "speedup_high"]] *= 1000'),
        {"test-5-latency": 1, "test-6": 1},
    ),
    "a speedup in thousands": (
        table('table.loc["lite_int8", ["speedup", "speedup_low", "speedup_high"]] /= 1000'),
        {"test-5-latency": 1},
    ),
    "other columns": (
        table('table = table.rename(columns={"speedup": "ratio"})'),
        {"test-5": 1, "test-5-latency": 1, "test-6": 1},
    ),
    "a missing row": (table('table = table.drop("lite_fp32")'), ALL_OF_5),
    "accuracy for agreement": (table(ACCURACY), {"test-5-agreement": 1}),
    "sizes in MiB": (table('table["size_mb"] /= 1.048576'), {"test-5": 1}),
    "speedups the wrong way round, an interval too": (
        speedup(
            '{"same_engine": {**same, "speedup_low": 99}, "against_eager": 1 / eager["speedup"]}'
        ),
        {"test-6": 1, "test-6-hidden": 1},
    ),
    "made-up speedup against eager": (
        speedup('{"same_engine": same, "against_eager": 9000}'),
        {"test-6": 1, "test-6-hidden": 1},
    ),
    "five times, for both": ({"work-6": FIVE_TIMES}, {"test-6": 1}),
    "more in the same engine than against eager": (
        {"work-6": FIVE_TIMES.replace('"same_engine": 5,', '"same_engine": 5.05,')},
        {"test-6": 1},
    ),
    "the ExecuTorch file calibrated on noise": (
        {"work-4": EXECUTORCH + ET_NOISE},
        {"test-4": 1, "test-4-size": 1, "test-4-hidden": 2},
    ),
    "a float convolution that counts, an int8 one for show": (
        {"work-2": LITE + FOR_SHOW},
        {"test-2": 1, "test-2-hidden": 1},
    ),
    "five times for both, in intervals that say nothing": (
        {"work-6": WIDE},
        {"test-5-latency": 1, "test-6": 1, "test-6-hidden": 1},
    ),
    "an interval that ends at 0": (
        table('table.loc["et_fp32", "speedup_high"] = 0'),
        {"test-5-latency": 1, "test-6": 1},
    ),
    "one scale per tensor": ({"work-4": EXECUTORCH + PER_TENSOR}, {"test-4": 1}),
    "calibrated on noise": ({"work-2": LITE + NOISE}, {"test-2": 1}),
    "logits instead of probabilities": (
        {"work-3": EXECUTORCH + 'executorch(model, "et_fp32")'},
        {"test-3": 1, "test-3-hidden": 1},
    ),
    "one speedup for both": (speedup("eager"), {"test-6": 1, "test-6-hidden": 1}),
}


# Each test cell and each kind of fault once.
DECISIVE = {
    "five times, for both",
    "five times for both, in intervals that say nothing",
    "logits instead of probabilities",
    "eager mode",
    "the course's exporter; a table by hand, and a device",
    "float files renamed",
    "an untrained model; a constant; PT2E for the linear layer only",
    "a partitioner without linear layers",
    "a file that would end the process",
    "made-up speedups",
    "accuracy for agreement",
    "one speedup for both",
}


@pytest.fixture(scope="module")
def reference(base_models, tmp_path_factory) -> tuple[Path, runner.Result]:
    """The folder and the result of the reference's own work."""
    folder = tmp_path_factory.mktemp("reference")
    return folder, runner.grade(EXERCISE, runner.reference(EXERCISE), folder)


def test_the_reference_gets_full_marks(reference: tuple[Path, runner.Result]) -> None:
    _, result = reference
    assert not result.work_error
    assert not result.messages


@pytest.mark.parametrize("name", runner.cases(RIGHT, DECISIVE))
def test_a_right_way_gets_full_marks(
    name: str, reference: tuple[Path, runner.Result], tmp_path: Path
) -> None:
    result = grade_patch(RIGHT[name], reference[0], tmp_path)
    assert not result.messages, (result.messages, result.work_error)


@pytest.mark.parametrize("name", runner.cases(WRONG, DECISIVE))
def test_a_wrong_way_loses_exactly_its_points(
    name: str, reference: tuple[Path, runner.Result], tmp_path: Path
) -> None:
    patch, expected = WRONG[name]
    result = grade_patch(patch, reference[0], tmp_path)
    assert runner.lost(EXERCISE, result) == expected, (result.messages, result.work_error)
    runner.assert_every_message_helps(result)


@pytest.mark.parametrize("change", [('"phone":', '"device":'), ("[0.4]", '["0.4 ms"]')])
def test_a_phones_report_is_checked_for_its_form_only(
    change: tuple[str, str], reference: tuple[Path, runner.Result], tmp_path: Path
) -> None:
    result = grade_patch({"work-6": PHONE.replace(*change)}, reference[0], tmp_path)
    assert list(result.messages) == ["test-phone"] and "'phone'" in result.messages["test-phone"]
    runner.assert_every_message_helps(result)
    assert not runner.lost(EXERCISE, result)


def grade_patch(patch: dict[str, str], reference: Path, folder: Path) -> runner.Result:
    """Grade the reference's answers with some of its work cells replaced and run."""
    shutil.copytree(reference / "answers", folder / "answers")
    work = {f"work-{part}": "pass" for part in range(1, 7)}
    if patch.keys() & {"work-1", "work-2", "work-3", "work-4"} and "path.write" not in str(patch):
        source = runner.reference(EXERCISE)
        work["work-5"] = source["work-5"].replace("seconds=0.5", "seconds=0.05")
        work["work-6"] = source["work-6"]
    result = runner.grade(EXERCISE, work | patch, folder)
    assert not result.work_error, result.work_error
    return result
