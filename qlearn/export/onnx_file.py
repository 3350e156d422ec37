"""ONNX files, fp32 or int8, and ONNX Runtime to run them."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from qlearn.export import common
from qlearn.export.refusals import refusing
from qlearn.system.cache import write_whole
from qlearn.system.errors import Refusal, explained
from qlearn.system.noise import quiet

# A convolution stays float: ONNX Runtime has no kernel for a dynamic one with int8 weights.
DYNAMIC = ["MatMul", "Gather", "LSTM"]


def onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    calibration: common.Inputs | None = None,
    check: common.Inputs | None = None,
    dynamic: bool = False,
) -> common.Exported:
    """Write a model as one ONNX file, int8 if there are inputs to calibrate with, and run it.

    The int8 file keeps float tensors between pairs of QuantizeLinear and DequantizeLinear (QDQ)
    that the runtime fuses. Weights are int8 per channel, activations uint8 per tensor: with int8
    activations ONNX Runtime is about three times slower on x86. Weights use 7 of their 8 bits: on
    x86 without VNNI, sums of two products saturate in 16 bits and full weights give wrong outputs.

    Parameters
    ----------
    model
        A float model; it is exported in eval mode and stays as it is.
    example
        One input, as the runtime will get it: the file is made for its shape, batch included.
    path
        Where to write; an existing file is replaced only by one that has been run.
    calibration
        None for fp32; input tensors or (inputs, labels) pairs for int8. All of it is used.
    check
        More inputs to compare the file and the model on.
    dynamic
        Make int8 without calibration: weights of linear layers, LSTMs and embeddings, and the
        ranges of activations anew in each call. An LSTM has no other form in ONNX Runtime.

    Raises
    ------
    ValueError
        If ONNX cannot express the model, the inputs do not fit the example, nothing was quantized
        dynamically, or the file does not do what the model does: one sentence.
    FileNotFoundError, IsADirectoryError
        If the folder does not exist, or the path is a folder.

    Notes
    -----
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    if dynamic and calibration is not None:
        raise Refusal("dynamic=True finds ranges while it runs: leave the calibration inputs out.")
    with write_whole(common.require_folder(path, ".onnx")) as unfinished:
        source = common.require_runnable(model, example, calibration)
        inputs = common.gather_inputs(example, check)
        with quiet(), refusing("ONNX"):
            torch.onnx.export(
                source, (example,), unfinished, dynamo=True, external_data=False, verbose=False
            )
            if calibration is not None:
                batches = common.calibration_inputs(calibration, example)
                _quantize(unfinished, common.copy_first(batches, inputs))
            if dynamic:
                _quantize_dynamically(unfinished)
            run = onnx_session(unfinished)
            run(example)
        exact = calibration is None and not dynamic and common.is_float32(source)
        return common.Exported(Path(path), *common.verify(unfinished, run, source, inputs, exact))


def _quantize(path: Path, batches: Iterator[Tensor]) -> None:
    """Replace the fp32 ONNX file at ``path`` by its int8 form."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    simplified = _simplify(path)
    name = _open_session(simplified).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        """Hands ONNX Runtime one batch at a time, then None."""

        def get_next(self) -> dict | None:
            batch = next(batches, None)
            return None if batch is None else {name: batch.numpy()}

    quantize_static(
        simplified,
        path,
        Reader(),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _simplify(path: Path) -> Path:
    """Write the graph beside ``path`` with constants folded and shapes inferred, and return it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    simplified = path.with_name("simplified.onnx")
    try:
        quant_pre_process(path, simplified)
    except Exception:  # its symbolic inference does not know every operator, such as a Loop
        quant_pre_process(path, simplified, skip_symbolic_shape=True)
    return simplified


def _quantize_dynamically(path: Path) -> None:
    """Replace the fp32 file by one with int8 weights; refuse one that stays as it is."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    simplified = _simplify(path)  # else an LSTM's weights are not seen to be constants
    quantize_dynamic(simplified, path, weight_type=QuantType.QInt8, op_types_to_quantize=DYNAMIC)
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    weights = (w for w in onnx.load(path).graph.initializer if w.data_type in kinds)
    if not any(math.prod(weight.dims) > 1 for weight in weights):
        raise Refusal(
            "Nothing in the model was quantized dynamically, so the file is not kept: that needs a "
            "linear layer, an LSTM or an embedding; leave dynamic out for fp32."
        )


def _open_session(path: str | Path, threads: int | None = None):
    """Open a session on the CPU that logs errors only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0  # 0: the runtime chooses
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def onnx_session(path: str | Path, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """Load an ONNX file into ONNX Runtime.

    Parameters
    ----------
    path
        A file that ``onnx`` has written: one input, one output.
    threads
        Threads of the runtime; None leaves the choice to it.

    Returns
    -------
    callable
        From an input tensor of the example's shape to the output tensor.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    with quiet():
        session = _open_session(common.require_file(path, "onnx"), threads)
    name = session.get_inputs()[0].name

    def run(inputs: Tensor) -> Tensor:
        with explained(f"the file does not run on an input of shape {tuple(inputs.shape)}"):
            return torch.from_numpy(session.run(None, {name: inputs.detach().numpy()})[0])

    return run
