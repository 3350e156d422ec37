"""PT2E for ExecuTorch's XNNPACK: an exported graph quantized to int8, lowered, and run."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qlearn.calibration import calibrate, has_observer

if TYPE_CHECKING:
    from executorch.exir import ExecutorchProgramManager


def quantize_for_xnnpack(graph: nn.Module, batches: Iterable) -> nn.Module:
    """Return an exported graph with symmetric int8 weights per channel and int8 activations.

    Parameters
    ----------
    graph
        The module of a ``torch.export.ExportedProgram``; it gets observers.
    batches
        Inputs, or (inputs, labels) pairs, to calibrate with; all of them are used.

    Raises
    ------
    ValueError
        If there is nothing to quantize, or nothing to calibrate with.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    scheme = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(graph, XNNPACKQuantizer().set_global(scheme))
    if not has_observer(prepared):
        raise ValueError("there is nothing to quantize: XNNPACK has an int8 form of no operator")
    calibrate(prepared, batches)
    return convert_pt2e(prepared)


def lower_to_xnnpack(program: torch.export.ExportedProgram) -> "ExecutorchProgramManager":
    """Return an ExecuTorch program whose operators XNNPACK runs wherever it can."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return lowered.to_executorch()


class Program(nn.Module):
    """An ExecuTorch program as a module; its bytes are its state, and so its size."""

    def __init__(self, program: bytes) -> None:
        from executorch.runtime import Runtime

        super().__init__()
        self.register_buffer("program", torch.frombuffer(bytearray(program), dtype=torch.uint8))
        # The runtime reads the bytes where they are, and does not keep them alive itself.
        self.content = program
        self.loaded = Runtime.get().load_program(self.content)
        self.method = self.loaded.load_method("forward")

    def forward(self, x: Tensor) -> Tensor:
        """Run the program."""
        return self.method.execute([x])[0]
