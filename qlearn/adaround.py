"""What is learned about rounding: up or down after training, the size of a step during it."""

from collections.abc import Callable, Iterable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

from qlearn.calibration import inputs_of, run_hooked
from qlearn.repair import Observer, fold, grid_of, is_layer

SAMPLES = 32  # in a step of AdaRound, as in the paper


def adaround(
    model: nn.Module,
    name: str,
    weight: Observer,
    loader: Iterable,
    batches: int = 4,
    steps: int = 400,
) -> torch.fx.GraphModule:
    """Learn for each weight of one layer whether to round it up or down (AdaRound).

    The nearest level is the best for each weight alone, not for their sum. A soft choice
    h in [0, 1] for every weight is trained to keep the layer's output, ‖Wx − Ŵx‖², and pushed
    towards 0 or 1 by λ Σ (1 − |2h − 1|^β), β falling from 20 to 2. Here the first is relative to
    ‖Wx‖² and the second a mean, so that one λ serves every layer. The paper's last refinement,
    inputs from the layers before as they are when quantized, is left out.

    Parameters
    ----------
    model
        A float model in eval mode; it stays as it is. Batch norms are folded first.
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

    References
    ----------
    Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization
    (arXiv 2004.10568): the relaxed choice, its regularizer and its schedule.
    """
    result = fold(model)
    layer = result.get_submodule(name)
    if not is_layer(layer):
        raise ValueError(f"{name!r} is a {type(layer).__name__}: choose a Conv2d or Linear layer.")
    data = [inputs_of(batch) for batch, _ in zip(loader, range(batches), strict=False)]
    calls = [call for inputs in data for call in run_hooked(result, {name: layer}, inputs)]
    x, wanted = torch.cat([c.source for c in calls]), torch.cat([c.value for c in calls])
    scale, observer = grid_of(layer, weight)
    floor = (layer.weight.detach() / scale).floor()

    def rounded(up: Tensor) -> Tensor:
        return (floor + up).clamp(observer.quant_min, observer.quant_max) * scale

    def loss(up: Tensor, some: Tensor) -> Tensor:
        got = torch.func.functional_call(layer, {"weight": rounded(up)}, (x[some],))
        return (got - wanted[some]).square().mean() / wanted.square().mean()

    share = layer.weight.detach() / scale - floor
    layer.weight.data = rounded(_choose(share, loss, len(x), steps))
    return result


def _choose(
    share: Tensor, loss: Callable[[Tensor, Tensor], Tensor], samples: int, steps: int
) -> Tensor:
    """Return 0 or 1 for each weight; the soft choice begins at nearly no rounding at all."""
    v = torch.logit((share.clamp(0.01, 0.99) + 0.1) / 1.2).requires_grad_()  # of `_soft`, inverted
    optimizer = torch.optim.Adam([v], lr=0.02)
    random = torch.Generator().manual_seed(0)
    for step in range(steps):
        some = torch.randint(samples, (SAMPLES,), generator=random)
        h = _soft(v)
        total = loss(h, some)
        progress = (step / steps - 0.2) / 0.8
        if progress > 0:  # the first fifth is for the error alone
            total = total + 0.01 * _indecision(h, beta=20 - 18 * progress)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return (v.detach() > 0).float()


def _soft(v: Tensor) -> Tensor:
    """Return sigmoid(v) stretched to −0.1 … 1.1 and clipped, so that it can reach 0 and 1."""
    return (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)


def _indecision(h: Tensor, beta: float) -> Tensor:
    """Return how far the choices are from 0 or 1: 0 when all are made, 1 when none is."""
    return (1 - (2 * h - 1).abs().pow(beta)).mean()


class LearnedStep(tq.FakeQuantizeBase):
    """A fake quantizer of weights whose step is a parameter, trained with the rest (LSQ).

    Use it as the ``weight`` of a QConfig for QAT: ``LearnedStep.with_args(bits=4)``; symmetric,
    one step a tensor. It begins at 2⟨|w|⟩/√Q with Q the largest level. Inside the range the
    gradient of the step is round(w/s) − w/s, outside it is the end of the range; it is scaled by
    1/√(NQ), N the number of weights, so that with SGD the step learns as fast as they do. (Adam,
    which `qlearn.fit` uses, adapts to the scale of a gradient by itself.)

    Parameters
    ----------
    bits
        Of a weight, from 2 to 8.
    factory_kwargs
        Device and dtype, which PyTorch's QAT layers pass to every fake quantizer; not needed here.

    References
    ----------
    Esser et al. 2020, Learned Step Size Quantization (arXiv 1902.08153), sections 2.1 and 2.2.
    """

    dtype = torch.qint8
    qscheme = torch.per_tensor_symmetric

    def __init__(self, bits: int, factory_kwargs: dict | None = None) -> None:
        super().__init__()
        self.quant_min, self.quant_max = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, w: Tensor) -> Tensor:
        """Return the rounded weights, in float."""
        if not self.started:
            self.scale.data.fill_(2 * w.detach().abs().mean() / self.quant_max**0.5)
            self.started.fill_(True)
        pace = 1 / (w.numel() * self.quant_max) ** 0.5
        step = self.scale.detach() + pace * (self.scale - self.scale.detach())
        levels = (w / step).clamp(self.quant_min, self.quant_max)
        rounded = levels + (levels.round() - levels).detach()
        return rounded * step

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return the step and the zero point, as ``convert`` asks for them."""
        return self.scale.detach(), self.zero_point
