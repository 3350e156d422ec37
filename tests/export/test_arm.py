"""The Arm check, with the real libraries, compiler and emulator; the wheel is fetched once."""

import os
import re
import subprocess

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from qlearn import arm, data, export, models, pretrained
from qlearn.cli import app
from qlearn.export.arm import comparison, runner

PIXELS = {"small_cnn": 28, "resnet18": 64}  # emulated float arithmetic is slow


class Several(nn.Module):
    """Inputs and outputs of several shapes and types; cumsum is not for XNNPACK."""

    def forward(self, values: torch.Tensor, indices: torch.Tensor) -> tuple:
        return values.cumsum(1) + indices, values.sum(0), indices * 2


@pytest.fixture(scope="module")
def files(arm_tools, tmp_path_factory):
    """A SmallCNN in both precisions, and one with other weights."""
    folder = tmp_path_factory.mktemp("arm")
    write_both(folder, "small_cnn", pretrained.small_cnn())
    torch.manual_seed(1)
    export.executorch(models.SmallCNN(), torch.zeros(1, 1, 28, 28), folder / "other.pte")
    return folder


@pytest.fixture(scope="module")
def resnets(arm_tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm")
    write_both(folder, "resnet18", pretrained.resnet18("digits"))
    return folder


def write_both(folder, name, model):
    """Write a base model's file in float and in int8."""
    train, _ = data.loaders(pretrained.RECIPES[name].data())
    images = nn.functional.interpolate(next(iter(train))[0][:8], size=PIXELS[name])
    export.executorch(model, images[:1], folder / f"{name}-fp32.pte")
    export.executorch(model, images[:1], folder / f"{name}-int8.pte", images.split(1))


@pytest.fixture(scope="module")
def several(arm_tools, tmp_path_factory):
    from executorch.exir import to_edge_transform_and_lower

    example = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long)
    path = tmp_path_factory.mktemp("arm") / "several.pte"
    with export.quiet():
        lowered = to_edge_transform_and_lower(torch.export.export(Several(), example))
        path.write_bytes(lowered.to_executorch().buffer)
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_arm_computes_what_the_host_computes(precision, files):
    assert_arm_agrees(files / f"small_cnn-{precision}.pte")


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_arm_computes_a_resnet_as_the_host_does(precision, resnets):
    assert_arm_agrees(resnets / f"resnet18-{precision}.pte")


def assert_arm_agrees(path):
    report = arm.check(path)
    assert report.passes and report.top1 == 1
    assert report.sqnr_db > 80, str(report)
    assert "agrees" in str(report) and "No times were taken" in str(report)
    assert "\n" not in str(report)


def test_another_models_outputs_are_refused(files, monkeypatch):
    def other(path, samples):
        return runner.run_on_arm(files / "other.pte", samples)

    monkeypatch.setattr(comparison, "run_on_arm", other)
    assert not arm.check(files / "small_cnn-fp32.pte").passes
    result = CliRunner().invoke(app, ["arm-check", str(files / "small_cnn-fp32.pte")])
    assert result.exit_code == 1 and "DIFFERS" in result.output


def test_int8_is_wrong_on_the_emulators_max_cpu(files, arm_tools, monkeypatch):
    """Why the CPU is pinned. Another QEMU may be right, so only the measured one is held to it."""
    version = subprocess.run([arm_tools, "--version"], capture_output=True, text=True).stdout
    if "version 7.2" not in version:
        pytest.skip(f"seen with QEMU 7.2, and this is {version.splitlines()[0]}")
    monkeypatch.setattr(comparison, "CPU", "max")
    monkeypatch.setattr(runner, "CPU", "max")
    assert not arm.check(files / "small_cnn-int8.pte").passes
    monkeypatch.setattr(runner, "CPU", "max,sme=off")
    assert arm.check(files / "small_cnn-int8.pte").passes


def test_the_command_says_it_in_one_line(files):
    result = CliRunner().invoke(app, ["arm-check", str(files / "small_cnn-int8.pte")])
    assert result.exit_code == 0, result.output
    assert re.match(r"small_cnn-int8.pte on .*Cortex-A76 agrees with", result.output)
    assert result.output.count("\n") == 1


def test_several_inputs_and_outputs_of_several_types(several):
    report = arm.check(several)
    assert report.passes and report.samples == 2 and report.top1 is not None
    given = torch.randn(2, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert arm.check(several, [given]).samples == 1


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [torch.zeros(2, 3)],
        [(torch.zeros(2, 3), torch.zeros(2, 3))],
        [(torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.long))],
    ],
)
def test_inputs_that_do_not_fit(inputs, several):
    with pytest.raises(ValueError, match="do not fit the file, which takes|There is no input"):
        arm.check(several, inputs)


def test_the_second_check_fetches_and_compiles_nothing(files, several, monkeypatch):
    arm.check(several)
    monkeypatch.setattr(runner, "run_tool", lambda *_: pytest.fail("the cache was not used"))
    assert arm.check(several).passes


def test_a_runner_is_compiled_anew_when_its_source_changes(several, monkeypatch, tmp_path):
    known = runner.build("aarch64")[0]
    changed = tmp_path / "runner.cpp"
    changed.write_bytes(runner.SOURCE.read_bytes() + b"#error changed\n")
    monkeypatch.setattr(runner, "SOURCE", changed)
    with pytest.raises(RuntimeError, match="could not compile the runner .*#error changed"):
        arm.check(several)
    assert known.is_file() and not list(known.parent.glob(".making-*"))


def test_operators_that_the_runtime_lacks_are_named(several, tmp_path):
    path = tmp_path / "unknown.pte"
    path.write_bytes(several.read_bytes().replace(b"aten::cumsum", b"aten::cumsun"))
    with pytest.raises(ValueError, match=r"the runtime lacks the operators aten::cumsun\.out\.$"):
        arm.check(path)


@pytest.mark.parametrize("kept", [0, 7, 40, 5000, -100])
def test_truncated_files_get_a_sentence(kept, files, tmp_path):
    path = tmp_path / "truncated.pte"
    path.write_bytes((files / "small_cnn-int8.pte").read_bytes()[:kept])
    with pytest.raises(ValueError, match="does not begin|is damaged"):
        arm.check(path)


def test_damage_inside_is_noticed_on_arm_first(files, tmp_path, monkeypatch):
    path = tmp_path / "damaged.pte"
    good = (files / "small_cnn-int8.pte").read_bytes()
    path.write_bytes(good.replace(b"XH00", b"XH99"))
    monkeypatch.setattr(comparison, "run_on_host", lambda *_: pytest.fail("it was run here"))
    with pytest.raises(ValueError, match="does not run on Arm: "):
        arm.check(path)


def test_a_runner_that_crashes_gets_a_sentence():
    assert "SIGSEGV; the file may be damaged" in runner.explain_log("", -11)


def test_wrong_files_end_with_code_2_and_one_line(tmp_path):
    (tmp_path / "text.pte").write_text("not a program")
    for name, sentence in (("text.pte", "does not begin as"), ("absent.pte", "There is no file")):
        result = CliRunner().invoke(app, ["arm-check", str(tmp_path / name)])
        assert result.exit_code == 2
        assert sentence in result.output and result.output.count("\n") == 1


def test_without_the_tools_it_says_what_to_install(several, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arm.missing_tools() == ["g++-aarch64-linux-gnu", "qemu-user"]
    result = CliRunner().invoke(app, ["arm-check", str(several)])
    assert result.exit_code == 2
    assert "apt install g++-aarch64-linux-gnu qemu-user" in result.output
    assert result.output.count("\n") == 1


def test_an_emulator_that_takes_too_long_is_stopped(several, monkeypatch):
    arm.check(several)
    monkeypatch.setattr(runner, "TOOL_TIMEOUT", 0.001)
    with pytest.raises(RuntimeError, match="no output on Arm within 0.001 s"):
        arm.check(several)


def test_a_wheel_that_cannot_be_fetched_leaves_nothing(several, tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr(runner.importlib.metadata, "version", lambda _: "0.0.0")
    with pytest.raises(RuntimeError, match=r"pip could not fetch ExecuTorch 0\.0\.0 for Arm"):
        arm.check(several)
    assert os.listdir(tmp_path / "arm") == []


def test_outputs_that_are_not_numbers_never_pass():
    fine, broken = torch.ones(1, 2), torch.tensor([[1.0, torch.nan]])
    report = comparison.compare("model.pte", [(fine, fine)], [(fine, broken)], "Arm")
    assert not report.passes and "DIFFERS" in str(report)
    assert comparison.compare("model.pte", [(fine, fine)], [(fine, fine)], "Arm").passes
