"""ONNX files, fp32 or int8, and ONNX Runtime to run them."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


def onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    calibration: Iterable[Tensor | tuple[Tensor, Tensor]] | None = None,
) -> Path:
    """Write a float model as one ONNX file, int8 if there are inputs to calibrate with.

    The int8 file keeps float tensors between pairs of QuantizeLinear and DequantizeLinear (QDQ)
    that the runtime fuses. Weights are int8 per channel, activations uint8 per tensor: with int8
    activations ONNX Runtime is about three times slower on x86.

    Parameters
    ----------
    model
        A float model; it is exported in eval mode and stays as it is.
    example
        One input, as the runtime will get it: the file is made for its shape, batch included.
    path
        Where to write; an existing file is replaced only by a complete one.
    calibration
        None for fp32; input tensors or (inputs, labels) pairs for int8. All of it is used.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        If the calibration inputs do not fit the example.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from qlearn.export import quiet, replacing

    with replacing(path) as unfinished:
        with quiet():
            torch.onnx.export(
                copy.deepcopy(model).eval(),
                (example,),
                unfinished,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        if calibration is not None:
            _quantize(unfinished, example, calibration)
    return Path(path)


def _quantize(
    path: Path, example: Tensor, calibration: Iterable[Tensor | tuple[Tensor, Tensor]]
) -> None:
    """Replace the fp32 ONNX file at ``path`` by its int8 form."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from qlearn.export import calibration_inputs, quiet

    simplified = path.with_name("simplified.onnx")

    class Reader(CalibrationDataReader):
        """Hands ONNX Runtime one batch at a time, then None."""

        def __init__(self, name: str) -> None:
            self.name = name
            self.inputs = calibration_inputs(calibration, example)

        def get_next(self) -> dict | None:
            batch = next(self.inputs, None)
            return None if batch is None else {self.name: batch.numpy()}

    with quiet():
        quant_pre_process(path, simplified)
        reader = Reader(_session(simplified, threads=None).get_inputs()[0].name)
        quantize_static(
            simplified,
            path,
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _session(path: str | Path, threads: int | None):
    """Open a session on the CPU that logs errors only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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
    from qlearn.export import quiet

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}: write it with qlearn.export.onnx.")
    with quiet():
        session = _session(path, threads)
    name = session.get_inputs()[0].name

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])

    return run
