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

from qlearn.system.noise import quiet

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
        Two words for each layer, such as "static conv", "dynamic linear" or "float conv" when
        XNNPACK runs it, and "portable conv" when it was left to the slow portable operators.
    schemes
        "per tensor", "per channel" or "per group" for the quantized weights of each layer that
        XNNPACK runs.
    scales
        Scales of the activations, per tensor.
    delegates
        Parts of the graph that a backend such as XNNPACK runs.
    leftovers
        Operators that the runtime's own kernels run, and how many calls of each.
    """

    layers: list[str]
    schemes: list[str]
    scales: list[float]
    delegates: int
    leftovers: Counter[str]


def executorch_contents(path: str | Path) -> Contents:
    """Read a file's layers, their schemes and scales.

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
        layers, schemes, scales, leftovers, delegates = [], [], [], Counter(), 0
        for plan in program.execution_plan:
            called = list(_list_calls(plan))
            leftovers.update(f"{name}.{overload}".rstrip(".") for name, overload in called)
            layers += [f"portable {OPERATORS[name]}" for name, _ in called if name in OPERATORS]
            delegates += len(plan.delegates)
            for delegate in plan.delegates:
                if delegate.id == "XnnpackBackend":
                    blob = program.backend_delegate_data[delegate.processed.index].data
                    nodes, tensors = _decode_xnnpack(bytes(blob))
                    found = [node for node in nodes if node[0] in LAYERS]
                    layers += (_name_layer(*node, tensors) for node in found)
                    schemes += _list_schemes(found, tensors)
                    scales += _list_scales(tensors)
    except Exception as error:
        raise ValueError(f"it is damaged: {type(error).__name__}") from error
    return Contents(layers, schemes, scales, delegates, leftovers)


def _list_calls(plan: Any) -> Iterator[tuple[str, str]]:
    """Yield name and overload of the operator of each call."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            number = getattr(instruction.instr_args, "op_index", None)
            if number is not None:
                yield plan.operators[number].name, plan.operators[number].overload


def _decode_xnnpack(blob: bytes) -> tuple[list[tuple[str, dict]], dict[int, dict]]:
    """Return the nodes (type and fields) and the tensors (by number) of XNNPACK's graph."""
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
    graph = json.loads(re.sub(rb": -?(?:inf|nan)\b", rb": null", text))
    values = [value["xvalue_union"] for value in graph["xvalues"]]
    # A quantized tensor's entry holds that of the tensor, and its scale beside it.
    tensors = [v.get("tensor_value", v) | {"quantized": v.get("quant_params")} for v in values]
    nodes = [(node["xnode_union_type"], node["xnode_union"]) for node in graph["xnodes"]]
    return nodes, {tensor["id_out"]: tensor for tensor in tensors}


def _name_layer(kind: str, fields: dict, tensors: dict[int, dict]) -> str:
    inputs, weights = (tensors[fields[key]]["datatype"] for key in ("input1_id", "filter_id"))
    if weights not in WEIGHTS:
        how = "float"
    elif inputs in STATIC:
        how = "static"
    else:
        how = "dynamic" if inputs in DYNAMIC else "weight-only"
    return f"{how} {LAYERS[kind]}"


def _list_schemes(layers: list[tuple[str, dict]], tensors: dict[int, dict]) -> Iterator[str]:
    """Yield how many scales the weights of each quantized layer have, by their parameters."""
    for _, fields in layers:
        weights = tensors[fields["filter_id"]]
        if weights["datatype"] in WEIGHTS:
            of_groups, of_channels = (
                key in weights["quantized"] for key in ("group_size", "channel_dim")
            )
            yield "per group" if of_groups else "per channel" if of_channels else "per tensor"


def _list_scales(tensors: dict[int, dict]) -> Iterator[float]:
    for tensor in tensors.values():
        if tensor["datatype"] in STATIC and not tensor["constant_buffer_idx"]:
            yield tensor["quantized"]["scale"]
