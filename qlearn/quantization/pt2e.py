"""PT2E for ExecuTorch's XNNPACK: an exported graph quantized to int8, lowered, and run."""

import operator
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qlearn.calibration import calibrate, has_observer, sqnr
from qlearn.system.causes import ELSEWHERE
from qlearn.system.noise import quiet

if TYPE_CHECKING:
    from executorch.exir import ExecutorchProgramManager

# Steps that are rounded to the neighbour leave 30 dB and more between a program and its graph.
AGREEMENT_DB = 20


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
    give_own_weights(graph)
    quantizer = XNNPACKQuantizer().set_global(scheme)
    # For patterns of QAT, which this graph cannot have, it exports small models for seconds.
    quantizer.SUPPORTED_PATTERNS = [p for p in quantizer.SUPPORTED_PATTERNS if not p.is_qat]
    prepared = prepare_pt2e(graph, quantizer)
    if not has_observer(prepared):
        raise ValueError("there is nothing to quantize: XNNPACK has an int8 form of no operator")
    calibrate(prepared, batches)
    return convert_pt2e(prepared)


def give_own_weights(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Give each call of a layer weights of its own that are stored, in place, and return the graph.

    A bias is held in steps of the input's scale times the weight's: XNNPACK would give one to all
    calls, whose inputs have several scales. A weight that is computed, such as the transpose of
    another layer's, XNNPACK packs wrongly, and reads beyond it.
    """
    from torchao.quantization.pt2e.constant_fold import constant_fold

    constant_fold(graph)
    seen = set()
    layers = [node for node in graph.graph.nodes if re.search("conv|linear", str(node.target))]
    for layer in layers:
        for source in [node for node in layer.all_input_nodes if node.op == "get_attr"]:
            value = operator.attrgetter(source.target)(graph)
            if id(value) in seen:
                name = f"copy_{len(seen)}"
                value = nn.Parameter(value.detach().clone(), requires_grad=False)
                graph.register_parameter(name, value)
                with graph.graph.inserting_before(layer):
                    copied = graph.graph.get_attr(name)
                copied.meta = dict(source.meta)
                layer.replace_input_with(source, copied)
            seen.add(id(value))
    graph.recompile()
    return graph


def require_agreement(
    graph: nn.Module, run: Callable[[Tensor], Tensor], inputs: Iterable[Tensor]
) -> None:
    """Raise a ValueError if an int8 program computes something else than its own graph."""
    with torch.no_grad():
        wanted, found = zip(*((graph(batch), run(batch)) for batch in inputs), strict=True)
    decibels = sqnr(torch.cat(wanted), torch.cat(found))
    if decibels < AGREEMENT_DB:
        raise ValueError(
            f"XNNPACK's outputs are {decibels:.0f} dB from those of the int8 graph that it was "
            f"made from, and {AGREEMENT_DB} dB is the least: give each layer weights of its own, "
            "and no layer an input much larger than those that it was calibrated on."
        )


def lower_to_xnnpack(program: torch.export.ExportedProgram) -> "ExecutorchProgramManager":
    """Return an ExecuTorch program whose operators XNNPACK runs wherever it can.

    An operator for which the runtime has no kernel either is a ValueError that names it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    lowered = edge.to_executorch()
    # The runtime's own error, when it loads such a program, does not name the operator.
    known = Runtime.get().operator_registry.operator_names
    (plan,) = lowered.executorch_program.execution_plan
    names = [f"{called.name}.{called.overload}".rstrip(".") for called in plan.operators]
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"neither XNNPACK nor the runtime has a kernel for {', '.join(missing)}: {ELSEWHERE}."
        )
    return lowered


class Program(nn.Module):
    """An ExecuTorch program as a module; its bytes are its state, and so its size."""

    def __init__(self, program: bytes) -> None:
        from executorch.runtime import Runtime

        super().__init__()
        self.register_buffer("program", torch.frombuffer(bytearray(program), dtype=torch.uint8))
        # The runtime reads the bytes where they are, and does not keep them alive itself.
        self.content = program
        with quiet():  # of what the runtime says about the processor
            self.loaded = Runtime.get().load_program(self.content)
            self.method = self.loaded.load_method("forward")

    def forward(self, x: Tensor) -> Tensor:
        """Run the program."""
        return self.method.execute([x])[0]
