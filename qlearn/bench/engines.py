"""The inference engines that ``make bench`` measures one model on, and how each loads it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from qlearn.benchmarking import MEGABYTE, model_size

EAGER = "PyTorch eager fp32"

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Engine:
    """How a worker gets a callable and a size in MB from the folder that ``export_all`` fills."""

    precision: str
    load: Callable[[Path, int], tuple[Runner, float]]


def export_all(model: nn.Module, example: Tensor, calibration: list[Tensor], folder: Path) -> None:
    """Write all that workers load: PyTorch's, ONNX's and ExecuTorch's files, and the inputs."""
    from qlearn import export

    torch.save(model, folder / "model.pt")
    torch.save({"example": example, "calibration": calibration}, folder / "inputs.pt")
    for precision, inputs in (("fp32", None), ("int8", calibration)):
        export.onnx(model, example, folder / f"{precision}.onnx", inputs)
        export.executorch(model, example, folder / f"{precision}.pte", inputs)


def _torch_fp32(folder: Path, threads: int) -> tuple[Runner, float]:
    # weights_only=False: the parent process has written this pickle a moment ago.
    model = torch.load(folder / "model.pt", weights_only=False)
    return model, model_size(model)


def _torch_int8(folder: Path, threads: int) -> tuple[Runner, float]:
    from qlearn.bench.techniques import static_int8

    model, _ = _torch_fp32(folder, threads)
    quantized = static_int8(model, torch.load(folder / "inputs.pt")["calibration"])
    return quantized, model_size(quantized)


def _frozen_int8(folder: Path, threads: int) -> tuple[Runner, float]:
    model, _ = _torch_int8(folder, threads)
    frozen = torch.jit.freeze(torch.jit.script(model))
    return frozen, model_size(frozen)


def _compiled_fp32(folder: Path, threads: int) -> tuple[Runner, float]:
    model, size = _torch_fp32(folder, threads)
    return torch.compile(model), size


def _onnxruntime(precision: str, folder: Path, threads: int) -> tuple[Runner, float]:
    from qlearn.export import onnx_session

    path = folder / f"{precision}.onnx"
    return onnx_session(path, threads), _megabytes(path)


def _executorch(precision: str, folder: Path, threads: int) -> tuple[Runner, float]:
    from qlearn.export import executorch_method

    path = folder / f"{precision}.pte"
    return executorch_method(path, threads), _megabytes(path)


def _openvino(precision: str, folder: Path, threads: int) -> tuple[Runner, float]:
    """Compile the ONNX file with OpenVINO, its floating-point arithmetic held to float32."""
    try:
        import openvino
    except ModuleNotFoundError:
        raise RuntimeError("not installed: uv pip install --editable '.[peers]'") from None
    path = folder / f"{precision}.onnx"
    # Without the hint OpenVINO silently computes in bfloat16 where the CPU can.
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(request.infer([inputs.numpy()])[0])

    return run, _megabytes(path)


def _megabytes(path: Path) -> float:
    return path.stat().st_size / MEGABYTE


ENGINES = {
    EAGER: Engine("fp32", _torch_fp32),
    "PyTorch torch.compile fp32": Engine("fp32", _compiled_fp32),
    "ONNX Runtime fp32": Engine("fp32", partial(_onnxruntime, "fp32")),
    "ExecuTorch fp32": Engine("fp32", partial(_executorch, "fp32")),
    "OpenVINO fp32": Engine("fp32", partial(_openvino, "fp32")),
    "PyTorch eager int8": Engine("int8", _torch_int8),
    "PyTorch scripted, frozen int8": Engine("int8", _frozen_int8),
    "ONNX Runtime int8": Engine("int8", partial(_onnxruntime, "int8")),
    "ExecuTorch int8": Engine("int8", partial(_executorch, "int8")),
    "OpenVINO int8": Engine("int8", partial(_openvino, "int8")),
}
