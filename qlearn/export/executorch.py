"""ExecuTorch files, fp32 or int8, lowered to XNNPACK, and the runtime to run them."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


def executorch(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    calibration: Iterable[Tensor | tuple[Tensor, Tensor]] | None = None,
) -> Path:
    """Write a float model as an ExecuTorch file, int8 if there are inputs to calibrate with.

    int8 goes by PT2E: the exported graph gets observers from the XNNPACK quantizer (symmetric,
    weights per channel), sees the calibration inputs and is converted.

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
    Source: https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
    """
    from qlearn.export import quiet, replacing

    with replacing(path) as unfinished, quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(copy.deepcopy(model).eval(), (example,))
        if calibration is not None:
            quantized = _quantize(exported.module(), example, calibration)
            exported = torch.export.export(quantized, (example,))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        with open(unfinished, "wb") as file:
            lowered.to_executorch().write_to_file(file)
    return Path(path)


def _quantize(
    graph: nn.Module, example: Tensor, calibration: Iterable[Tensor | tuple[Tensor, Tensor]]
) -> nn.Module:
    """Return the exported graph with observers added, calibrated and converted to int8."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from qlearn.export import calibration_inputs

    scheme = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(graph, XNNPACKQuantizer().set_global(scheme))
    for batch in calibration_inputs(calibration, example):
        prepared(batch)
    return convert_pt2e(prepared)


def executorch_method(path: str | Path, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """Load an ExecuTorch file's ``forward`` method.

    Parameters
    ----------
    path
        A file that ``executorch`` has written: one input, one output.
    threads
        Threads of the runtime, for the whole process; None leaves the choice to it.

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
        raise FileNotFoundError(f"There is no file {path}: write it with qlearn.export.executorch.")
    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(path).load_method("forward")

    def run(inputs: Tensor) -> Tensor:
        return method.execute([inputs])[0]

    return run
