"""What the schemes quantize with: ranges of weights and activations, as PyTorch's QConfigs."""

from collections.abc import Callable

import torch
import torch.ao.quantization as tq
from torch import nn


def weight_qconfig(bits: int, per_channel: bool) -> tq.QConfig:
    """Return the engine's activations with symmetric weights of ``bits`` bits.

    The levels are −(2^(bits−1) − 1) … 2^(bits−1) − 1, as many below zero as above, so that the
    largest weight is a level: weights that are on the grid stay where they are when their range
    is observed again (Krishnamoorthi 2018, arXiv 1806.08342, section 2.2).
    """
    engine = torch.backends.quantized.engine
    observer = tq.PerChannelMinMaxObserver if per_channel else tq.MinMaxObserver
    return tq.QConfig(
        activation=tq.get_default_qconfig(engine).activation,
        weight=observer.with_args(**_grid(bits, per_channel)),
    )


def fake_quantizer(bits: int, per_channel: bool) -> Callable[[], nn.Module]:
    """Return what makes a fake quantizer of weights that follows their range."""
    kinds = (tq.MovingAverageMinMaxObserver, tq.MovingAveragePerChannelMinMaxObserver)
    # Not the fused one: at few bits its scale is not the one that convert() asks for.
    return tq.FakeQuantize.with_args(observer=kinds[per_channel], **_grid(bits, per_channel))


def fx_mapping(qconfig: tq.QConfig) -> tq.QConfigMapping:
    """Return the engine's mapping with this qconfig for every layer but embeddings."""
    mapping = tq.get_default_qconfig_mapping(torch.backends.quantized.engine)
    # An embedding has no static int8 form: it would raise.
    return mapping.set_global(qconfig).set_object_type(nn.Embedding, None)


def _grid(bits: int, per_channel: bool) -> dict:
    most = 2 ** (bits - 1) - 1
    return {
        "dtype": torch.qint8,
        "quant_min": -most,
        "quant_max": most,
        "qscheme": torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
    }


def clip_weights(converted: nn.Module, qconfig: torch.ao.quantization.QConfig) -> nn.Module:
    """Clip an FX model's weights to the range that the qconfig gives them, in place.

    ``convert()`` clips, ``convert_fx()`` does not: a 4-bit weight could take the value 8.
    """
    from torch.ao.nn.quantized.modules.utils import _clamp_weights

    for layer in converted.modules():
        if not (hasattr(layer, "set_weight_bias") and hasattr(layer, "weight")):
            continue
        weight = layer.weight()
        if weight.qscheme() == torch.per_channel_affine:
            parameters = (weight.q_per_channel_scales(), weight.q_per_channel_zero_points())
        else:
            parameters = (torch.tensor(weight.q_scale()), torch.tensor(weight.q_zero_point()))
        layer.set_weight_bias(_clamp_weights(weight, qconfig.weight(), *parameters), layer.bias())
    return converted
