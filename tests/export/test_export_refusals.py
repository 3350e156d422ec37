"""Models that cannot be exported: one sentence, no traceback's noise, no half-written file."""

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization as tq
from torch import nn

from qlearn import export, models

IMAGE = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
WRITERS = {
    "ExecuTorch": (export.executorch, ".pte"),
    "ONNX": (export.onnx, ".onnx"),
    "TorchScript": (export.torchscript, ".pt"),
}


class Does(nn.Module):
    """A linear layer, and after it whatever is given."""

    def __init__(self, function=torch.sigmoid):
        super().__init__()
        self.linear = nn.Linear(28, 10)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x).mean((1, 2)))


class Decides(Does):
    def forward(self, x):
        if x.mean() > 0:
            return self.linear(x).mean((1, 2))
        return x.mean((1, 2))


class Chance(Does):
    def forward(self, x):
        return torch.rand_like(self.linear(x).mean((1, 2)))


class Typed(Does):
    def apply(self, x, function: Callable[..., Any]):
        return function(x)

    def forward(self, x):
        return self.apply(x, self.function)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@torch.library.custom_op("qlearn_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@twice.register_fake
def _(x):
    return torch.empty_like(x)


def dynamic():
    return tq.quantize_dynamic(models.MLP().eval(), {nn.Linear})


def static():
    model = tq.QuantWrapper(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())).eval()
    model.qconfig = tq.get_default_qconfig(torch.backends.quantized.engine)
    prepared = tq.prepare(model)
    prepared(IMAGE)
    return tq.convert(prepared)


def unfinished():
    model = tq.QuantWrapper(nn.Linear(28, 2)).eval()
    model.qconfig = tq.get_default_qconfig(torch.backends.quantized.engine)
    return tq.prepare(model)


def not_a_number():
    model = Does()
    nn.init.constant_(model.linear.bias, float("nan"))
    return model


REFUSED = {
    "static": ("ExecuTorch", static, "packed weights of Conv2d: give the float model"),
    "dynamic": ("ONNX", dynamic, "packed weights of Linear: give the float model"),
    "branch": ("ExecuTorch", Decides, "in the line `if x.mean() > 0:`: use torch.where"),
    "branch in ONNX": ("ONNX", Decides, "in the line `if x.mean() > 0:`: use torch.where"),
    "unknown operator": ("ExecuTorch", lambda: Does(torch.digamma), "no operator aten.digamma"),
    "no kernel": ("ExecuTorch", lambda: Does(lambda y: torch.sort(y)[0]), "for aten::sort.values"),
    "own operator": ("ExecuTorch", lambda: Does(twice), "no operator qlearn_tests::twice"),
    "own operator in ONNX": ("ONNX", lambda: Does(twice), "no operator for qlearn_tests.twice"),
    "own gradient": (
        "TorchScript",
        lambda: Does(Double.apply),
        "cannot be exported to TorchScript",
    ),
    "scripted": ("ONNX", lambda: torch.jit.script(Does()), "TorchScript already"),
    "chance": ("TorchScript", Chance, "60 dB is the least"),
    "two outputs": ("ONNX", lambda: Does(lambda y: (y, y)), "returns a tuple"),
    "not converted": ("TorchScript", unfinished, "still has observers"),
    "not a number": ("ONNX", not_a_number, "own outputs are not finite"),
    "a single number": ("ONNX", lambda: Does(torch.sum), "returns a single number: let it"),
    "complex": ("TorchScript", lambda: Does(torch.fft.fft), "returns complex numbers: let it"),
    "a type": ("TorchScript", Typed, "does not know the type Callable"),
    "wrong shape": ("TorchScript", lambda: nn.Linear(5, 5), "of shape (1, 1, 28, 28)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_is_one_sentence_and_keeps_the_older_file(case, tmp_path, capfd):
    target, make, sentence = REFUSED[case]
    write, suffix = WRITERS[target]
    path = tmp_path / f"model{suffix}"
    path.write_text("an older file")
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        write(make().eval(), IMAGE, path)
    said = str(refusal.value)
    assert "\n" not in said and len(said) < 400 and said.endswith("."), said
    assert os.listdir(tmp_path) == [path.name] and path.read_text() == "an older file"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("target", WRITERS)
def test_an_example_without_samples_is_refused(target, tmp_path):
    write, suffix = WRITERS[target]
    with pytest.raises(ValueError, match="example holds no sample"):
        write(Does().eval(), IMAGE[:0], tmp_path / f"model{suffix}")


def test_a_compiled_model_is_written_as_torchscript(tmp_path):
    compiled = torch.compile(models.MLP().eval(), backend="eager")
    assert export.torchscript(compiled, IMAGE, tmp_path / "model.pt").top1 == 1


def test_a_full_disk_stays_an_error_of_the_system(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left"):
        export.onnx(Does(), IMAGE, tmp_path / "model.onnx")
    assert not os.listdir(tmp_path)


# PyTorch looks for batch norm with patterns that it makes for half a minute.
@pytest.mark.parametrize("norm", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_quantized_graph_is_exported_as_it_is_and_takes_no_calibration(norm, tmp_path):
    graph = qat_graph(norm)
    made = export.executorch(graph, IMAGE, tmp_path / "qat.pte")
    contents = export.executorch_contents(made)
    assert contents.layers.count("static conv") == 1 and contents.layers.count("static linear") == 1
    assert made.delegates == 1 and not made.leftovers and made.sqnr_db > 25
    with pytest.raises(ValueError, match="quantized already"):
        export.executorch(graph, IMAGE, tmp_path / "twice.pte", [IMAGE])


def qat_graph(norm):
    """Return a small network after one step of quantization-aware training, converted."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4)] if norm else []
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *norms, nn.ReLU(), nn.Flatten(), nn.Linear(2704, 10))
    images = torch.rand(4, 1, 28, 28)
    batch = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(model.train(), (images,), dynamic_shapes=batch).module()
    scheme = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    graph = prepare_qat_pt2e(graph, xnnpack.XNNPACKQuantizer().set_global(scheme))
    move_exported_model_to_train(graph)
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.01)
    nn.functional.cross_entropy(graph(images), torch.arange(4)).backward()
    optimizer.step()
    move_exported_model_to_eval(graph)
    return convert_pt2e(graph)


@pytest.mark.parametrize("suffix", [".pt", ".ptl"])
def test_torchscript_files_of_a_legacy_int8_model_are_exact(suffix, tmp_path):
    model = static()
    made = export.torchscript(model, IMAGE, tmp_path / f"model{suffix}")
    assert torch.equal(export.torchscript_module(made)(IMAGE), model(IMAGE))
    assert made.sqnr_db == float("inf") and made.top1 == 1


def test_torchscript_wants_a_known_suffix(tmp_path):
    with pytest.raises(ValueError, match="must end in .pt"):
        export.torchscript(Does(), IMAGE, tmp_path / "model.onnx")
