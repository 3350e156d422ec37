"""ExecuTorch files, fp32 or int8, lowered to XNNPACK, and the runtime to run them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from qlearn.export import common
from qlearn.export.contents import executorch_contents
from qlearn.export.refusals import refusing
from qlearn.quantization.pt2e import (
    give_own_weights,
    lower_to_xnnpack,
    quantize_for_xnnpack,
    require_agreement,
)
from qlearn.system.cache import write_whole
from qlearn.system.errors import explained
from qlearn.system.noise import quiet


def executorch(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    calibration: common.Inputs | None = None,
    check: common.Inputs | None = None,
) -> common.Exported:
    """Write a model as an ExecuTorch file, and run what was written.

    int8 goes by PT2E: the exported graph gets observers from the XNNPACK quantizer (symmetric,
    weights per channel), sees the calibration inputs and is converted. A graph that PT2E has
    converted already, after quantization-aware training for example, is lowered as it is.

    Parameters
    ----------
    model
        A float model, or a graph from ``convert_pt2e``; it is exported in eval mode and stays as
        it is.
    example
        One input, as the runtime will get it: the file is made for its shape, batch included.
    path
        Where to write; an existing file is replaced only by one that has been run.
    calibration
        None for fp32; input tensors or (inputs, labels) pairs for int8. All of it is used.
    check
        More inputs to compare the file and the model on.

    Returns
    -------
    Exported
        With the number of delegates, and the operators that XNNPACK does not run.

    Raises
    ------
    ValueError
        If the model cannot be lowered, the inputs do not fit the example, or the file does not
        do what the model does: one sentence.
    FileNotFoundError, IsADirectoryError
        If the folder does not exist, or the path is a folder.

    Notes
    -----
    Source: https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
    """
    with write_whole(common.require_folder(path, ".pte")) as unfinished:
        source = common.require_runnable(model, example, calibration)
        example = example.contiguous()
        inputs = common.gather_inputs(example, check)
        with quiet(), refusing("ExecuTorch"), torch.no_grad():
            module = give_own_weights(torch.export.export(source, (example,)).module())
            if calibration is not None:
                batches = common.calibration_inputs(calibration, example)
                module = quantize_for_xnnpack(module, common.copy_first(batches, inputs))
            graph = torch.export.export(module, (example,))
            with open(unfinished, "wb") as file:
                lower_to_xnnpack(graph).write_to_file(file)
            contents = executorch_contents(unfinished)
            run = executorch_method(unfinished)
            run(example)
            if calibration is not None or common.is_quantized(source):
                require_agreement(module, run, inputs)
        exact = calibration is None and common.is_float32(source)
        measured = common.verify(unfinished, run, source, inputs, exact)
    return common.Exported(Path(path), *measured, contents.delegates, contents.leftovers)


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
    path = common.require_file(path, "executorch")
    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(path).load_method("forward")

    def run(inputs: Tensor) -> Tensor:
        with explained(f"the file does not run on an input of shape {tuple(inputs.shape)}"):
            return method.execute([inputs.contiguous()])[0]

    return run
