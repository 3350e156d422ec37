"""Tracing: a copy of a model whose ``torch.fx`` graph computes what the model does."""

import copy
from collections import Counter

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

from qlearn.calibration import run_hooked

NO_TRACE = "torch.fx cannot trace the model"
REMEDIES = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}


def copy_to_trace(model: nn.Module) -> nn.Module:
    """Copy a model such that its trace has each value under one name, and inputs by position.

    A statement such as ``y.mul_(3)`` changes ``y`` and returns what nobody reads: ``convert_fx()``
    drops it. Here whatever reads ``y`` afterwards reads what the statement returns. A model in
    which there is nothing to write anew is only copied.
    """
    copied = copy_with_paddings(model)
    traced = torch.fx.symbolic_trace(copied)
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    rewritten = False
    for node in order:
        if node.op == "call_module" and list(node.kwargs) == ["input"]:
            node.args, node.kwargs, rewritten = (node.kwargs["input"],), {}, True
        if not (node.args and _is_in_place(node, traced)):
            continue
        changed = node.args[0]
        for later in [user for user in changed.users if order[user] > order[node]]:
            later.replace_input_with(changed, node)
            rewritten = True
        if not node.users:
            raise ValueError(
                f"the statement {node.name} changes a part or a view of a tensor in place, which "
                "FX mode would lose: write it as y = y * 3 instead of y.mul_(3)."
            )
    traced.recompile()
    return traced if rewritten else copied


def _is_in_place(node: torch.fx.Node, traced: torch.fx.GraphModule) -> bool:
    """Say whether a node changes its first argument."""
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(node.target), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    named = name.endswith("_") and not name.endswith("__")
    return node.op.startswith("call_") and (named or bool(node.kwargs.get("inplace")))


def copy_with_paddings(model: nn.Module) -> nn.Module:
    """Copy a model, and write "same" and "valid" paddings as numbers: int8 layers take no words."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        convolution = isinstance(layer, nn.modules.conv._ConvNd)
        if convolution and isinstance(layer.padding, str):
            same = layer.padding == "same"
            sizes = zip(layer.dilation, layer.kernel_size, strict=True)
            whole = [dilation * (kernel - 1) * same for dilation, kernel in sizes]
            if all(size % 2 == 0 for size in whole):
                layer.padding = tuple(size // 2 for size in whole)
    return copied


def separate_calls(
    model: nn.Module, mapping: tq.QConfigMapping, example: Tensor
) -> tuple[nn.Module, tq.QConfigMapping]:
    """Give each further call of a layer a copy of the layer, named by `name_of_call`.

    A quantized layer has one scale for its outputs, and those of two calls may differ much. A model
    in which no layer is called twice is returned as it is.
    """
    layers = {name: m for name, m in model.named_modules() if _has_state(m)}
    if max(Counter(c.name for c in run_hooked(model, layers, example)).values(), default=0) < 2:
        return model, mapping
    traced, mapping, seen = torch.fx.symbolic_trace(model), copy.copy(mapping), Counter()
    mapping.module_name_qconfigs = mapping.module_name_qconfigs.copy()
    for node in traced.graph.nodes:
        if node.op != "call_module" or not _has_state(traced.get_submodule(node.target)):
            continue
        name = node.target
        seen[name] += 1
        if seen[name] > 1:
            node.target = name_of_call(name, seen[name])
            traced.add_submodule(node.target, copy.deepcopy(traced.get_submodule(name)))
            if name in mapping.module_name_qconfigs:
                mapping.set_module_name(node.target, mapping.module_name_qconfigs[name])
    traced.recompile()
    return traced, mapping


def _has_state(module: nn.Module) -> bool:
    """Say whether a module is one of PyTorch's layers with weights: tracing leaves it whole."""
    whole = type(module).__module__.startswith("torch.nn.") and not any(module.children())
    return whole and bool(module.state_dict())


def name_of_call(name: str, call: int) -> str:
    """Return the name of the copy of a layer that serves its second, third, … call."""
    return name if call == 1 else f"{name}_call_{call}"


def layer_and_call(name: str) -> tuple[str, int]:
    """Return what `name_of_call` made a name of."""
    layer, _, call = name.rpartition("_call_")
    return (layer, int(call)) if layer and call.isdigit() else (name, 1)


def require_own_weights(model: nn.Module) -> None:
    """Raise a ValueError if a hook computes a layer's weight anew in each call: it would be lost.

    (A parametrization is refused by PyTorch itself.)
    """
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            kind = type(hook)
            if kind.__module__.startswith("torch.nn.utils"):
                remedy = REMEDIES.get(kind.__name__, "prune.remove")
                raise ValueError(
                    f"layer {name!r} computes its weight anew in each call ({kind.__name__}): call "
                    f"torch.nn.utils.{remedy}(layer, 'weight') on it first."
                )
