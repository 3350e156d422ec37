"""What a model's artifact holds, read from its own graph: never what its author says of it."""

import copy
from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.exercises import Answer
from qlearn.exercises.untrusted.scripts import load_script
from qlearn.export import executorch_contents

FLOAT16 = "quantized::linear_dynamic_fp16"  # the same class of layer, but no int8
# Operators of TorchScript graphs that hold a quantized layer's weights, and what they are.
DYNAMIC = {
    "quantized::linear_dynamic": "linear",
    "quantized::linear_relu_dynamic": "linear",
    FLOAT16: "linear",
    "aten::quantized_lstm": "lstm",
    "aten::quantized_gru": "gru",
}
STATIC = {
    "quantized::linear": "linear",
    "quantized::linear_relu": "linear",
    "quantized::conv1d": "conv",
    "quantized::conv1d_relu": "conv",
    "quantized::conv2d": "conv",
    "quantized::conv2d_relu": "conv",
    "quantized::conv2d_add_relu": "conv",
}


def quantized_layers(answer: Answer) -> Counter[str]:
    """Count the quantized layers in a TorchScript or ExecuTorch artifact's own graph.

    Parameters
    ----------
    answer
        A model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch file.

    Returns
    -------
    Counter
        Keys such as "dynamic linear", "float16 linear", "dynamic lstm", "static conv"; the same
        layer counts once however often it is called. For ExecuTorch also "float conv" and
        "portable conv" (not run by XNNPACK), as `executorch_contents` names them.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return Counter(executorch_contents(answer.path).layers)
    model = _torchscript(answer)
    kinds = [node.kind() for node in _nodes(model)]
    counts = Counter(kind for kind in map(_packed_kind, model.modules()) if kind)
    if not counts:  # traced or frozen: the operators are left, not the layers
        counts.update(f"dynamic {DYNAMIC[kind]}" for kind in kinds if kind in DYNAMIC)
        counts.update(f"static {STATIC[kind]}" for kind in kinds if kind in STATIC)
    if counts["dynamic linear"]:
        counts["float16 linear"] = kinds.count(FLOAT16)
        counts["dynamic linear"] -= counts["float16 linear"]
    return +counts


def activation_scales(answer: Answer) -> list[float]:
    """Scales of the outputs of a static model's layers, read from its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch
        file.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return executorch_contents(answer.path).scales
    values = [[*node.inputs()][-2].toIValue() for node in _nodes(_torchscript(answer), STATIC)]
    return [value for value in values if isinstance(value, float)]


def operators(answer: Answer) -> Counter[str]:
    """Count the operators in a TorchScript artifact's frozen graph, such as "aten::conv2d".

    Parameters
    ----------
    answer
        A model handed in as TorchScript.
    """
    return Counter(node.kind() for node in _nodes(_torchscript(answer)))


def quantized_weights(answer: Answer) -> list[Tensor]:
    """Quantized weights of a static model's layers, in the order of its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, scripted or traced.
    """
    return [*_packed_weights(answer, STATIC)]


def weight_schemes(answer: Answer) -> list[str]:
    """Say of each int8 layer whether its packed weights have one scale or one a channel.

    Parameters
    ----------
    answer
        A dynamic or static model handed in as TorchScript.

    Returns
    -------
    list of str
        "per tensor" or "per channel", in the order of computation; layers whose weights are
        packed otherwise, as an LSTM's, are left out.
    """
    return [
        "per channel" if "per_channel" in str(weight.qscheme()) else "per tensor"
        for weight in _packed_weights(answer, DYNAMIC | STATIC)
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
        Keys such as "float32", "bfloat16", "int8".
    """
    model = answer.load()
    tensors = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    if not tensors and isinstance(model, torch.jit.ScriptModule):  # it was frozen
        values = (node.output().toIValue() for node in _nodes(model, ("prim::Constant",)))
        tensors = [value for value in values if isinstance(value, Tensor)]
    counts: Counter[str] = Counter()
    for tensor in tensors:
        inner = getattr(tensor, "qdata", tensor)  # torchao keeps its integers there
        counts[str(inner.dtype).removeprefix("torch.")] += inner.numel()
    return counts


def _torchscript(answer: Answer) -> torch.jit.ScriptModule:
    """Return a model as TorchScript; a lite interpreter's file holds it beside its bytecode."""
    assert answer.path.suffix in (".pt", ".ptl"), (
        f"The answer {answer.name!r} is a {answer.kind}; hand in the converted model itself."
    )
    model = answer.load()
    if answer.path.suffix == ".pt":
        return model
    return load_script(answer.path)


def _packed_kind(module: nn.Module) -> str:
    """Tell a quantized layer of a scripted module by its class's name."""
    name = getattr(module, "original_name", "")
    qualified = str(getattr(module, "_c", module)._type()) if hasattr(module, "_c") else ""
    if ".quantized." not in qualified:
        return ""
    word = "dynamic" if ".dynamic." in qualified else "static"
    for kind in ("Linear", "Conv", "LSTM", "GRU", "Embedding"):
        if kind in name and "Packed" not in name:
            return f"{word} {kind.lower()}"
    return ""


def _packed_weights(answer: Answer, kinds: Container[str]) -> Iterator[Tensor]:
    """Unpack the quantized weights of each layer that an operator of these kinds computes."""
    for node in _nodes(_torchscript(answer), kinds):
        for value in node.inputs():
            packed = value.toIValue() if "PackedParams" in str(value.type()) else None
            if packed is not None and hasattr(packed, "unpack"):
                weight = packed.unpack()[0]
                if weight.is_quantized:
                    yield weight


def _nodes(
    model: torch.jit.ScriptModule, kinds: Container[str] | None = None
) -> Iterator[torch._C.Node]:
    """All nodes of the frozen graph, or those of some kinds, those of loops and branches too."""
    # What was handed in frozen already has no mode any more, and freeze() would stumble over that.
    model = copy.deepcopy(model)
    frozen = torch.jit.freeze(model.eval()) if hasattr(model, "training") else model

    def walk(block: Any) -> Iterator[torch._C.Node]:
        for node in block.nodes():
            if kinds is None or node.kind() in kinds:
                yield node
            for inner in node.blocks():
                yield from walk(inner)

    return walk(frozen.inlined_graph)
