"""The inference engines that ``make bench`` measures a model on, and how each loads it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from qlearn.benchmarking import MEGABYTE, model_size
from qlearn.system.errors import explain

EAGER = "PyTorch eager fp32"

Runner = Callable[[Tensor], Tensor]
Loader = Callable[[Path, int], tuple[Runner, float]]


@dataclass(frozen=True)
class Engine:
    """How a worker gets a callable and a size in MB from the folder that ``export_all`` fills.

    Attributes
    ----------
    precision
        "fp32" or "int8".
    load
        From the folder and a number of threads to the callable and the size.
    file
        The exported file that it loads; None if it starts from the PyTorch model itself.
    """

    precision: str
    load: Loader
    file: str | None = None


def own_fp32(name: str) -> str:
    """Return the name that the fp32 form of an engine has, if it is measured at all."""
    return name.removesuffix("int8").removesuffix("fp32") + "fp32"


def export_all(
    model: nn.Module, examples: list[Tensor], calibration: list[Tensor], folder: Path
) -> dict[str, str]:
    """Write all that workers load: PyTorch's, ONNX's and ExecuTorch's files, and the inputs.

    Parameters
    ----------
    model
        A float model in eval mode.
    examples
        Inputs of one shape, batch 1: the first is timed, all are compared.
    calibration
        Inputs of the same shape, for int8.
    folder
        Where to write.

    Returns
    -------
    dict
        File that could not be written → why.
    """
    from qlearn import export

    torch.save(model, folder / "model.pt")
    torch.save({"examples": examples, "calibration": calibration}, folder / "inputs.pt")
    failures = {}
    for precision, inputs in (("fp32", None), ("int8", calibration)):
        for write, name in (
            (export.onnx, f"{precision}.onnx"),
            (export.executorch, f"{precision}.pte"),
        ):
            try:
                write(model, examples[0], folder / name, inputs)
            except Exception as error:  # one format that fails must not cost the others
                failures[name] = explain(error)
    return failures


def _torch_fp32(folder: Path, threads: int) -> tuple[Runner, float]:
    # weights_only=False: the parent process has written this pickle a moment ago.
    model = torch.load(folder / "model.pt", weights_only=False)
    return model, model_size(model)


def _torch_int8(folder: Path, threads: int) -> tuple[Runner, float]:
    from qlearn.quantization.schemes import static_fx

    model, _ = _torch_fp32(folder, threads)
    calibration = torch.cat(torch.load(folder / "inputs.pt")["calibration"])
    quantized = static_fx(model, [calibration])
    return quantized, model_size(quantized)


def _frozen(load: Loader, folder: Path, threads: int) -> tuple[Runner, float]:
    model, _ = load(folder, threads)
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


def _exported(name: str, load: Callable, suffix: str) -> dict[str, Engine]:
    return {
        f"{name} {precision}": Engine(precision, partial(load, precision), f"{precision}{suffix}")
        for precision in ("fp32", "int8")
    }


ENGINES = {
    EAGER: Engine("fp32", _torch_fp32),
    "PyTorch eager int8": Engine("int8", _torch_int8),
    "PyTorch torch.compile fp32": Engine("fp32", _compiled_fp32),
    "TorchScript fp32": Engine("fp32", partial(_frozen, _torch_fp32)),
    "TorchScript int8": Engine("int8", partial(_frozen, _torch_int8)),
    **_exported("ExecuTorch", _executorch, ".pte"),
    **_exported("ONNX Runtime", _onnxruntime, ".onnx"),
    **_exported("OpenVINO", _openvino, ".onnx"),
}
