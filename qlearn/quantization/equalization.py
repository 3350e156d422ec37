"""Cross-layer equalization and bias correction, which prepare a float model for few bits.

Both return a float model that loses less when its weights are rounded; quantize it with any
scheme.
"""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qlearn.calibration import record, require_eval, sqnr
from qlearn.data.batches import batches_of
from qlearn.quantization.qconfigs import LAYERS, WeightObserver, round_weights
from qlearn.quantization.tracing import NO_TRACE, copy_to_trace, require_own_weights
from qlearn.system.errors import explained
from qlearn.training import require_float32

SAME_DB = 60  # a folded batch norm leaves 100 dB and more


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
    require_float32(model)
    require_own_weights(model)
    for name, value in model.named_parameters():
        if value.isnan().any():
            raise ValueError(f"the weights {name} are not a number (NaN): train the model anew.")
    with explained(NO_TRACE):
        traced = torch.fx.symbolic_trace(copy_to_trace(model))
        nodes = [node for node in traced.graph.nodes if node.op == "call_module"]
        calls = Counter(node.target for node in nodes)
        shared = [
            traced.get_submodule(node.target)
            for node in nodes
            if max(calls[part.target] for part in (node, *node.all_input_nodes)) > 1
        ]
        norms = [module for module in shared if getattr(module, "track_running_stats", False)]
        for norm in norms:  # fuse() would fold once for each call: these it passes over
            norm.track_running_stats = False
        fused = fuse(traced, inplace=True).eval()
        for norm in norms:
            norm.track_running_stats = True
        return fused


def require_right_fold(model: nn.Module, example: Tensor) -> None:
    """Raise a ValueError if a batch norm would be folded that normalizes positions, not channels.

    PyTorch folds a BatchNorm1d into the Linear layer before it as if that returned rows,
    N×channels; of a sequence, N×positions×channels, it normalizes the positions.
    """
    if not any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        return
    with explained("the model fails"), torch.no_grad():
        wanted, found = model(example), fold(model)(example)
    if isinstance(wanted, Tensor) and sqnr(wanted, found) < SAME_DB:
        raise ValueError(
            "a BatchNorm1d behind a Linear layer gets sequences, and it would be folded as if it "
            "got rows: put a LayerNorm in its place, or flatten the sequences before the layer."
        )


def equalize(model: nn.Module, sweeps: int = 20) -> torch.fx.GraphModule:
    """Give the channels between two layers equal ranges (cross-layer equalization).

    Where a layer, a ReLU and a layer follow one another, output channel i of the first is divided
    by sᵢ and input channel i of the second multiplied by it. The float outputs stay the same, up
    to rounding, because ReLU(x / s) = ReLU(x) / s for s > 0. With sᵢ = √(r₁ᵢ / r₂ᵢ), where rᵢ is
    the largest weight of the channel in either layer, both ranges become √(r₁ᵢ r₂ᵢ).

    Parameters
    ----------
    model
        A float model in eval mode; it is not changed. Batch norms are folded first.
    sweeps
        Passes over all pairs; each pair disturbs its neighbours, a little less every time.

    Raises
    ------
    ValueError
        If the model cannot be traced, or has no such pair of layers.

    References
    ----------
    Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias Correction
    (arXiv 1906.04721), section 4.1.
    """
    # Step 1: fold batch norms, so that the weights are the ones that will be quantized.
    equalized = fold(model)
    # Step 2: find the pairs of layers that a scale can be moved between.
    pairs = _pairs(equalized)
    if not pairs:
        raise ValueError(
            "there is nothing to equalize: nowhere stands a ReLU alone between two Conv2d or two "
            "Linear layers that are called once and share no weight."
        )
    # Step 3: equalize pair by pair, until the ranges settle: a layer may belong to two pairs.
    with torch.no_grad():
        for _ in range(sweeps):
            for first, second in pairs:
                _equalize_pair(first, second)
    return equalized


def _pairs(graph: torch.fx.GraphModule) -> list[tuple[nn.Module, nn.Module]]:
    """Layers of one kind with nothing but a ReLU between them, each called once, in order."""
    modules = dict(graph.named_modules())
    # A call of a layer uses its weight, and so does whoever reads the weight, or ties it to his.
    uses = Counter(str(n.target) for n in graph.graph.nodes if n.op in ("call_module", "get_attr"))
    owners = Counter(id(p) for _, p in graph.named_parameters(remove_duplicate=False))

    def layer(node: torch.fx.Node) -> nn.Module | None:
        found = modules.get(node.target) if node.op == "call_module" else None
        if type(found) not in LAYERS or uses[node.target] > 1 or uses[f"{node.target}.weight"]:
            return None
        return found if owners[id(found.weight)] == 1 else None

    def is_relu(node: torch.fx.Node) -> bool:
        if node.op == "call_module":
            return type(modules[node.target]) is nn.ReLU
        return node.target in (torch.relu, nn.functional.relu, "relu")

    pairs = []
    for node in graph.graph.nodes:
        # A second user of either value would see the scale, and the outputs would change.
        (relu, *more) = node.users or (None,)
        if layer(node) is None or relu is None or more or not is_relu(relu):
            continue
        (after, *more) = relu.users or (None,)
        # From a convolution to a Linear layer the channels change their axis.
        if after is not None and not more and type(layer(after)) is type(layer(node)):
            pairs.append((layer(node), layer(after)))
    return pairs


def _equalize_pair(first: nn.Module, second: nn.Module) -> None:
    """Equalize the output channels of one layer with the input channels of the next."""
    # The second layer's weights by input channel: groups × outputs × inputs × kernel.
    groups, weight = getattr(second, "groups", 1), second.weight.data
    inward = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    # The range of each channel in either layer: r₁ and r₂.
    range1 = first.weight.abs().flatten(1).amax(1)
    range2 = inward.abs().amax((1, 3)).flatten()
    # s = √(r₁ / r₂); a channel without weights on one side has nothing to equalize.
    scale = torch.sqrt(range1 / range2)
    scale[(range1 == 0) | (range2 == 0)] = 1
    # Divide the first layer's outputs, bias included, and multiply the second layer's inputs.
    first.weight.data /= scale.reshape(-1, *[1] * (first.weight.dim() - 1))
    if first.bias is not None:
        first.bias.data /= scale
    second.weight.data = (inward * scale.reshape(groups, 1, -1, 1)).reshape(weight.shape)


def correct_bias(
    model: nn.Module, weight: WeightObserver, loader: Iterable, batches: int = 4
) -> torch.fx.GraphModule:
    """Shift biases so that rounded weights leave the mean of each channel unchanged.

    The rounding errors of a channel's weights do not cancel where inputs are positive, as after a
    ReLU: the mean of its output moves. Layer by layer, with the layers before it rounded and
    corrected already, the mean error over some data is subtracted from the bias.

    Parameters
    ----------
    model
        A float model in eval mode; it is not changed. Batch norms are folded first.
    weight
        Makes the observer of the weights: the ``weight`` of the QConfig to be used.
    loader, batches
        Inputs, or (inputs, labels) pairs, and how many of these batches to use.

    Returns
    -------
    GraphModule
        With the float weights and with biases for the rounded ones: its outputs are right only
        after its weights have been quantized.

    References
    ----------
    Nagel et al. 2019 (arXiv 1906.04721), section 4.2; the means are measured on data, as in their
    appendix D, and not computed from batch norms.
    """
    # Step 1: fold batch norms, and list the layers in the order in which they run.
    corrected = fold(model)
    calls = [node.target for node in corrected.graph.nodes if node.op == "call_module"]
    names = [n for n in dict.fromkeys(calls) if type(corrected.get_submodule(n)) in LAYERS]
    # Step 2: measure the mean output of each channel with float weights, E[y].
    if not names:
        raise ValueError("the model has no Conv2d or Linear layer whose bias could be corrected.")
    data = [inputs for inputs, _ in batches_of(loader, model, batches)]
    for inputs in data[:1]:
        require_right_fold(model, inputs)
    wanted = _channel_means(corrected, names, data)
    # Step 3: round the weights.
    rounded = round_weights(corrected, weight)
    for name in names:
        # Step 4: measure again. Earlier layers are corrected: what is left is this layer's error.
        shift = wanted[name] - _channel_means(rounded, [name], data)[name]
        # Step 5: add E[y] − E[ŷ] to the bias, where the next layer will see it and in the result.
        for layer in (rounded.get_submodule(name), corrected.get_submodule(name)):
            bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach()
            layer.bias = nn.Parameter(bias + shift)
    return corrected


def _channel_means(model: nn.Module, names: list[str], data: list[Tensor]) -> dict[str, Tensor]:
    """Mean output of each channel of each layer, over all of its calls."""
    means = {}
    for name, calls in record(model, names, data, batches=None).items():
        axis = -1 if isinstance(model.get_submodule(name), nn.Linear) else 1
        means[name] = torch.cat([y.transpose(0, axis).flatten(1) for y in calls], 1).mean(1)
    return means
