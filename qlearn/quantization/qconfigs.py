"""The grids of weights and activations, as PyTorch's QConfigs, and weights rounded to a grid."""

import copy
from collections.abc import Callable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.Linear)  # whose weights are quantized, without their subclasses
WeightObserver = Callable[[], nn.Module]  # makes a weight observer, as a QConfig's ``weight`` does


def weight_qconfig(bits: int, per_channel: bool) -> tq.QConfig:
    """Return symmetric weights of ``bits`` bits with the engine's default activations.

    The levels are −(2^(bits−1) − 1) … 2^(bits−1) − 1, as many below zero as above. The largest
    weight is then a level: weights that are on the grid stay there when their range is observed
    again (Krishnamoorthi 2018, arXiv 1806.08342, section 2.2).
    """
    engine = torch.backends.quantized.engine
    observer = tq.PerChannelMinMaxObserver if per_channel else tq.MinMaxObserver
    return tq.QConfig(
        activation=tq.get_default_qconfig(engine).activation,
        weight=observer.with_args(**_grid(bits, per_channel)),
    )


def fake_quantizer(bits: int, per_channel: bool) -> Callable[[], nn.Module]:
    """Return a maker of fake quantizers for QAT, on the grid of `weight_qconfig`."""
    kinds = (tq.MovingAverageMinMaxObserver, tq.MovingAveragePerChannelMinMaxObserver)
    # Not the fused one: at few bits its scale is not the one that convert() asks for.
    return tq.FakeQuantize.with_args(observer=kinds[per_channel], **_grid(bits, per_channel))


def _grid(bits: int, per_channel: bool) -> dict:
    highest = 2 ** (bits - 1) - 1
    return {
        "dtype": torch.qint8,
        "quant_min": -highest,
        "quant_max": highest,
        "qscheme": torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
    }


def grid_of(layer: nn.Module, weight: WeightObserver) -> tuple[Tensor, nn.Module]:
    """Return the scale of a layer's weights, in a shape that divides them, and the observer.

    Raises
    ------
    ValueError
        If the observer is not symmetric.
    """
    observer = weight()
    observer(layer.weight.detach())
    scale, zero_point = observer.calculate_qparams()
    if zero_point.any():
        raise ValueError("the weight observer is not symmetric: choose a symmetric qscheme.")
    return scale.reshape(-1, *[1] * (layer.weight.dim() - 1)), observer


def round_weights(model: nn.Module, weight: WeightObserver) -> nn.Module:
    """Return a copy of a float model with its layers' weights rounded to their grid, in float."""
    rounded = copy.deepcopy(model)
    for layer in rounded.modules():
        if type(layer) in LAYERS:
            scale, observer = grid_of(layer, weight)
            codes = (layer.weight.detach() / scale).round()
            layer.weight.data = codes.clamp(observer.quant_min, observer.quant_max) * scale
    return rounded
