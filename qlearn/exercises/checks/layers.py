"""What a model's artifact holds, read from its operators: never what its author says of it."""

import copy
import hashlib
from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor

from qlearn.exercises import Answer, under
from qlearn.exercises.untrusted.scripts import load_script
from qlearn.export import executorch_contents

# Operators that compute with packed weights, and the layer that each of them is.
LAYERS = {
    "quantized::linear_dynamic": "dynamic linear",
    "quantized::linear_relu_dynamic": "dynamic linear",
    "quantized::linear_dynamic_fp16": "dynamic linear",
    "quantized::linear_relu_dynamic_fp16": "dynamic linear",
    "aten::quantized_lstm": "dynamic lstm",
    "aten::quantized_gru": "dynamic gru",
    "quantized::linear": "static linear",
    "quantized::linear_relu": "static linear",
    "quantized::conv1d": "static conv",
    "quantized::conv1d_relu": "static conv",
    "quantized::conv2d": "static conv",
    "quantized::conv2d_relu": "static conv",
    "quantized::conv2d_add_relu": "static conv",
    "quantized::embedding_byte": "static embedding",
    "quantized::embedding_4bit": "static embedding",
}
VIEWS = {f"aten::{name}" for name in ("to", "expand", "slice", "select", "squeeze", "squeeze_")}


def quantized_layers(answer: Answer) -> Counter[str]:
    """Count the quantized layers in a TorchScript or ExecuTorch artifact's own graph.

    Parameters
    ----------
    answer
        A model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch file.

    Returns
    -------
    Counter
        Keys such as "dynamic linear", "float16 linear", "dynamic lstm", "static conv"; layers are
        told apart by their weights, so the same one counts once however often it is called. A
        "static lstm" is two linear layers that are called at each step. For ExecuTorch also
        "float conv" and "portable conv" (not run by XNNPACK), as `executorch_contents` names them.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return Counter(executorch_contents(answer.path).layers)
    found: dict[bytes, str] = {}
    looped = set()
    for node, depth in _nodes(answer, LAYERS):
        layer = LAYERS[node.kind()]
        weights = [weight for packed in _packed(node) for weight in _weights_of(packed)]
        if not weights:
            continue
        if not all(weight.is_quantized for weight in weights):
            layer = f"float16 {layer.split()[1]}"
        key = hashlib.sha256(layer.encode() + b"".join(map(_content, weights))).digest()
        if layer == "static linear" and (depth or key in found):  # a trace repeats it
            looped.add(key)
        found[key] = layer
    counts = Counter(found.values())
    counts["static lstm"] = len(looped) // 2  # for its input and for its state
    return +counts


def activation_scales(answer: Answer) -> list[float]:
    """Scales of inputs and outputs of a static model's layers, read from its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch
        file.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return executorch_contents(answer.path).scales
    scales = []
    for node, _ in _nodes(answer):
        if not node.kind().startswith(("quantized::", "aten::quantize_per_tensor")):
            continue
        source = next(node.inputs()).node()
        while source.kind() in VIEWS:
            source = next(source.inputs()).node()
        if source.kind() in ("aten::zeros", "prim::Constant"):  # the state that an LSTM begins with
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        for name, value in zip(names, node.inputs(), strict=False):
            constant = value.toIValue() if "scale" in name else None  # of what it gives
            if (
                isinstance(constant, float)
                or isinstance(constant, Tensor)
                and constant.numel() == 1
            ):
                scales.append(float(constant))
    return scales


def operators(answer: Answer) -> Counter[str]:
    """Count the operators in a TorchScript artifact's frozen graph, such as "aten::conv2d".

    Parameters
    ----------
    answer
        A model handed in as TorchScript.
    """
    return Counter(node.kind() for node, _ in _nodes(answer))


def quantized_weights(answer: Answer) -> list[Tensor]:
    """Quantized weights of a static model's layers, in the order of its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, scripted or traced.
    """
    kinds = [kind for kind, layer in LAYERS.items() if layer in ("static linear", "static conv")]
    return _quantized(answer, kinds)


def weight_schemes(answer: Answer) -> list[str]:
    """Say of each int8 layer whether its packed weights have one scale or one a channel.

    Parameters
    ----------
    answer
        A dynamic or static model handed in as TorchScript, or as an ExecuTorch file.

    Returns
    -------
    list of str
        "per tensor" or "per channel", in the order of computation; recurrent layers and
        embeddings are left out. For ExecuTorch also "per group".
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return executorch_contents(answer.path).schemes
    kinds = [kind for kind, layer in LAYERS.items() if layer.endswith(("linear", "conv"))]
    return [
        "per channel" if "per_channel" in str(weight.qscheme()) else "per tensor"
        for weight in _quantized(answer, kinds)
    ]


def weight_types(answer: Answer) -> Counter[str]:
    """Count the numbers that a model stores as plain or torchao tensors, by their type.

    Parameters
    ----------
    answer
        A model handed in as TorchScript or exported program; int8 weights that the legacy API
        packs are not counted.

    Returns
    -------
    Counter
        Keys such as "float32", "bfloat16", "int8". A number in memory counts once, whatever shape
        a tensor gives to it.
    """
    assert answer.path.suffix in (".pt", ".pt2"), (
        f"The answer {answer.name!r} is {answer.article_and_kind}; hand in the model itself."
    )
    # Not the copy that load() gives, in which every number has memory of its own.
    model = load_script(answer.path) if answer.path.suffix == ".pt" else answer.load()
    tensors = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    if not tensors and isinstance(model, torch.jit.ScriptModule):  # it was frozen
        values = (node.output().toIValue() for node, _ in _nodes(answer, ("prim::Constant",)))
        tensors = [value for value in values if isinstance(value, Tensor)]
    stored = {}
    for tensor in tensors:
        inner = getattr(tensor, "qdata", tensor)  # torchao keeps its integers there
        memory = inner.untyped_storage()
        number = min(inner.numel(), memory.nbytes() // inner.element_size())
        stored[memory.data_ptr()] = (str(inner.dtype).removeprefix("torch."), number)
    counts: Counter[str] = Counter()
    for kind, number in stored.values():
        counts[kind] += number
    return counts


def _quantized(answer: Answer, kinds: Container[str]) -> list[Tensor]:
    """Return the int8 weights of each layer that an operator of these kinds computes, once each."""
    found = {}
    for node, _ in _nodes(answer, kinds):
        for packed in _packed(node):
            for weight in _weights_of(packed):
                if weight.is_quantized:
                    found.setdefault(_content(weight), weight)
    return [*found.values()]


def _content(weight: Tensor) -> bytes:
    numbers = weight.int_repr() if weight.is_quantized else weight
    whole = numbers.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return repr(weight.shape).encode() + hashlib.sha256(whole).digest()


def _packed(node: torch._C.Node) -> Iterator[Any]:
    """Yield the packed parameters among a node's constants; a recurrent layer has a list."""
    for value in node.inputs():
        if "ParamsBase" not in str(value.type()):
            continue
        appended = [use.user for use in value.uses() if use.user.kind() == "aten::append"]
        listed = [[*user.inputs()][1] for user in appended]
        if value.node().kind() == "prim::ListConstruct":
            listed += value.node().inputs()
        for part in listed or [value]:
            constant = part.toIValue()
            yield from constant if isinstance(constant, list) else [constant]


def _weights_of(packed: Any) -> list[Tensor]:
    """Return the weights in packed parameters: quantized tensors, or others where it is float16."""
    if hasattr(packed, "unpack"):
        weight = packed.unpack()
        return [weight[0] if isinstance(weight, tuple) else weight]
    if isinstance(packed, torch.ScriptObject):  # a cell of a recurrent layer, of two linear ones
        packed = packed.__getstate__()
    parts = packed if isinstance(packed, list | tuple) else []
    return [weight for part in parts for weight in _weights_of(part)]


def torchscript(answer: Answer) -> torch.jit.ScriptModule:
    """Return a model as TorchScript; a lite interpreter's file holds it beside its bytecode."""
    assert answer.path.suffix in (".pt", ".ptl"), (
        f"The answer {answer.name!r} is {answer.article_and_kind}; hand in the converted "
        "model itself."
    )
    model = answer.load()
    if answer.path.suffix == ".pt":
        return model
    return load_script(answer.path)


def _nodes(
    answer: Answer, kinds: Container[str] | None = None
) -> Iterator[tuple[torch._C.Node, int]]:
    """All nodes of the frozen graph, or those of some kinds, and how many loops are around each."""
    with under(answer.made_with):
        # What was handed in frozen has no mode any more, and freeze() would stumble over that.
        model = copy.deepcopy(torchscript(answer))
        frozen = torch.jit.freeze(model.eval()) if hasattr(model, "training") else model

    def walk(block: Any, loops: int) -> Iterator[tuple[torch._C.Node, int]]:
        for node in block.nodes():
            if kinds is None or node.kind() in kinds:
                yield node, loops
            for inner in node.blocks():
                yield from walk(inner, loops + (node.kind() == "prim::Loop"))

    return walk(frozen.inlined_graph, 0)
