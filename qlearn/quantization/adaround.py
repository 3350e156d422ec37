"""AdaRound: learn for each weight of a layer whether to round it up or down."""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from qlearn.calibration import inputs_of, run_hooked
from qlearn.quantization.equalization import fold
from qlearn.quantization.qconfigs import LAYERS, WeightObserver, grid_of

SAMPLES = 32  # in a step, as in the paper
RATE = 0.02  # Adam's
REGULARIZATION = 0.01  # λ


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
    layer = result.get_submodule(name)
    if type(layer) not in LAYERS:
        raise ValueError(f"{name!r} is a {type(layer).__name__}: choose a Conv2d or Linear layer.")
    # Step 2: record the layer's inputs x and float outputs Wx.
    data = [inputs_of(batch) for batch in itertools.islice(loader, batches)]
    calls = [call for inputs in data for call in run_hooked(result, {name: layer}, inputs)]
    x, wanted = torch.cat([c.source for c in calls]), torch.cat([c.value for c in calls])
    # Step 3: split each weight into the level below it and the fraction of a step above that.
    scale, observer = grid_of(layer, weight)
    floor = (layer.weight.detach() / scale).floor()
    fraction = layer.weight.detach() / scale - floor

    def rounded(up: Tensor) -> Tensor:
        return (floor + up).clamp(observer.quant_min, observer.quant_max) * scale

    def loss(up: Tensor, samples: Tensor) -> Tensor:
        """Return ‖Wx − Ŵx‖² / ‖Wx‖² on some samples."""
        got = torch.func.functional_call(layer, {"weight": rounded(up)}, (x[samples],))
        return (got - wanted[samples]).square().mean() / wanted.square().mean()

    # Step 4: learn which weights go up, and put all of them on their levels.
    layer.weight.data = rounded(_learn_rounding(fraction, loss, len(x), steps))
    return result


def _learn_rounding(
    fraction: Tensor, loss: Callable[[Tensor, Tensor], Tensor], samples: int, steps: int
) -> Tensor:
    """Return 1 for each weight to round up, 0 for each to round down."""
    # Begin with h = fraction, where floor + h is the float weight: invert the rectified sigmoid.
    v = torch.logit((fraction.clamp(0.01, 0.99) + 0.1) / 1.2).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    random = torch.Generator().manual_seed(0)
    for step in range(steps):
        h = _rectified_sigmoid(v)
        total = loss(h, torch.randint(samples, (SAMPLES,), generator=random))
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
