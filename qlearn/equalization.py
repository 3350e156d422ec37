"""Classical repairs of post-training quantization, small and from scratch.

They take a float model and return a float model that loses less when its weights are rounded:
quantize the result with any scheme.
"""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from qlearn.calibration import inputs_of, record, require_eval

Observer = Callable[[], nn.Module]  # makes a weight observer, as the ``weight`` of a QConfig does


def fold(model: nn.Module) -> torch.fx.GraphModule:
    """Return a copy of a float model with each batch norm folded into the convolution before it.

    Parameters
    ----------
    model
        In eval mode, and such that ``torch.fx`` can trace it.

    Raises
    ------
    ValueError
        If the model is in training mode or cannot be traced.
    """
    from torch.fx.experimental.optimization import fuse

    require_eval(model, "the model")
    try:
        return fuse(torch.fx.symbolic_trace(copy.deepcopy(model))).eval()
    except (torch.fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"torch.fx cannot trace the model: {error}") from error


def equalize(model: nn.Module, sweeps: int = 20) -> torch.fx.GraphModule:
    """Give channels between two layers ranges that agree (cross-layer equalization).

    Wherever layer, ReLU, layer follow one another, channel i of the first is divided by sᵢ and
    undone in the second: ReLU(x / s) = ReLU(x) / s for s > 0. With sᵢ = √(r₁ᵢ / r₂ᵢ), where
    rᵢ is the largest weight of the channel in either layer, both get the range √(r₁ᵢ r₂ᵢ). The
    float outputs stay the same, up to rounding.

    Parameters
    ----------
    model
        A float model in eval mode; it stays as it is. Batch norms are folded first.
    sweeps
        Times to go through all pairs; each pair disturbs its neighbours a little less.

    Raises
    ------
    ValueError
        If the model cannot be traced, or has no such pair of layers.

    References
    ----------
    Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias Correction
    (arXiv 1906.04721), section 4.1.
    """
    equalized = fold(model)
    pairs = _pairs(equalized)
    if not pairs:
        raise ValueError("there is nothing to equalize: no ReLU stands between two layers.")
    with torch.no_grad():
        for _ in range(sweeps):
            for first, second in pairs:
                _equalize(first, second)
    return equalized


def _pairs(graph: torch.fx.GraphModule) -> list[tuple[nn.Module, nn.Module]]:
    """Layers with nothing but a ReLU between them, each called once, in order."""
    modules = dict(graph.named_modules())
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]

    def layer(node: torch.fx.Node) -> nn.Module | None:
        once = node.op == "call_module" and calls.count(node.target) == 1
        return modules[node.target] if once and is_layer(modules[node.target]) else None

    def is_relu(node: torch.fx.Node) -> bool:
        if node.op == "call_module":
            return type(modules[node.target]) is nn.ReLU
        return node.target in (torch.relu, nn.functional.relu, "relu")

    pairs = []
    for node in graph.graph.nodes:
        (relu, *more) = node.users or (None,)
        if layer(node) is None or relu is None or more or not is_relu(relu):
            continue
        (after, *more) = relu.users or (None,)
        if after is not None and not more and layer(after) is not None:
            pairs.append((layer(node), layer(after)))
    return pairs


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is one that these repairs know."""
    return type(module) in (nn.Conv2d, nn.Linear)


def _equalize(first: nn.Module, second: nn.Module) -> None:
    """Equalize the output channels of one layer with the input channels of the next."""
    groups = getattr(second, "groups", 1)
    weight = second.weight.data
    # groups × outputs of a group × inputs of a group × kernel
    inward = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    reach = first.weight.abs().flatten(1).amax(1)
    reach_next = inward.abs().amax((1, 3)).flatten()
    scale = torch.sqrt(reach / reach_next)
    scale[(reach == 0) | (reach_next == 0)] = 1  # a dead channel has nothing to equalize
    first.weight.data /= scale.reshape(-1, *[1] * (first.weight.dim() - 1))
    if first.bias is not None:
        first.bias.data /= scale
    second.weight.data = (inward * scale.reshape(groups, 1, -1, 1)).reshape(weight.shape)


def correct_bias(
    model: nn.Module, weight: Observer, loader: Iterable, batches: int = 4
) -> torch.fx.GraphModule:
    """Shift biases so that rounding the weights leaves each channel's mean where it was.

    Rounding errors of one channel's weights do not cancel where inputs are positive, as after a
    ReLU: the mean of its output moves. Layer by layer, with the layers before it already rounded
    and corrected, the mean error over some data is taken off the bias.

    Parameters
    ----------
    model
        A float model in eval mode; it stays as it is. Batch norms are folded first.
    weight
        Makes the observer of the weights: the ``weight`` of the QConfig to be used.
    loader, batches
        Inputs, or (inputs, labels) pairs, and how many of these batches to use.

    Returns
    -------
    GraphModule
        Weights in float, as they were; biases for the rounded weights. Its float outputs are off
        by what rounding is going to put right.

    References
    ----------
    Nagel et al. 2019 (arXiv 1906.04721), section 4.2; the means are measured here, as in their
    appendix D, and not computed from batch norms.
    """
    corrected = fold(model)
    data = [inputs_of(batch) for batch, _ in zip(loader, range(batches), strict=False)]
    calls = [node.target for node in corrected.graph.nodes if node.op == "call_module"]
    names = [name for name in dict.fromkeys(calls) if is_layer(corrected.get_submodule(name))]
    wanted = _means(corrected, names, data)
    rounded = round_weights(corrected, weight)
    for name in wanted:
        shift = wanted[name] - _means(rounded, [name], data)[name]
        for layer in (rounded.get_submodule(name), corrected.get_submodule(name)):
            bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach()
            layer.bias = nn.Parameter(bias + shift)
    return corrected


def _means(model: nn.Module, names: list[str], data: list[Tensor]) -> dict[str, Tensor]:
    """Mean output of each channel of each layer, in the order of the names."""
    outputs = record(model, names, data, batches=None)
    return {
        name: torch.cat(parts).transpose(0, 1 if parts[0].dim() == 4 else -1).flatten(1).mean(1)
        for name, parts in outputs.items()
    }


def round_weights(model: nn.Module, weight: Observer) -> nn.Module:
    """Return a copy with the weights of each Conv2d and Linear rounded to their grid, in float.

    Parameters
    ----------
    model
        A float model.
    weight
        Makes the observer that finds a layer's grid.
    """
    rounded = copy.deepcopy(model)
    for layer in filter(is_layer, rounded.modules()):
        scale, observer = grid_of(layer, weight)
        codes = (layer.weight.detach() / scale).round()
        layer.weight.data = codes.clamp(observer.quant_min, observer.quant_max) * scale
    return rounded


def grid_of(layer: nn.Module, weight: Observer) -> tuple[Tensor, nn.Module]:
    """Return the step of a layer's symmetric grid, shaped like its weights, and the observer."""
    observer = weight()
    observer(layer.weight.detach())
    scale, zero_point = observer.calculate_qparams()
    if zero_point.any():
        raise ValueError("the weight observer is not symmetric: choose a symmetric qscheme.")
    return scale.reshape(-1, *[1] * (layer.weight.dim() - 1)), observer
