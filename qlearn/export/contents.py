"""What an ExecuTorch file holds, read from its bytes without running it.

The runtime ends the process on some damaged files; what is read here raises ValueError instead.
ExecuTorch has no public reader, so this uses the one that its own tests use, and the schema that
ships with its XNNPACK backend.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlearn.export.noise import quiet

IDENTIFIER = b"ET12"  # bytes 4 to 8 of every ExecuTorch file
LAYERS = {
    "XNNConv2d": "conv",
    "XNNDepthwiseConv2d": "conv",
    "XNNConvTranspose2d": "conv",
    "XNNFullyConnected": "linear",
}
OPERATORS = {  # of the portable kernels
    "aten::convolution": "conv",
    "aten::linear": "linear",
    "aten::addmm": "linear",
    "aten::mm": "linear",
}
STATIC = ("xnn_datatype_qint8", "xnn_datatype_quint8")
DYNAMIC = ("xnn_datatype_qdint8", "xnn_datatype_qpint8")
WEIGHTS = (*STATIC, "xnn_datatype_qcint8", "xnn_datatype_qcint4", "xnn_datatype_qbint4")


@dataclass(frozen=True)
class Contents:
    """What a file's layers are, and the scales of its int8 activations.

    Attributes
    ----------
    layers
        One word pair a layer, such as "static conv", "dynamic linear" or "float conv" when
        XNNPACK runs it, and "portable conv" when it was left to the slow portable operators.
    scales
        Scales of the activations, per tensor.
    delegates
        Parts of the graph that a backend such as XNNPACK runs.
    leftovers
        Operators that the runtime's own kernels run, and how many calls of each.
    """

    layers: list[str]
    scales: list[float]
    delegates: int
    leftovers: Counter[str]


def executorch_contents(path: str | Path) -> Contents:
    """Read a file's layers and scales.

    Parameters
    ----------
    path
        An ExecuTorch file.

    Raises
    ------
    ValueError
        If it is none, or is damaged.
    """
    data = Path(path).read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ValueError("it does not begin as an ExecuTorch file does")
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        program = deserialize_pte_binary(data).program
        layers, scales, leftovers, delegates = [], [], Counter(), 0
        for plan in program.execution_plan:
            called = list(_called(plan))
            leftovers.update(f"{name}.{overload}".rstrip(".") for name, overload in called)
            layers += [f"portable {OPERATORS[name]}" for name, _ in called if name in OPERATORS]
            delegates += len(plan.delegates)
            for delegate in plan.delegates:
                if delegate.id == "XnnpackBackend":
                    blob = program.backend_delegate_data[delegate.processed.index].data
                    graph = _xnnpack_graph(bytes(blob))
                    layers += _layers(graph)
                    scales += _scales(graph)
    except Exception as error:
        raise ValueError(f"it is damaged: {type(error).__name__}") from error
    return Contents(layers, scales, delegates, leftovers)


def _called(plan: Any) -> Iterator[tuple[str, str]]:
    """Yield name and overload of the operator of each call."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            number = getattr(instruction.instr_args, "op_index", None)
            if number is not None:
                yield plan.operators[number].name, plan.operators[number].overload


def _xnnpack_graph(blob: bytes) -> dict:
    """Decode the flatbuffer that XNNPACK's backend is given."""
    from importlib.resources import files

    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    end = header.flatbuffer_offset + header.flatbuffer_size
    if not header.is_valid() or header.constant_data_offset + header.constant_data_size > len(blob):
        raise ValueError("a header points beyond its data")
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        package = files("executorch.backends.xnnpack.serialization")
        schema.write_bytes((package / "schema.fbs").read_bytes())
        binary.write_bytes(blob[header.flatbuffer_offset : end])
        with quiet():
            _flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
        text = binary.with_suffix(".json").read_bytes()
    # An unbounded activation is written as a bare inf, which JSON does not know.
    return json.loads(re.sub(rb": -?(?:inf|nan)\b", rb": null", text))


def _values(graph: dict) -> dict[int, dict]:
    """Tensors by number, with ``scale`` where they have one."""
    values = {}
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"]
        tensor = tensor.get("tensor_value", tensor) | {
            "scale": tensor.get("quant_params", {}).get("scale")
        }
        values[tensor["id_out"]] = tensor
    return values


def _layers(graph: dict) -> Iterator[str]:
    values = _values(graph)
    for node in graph["xnodes"]:
        kind = LAYERS.get(node["xnode_union_type"])
        if kind:
            read = [values[node["xnode_union"][key]] for key in ("input1_id", "filter_id")]
            inputs, weights = (tensor["datatype"] for tensor in read)
            if weights not in WEIGHTS:
                yield f"float {kind}"
            elif inputs in STATIC:
                yield f"static {kind}"
            else:
                yield f"{'dynamic' if inputs in DYNAMIC else 'weight-only'} {kind}"


def _scales(graph: dict) -> Iterator[float]:
    for tensor in _values(graph).values():
        if tensor["datatype"] in STATIC and not tensor["constant_buffer_idx"]:
            yield tensor["scale"]
