"""AdaRound: learn for each weight of a layer whether to round it up or down."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from qlearn.calibration import run_hooked
from qlearn.data.batches import batches_of
from qlearn.quantization.equalization import fold, require_right_fold
from qlearn.quantization.qconfigs import LAYERS, WeightObserver, grid_of
from qlearn.system.errors import explained

RATE = 0.03  # Adam's
REGULARIZATION = 1.0  # λ


def adaround(
    model: nn.Module,
    name: str,
    weight: WeightObserver,
    loader: Iterable,
    batches: int = 4,
    steps: int = 400,
) -> torch.fx.GraphModule:
    """Learn for each weight of one layer whether to round it up or down (AdaRound).

    The nearest level is the best for each weight alone, not for their sum. A soft choice h in
    [0, 1] for every weight is trained to keep the layer's output, ‖Wx − Ŵx‖², and pushed towards
    0 or 1 by ``λ Σ (1 − |2h − 1|^β)``, with β falling from 20 to 2. Here the first term is relative
    to ‖Wx‖² and the second a mean, so that one λ serves every layer. The paper's last refinement,
    inputs from the quantized layers before, is left out.

    Parameters
    ----------
    model
        A float model in eval mode; it is not changed. Batch norms are folded first.
    name
        Of a Conv2d or Linear layer.
    weight
        Makes the observer that finds the grid.
    loader, batches
        Inputs, or (inputs, labels) pairs, and how many of these batches to use.
    steps
        Of Adam.

    Returns
    -------
    GraphModule
        With the weights of this layer on their grid, in float.

    Raises
    ------
    ValueError
        If the layer is of another kind, or the observer is not symmetric.

    References
    ----------
    Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization
    (arXiv 2004.10568): the relaxed choice, its regularizer and its schedule.
    """
    # Step 1: fold batch norms, so that the weights are the ones that will be quantized.
    result = fold(model)
    layer = dict(result.named_modules()).get(name)
    if type(layer) not in LAYERS:
        found = f"is a {type(layer).__name__}" if layer is not None else "is no layer of the model"
        raise ValueError(f"{name!r} {found}: choose a Conv2d or Linear layer.")
    # Step 2: of the layer's inputs x, H is all that its output error depends on.
    data = [inputs for inputs, _ in batches_of(loader, model, batches)]
    for inputs in data[:1]:
        require_right_fold(model, inputs)
    with explained("the model fails"):
        calls = [call for inputs in data for call in run_hooked(result, {name: layer}, inputs)]
    if not calls:
        raise ValueError(f"{name!r} was not called: give batches that go through it.")
    H = sum(second_moments(layer, call.source) for call in calls)
    # Step 3: split each weight into the level below it and the fraction of a step above that.
    scale, observer = grid_of(layer, weight)
    floor = (layer.weight.detach() / scale).floor()
    fraction = layer.weight.detach() / scale - floor

    def rounded(up: Tensor) -> Tensor:
        return (floor + up).clamp(observer.quant_min, observer.quant_max) * scale

    def cost(error: Tensor) -> Tensor:
        """Return tr(E H Eᵀ), summed over the groups of a convolution."""
        by_group = error.reshape(len(H), -1, H.shape[-1])
        return (by_group @ H * by_group).sum()

    total = cost(layer.weight.detach())
    if not total:  # the layer has only seen zeros: the nearest levels are as good as any
        layer.weight.data = rounded(fraction.round())
        return result
    # Step 4: learn which weights go up, and put all of them on their levels.
    up = _learn_rounding(
        fraction, lambda h: cost(rounded(h) - layer.weight.detach()) / total, steps
    )
    layer.weight.data = rounded(up)
    return result


def second_moments(layer: nn.Module, x: Tensor) -> Tensor:
    """Return Σ x xᵀ over what each output of a Conv2d or Linear layer is a sum of.

    Parameters
    ----------
    layer
        Its groups, kernel, stride and padding count, not its weights.
    x
        A batch of its inputs.

    Returns
    -------
    Tensor
        Groups × K × K, with K weights to an output.
    """
    if isinstance(layer, nn.Linear):
        rows = x.flatten(0, -2)
        return (rows.T @ rows)[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    options = {"dilation": layer.dilation, "stride": layer.stride}
    patches = nn.functional.unfold(padded, layer.kernel_size, **options)
    patches = patches.transpose(0, 1).reshape(layer.groups, layer.weight[0].numel(), -1)
    return patches @ patches.mT


def _learn_rounding(fraction: Tensor, loss: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Return 1 for each weight to round up, 0 for each to round down."""
    # Begin with h = fraction, where floor + h is the float weight: invert the rectified sigmoid.
    v = torch.logit((fraction.clamp(0.01, 0.99) + 0.1) / 1.2).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    for step in range(steps):
        h = _rectified_sigmoid(v)
        total = loss(h)
        # The first fifth of the steps is for the error alone; then β falls from 20 to 2.
        progress = (step / steps - 0.2) / 0.8
        if progress > 0:
            total = total + REGULARIZATION * _regularizer(h, beta=20 - 18 * progress)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return (v.detach() > 0).float()  # v > 0 where h > 1/2


def _rectified_sigmoid(v: Tensor) -> Tensor:
    """Return sigmoid(v) stretched to −0.1 … 1.1 and clipped, so that h can be exactly 0 or 1."""
    return (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)


def _regularizer(h: Tensor, beta: float) -> Tensor:
    """Return the mean of 1 − |2h − 1|^β: 0 when every choice is made, 1 when none is."""
    return (1 - (2 * h - 1).abs().pow(beta)).mean()
