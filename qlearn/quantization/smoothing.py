"""SmoothQuant: move the difficulty of activations into weights, where it does less harm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def scale_channels(
    norm: nn.LayerNorm | nn.RMSNorm, layers: Sequence[nn.Linear], factor: Tensor
) -> None:
    """Multiply a norm's channels, and divide the weights that read them: the same function.

    Both are changed in place. With large factors for a few channels this *makes* outliers.

    Parameters
    ----------
    norm
        With a weight for each channel, and a bias or none, as an RMSNorm.
    layers
        All Linear layers that read its output; they may share weights.
    factor
        Positive, one for each channel.

    Raises
    ------
    ValueError
        If a factor is not positive, the norm has no weight, or a layer does not fit it.
    """
    _require(norm, layers, factor)
    if not (factor > 0).all():
        raise ValueError("each factor must be positive: divided by zero, a weight is lost.")
    norm.weight *= factor
    if getattr(norm, "bias", None) is not None:  # an RMSNorm has none
        norm.bias *= factor
    # Layers may share a weight, which is divided once.
    for weight in {id(layer.weight): layer.weight for layer in layers}.values():
        weight /= factor


def _require(norm: nn.Module, layers: Sequence[nn.Linear], channels: Tensor) -> None:
    """Raise a ValueError when the values do not fit the norm's channels and the layers' columns."""
    scale = getattr(norm, "weight", None)
    if not isinstance(scale, Tensor) or scale.ndim != 1:
        raise ValueError(
            f"a {type(norm).__name__} without a weight for each channel cannot be scaled: give a "
            "LayerNorm or an RMSNorm of one dimension that has one (elementwise_affine=True)."
        )
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError("layers is no list of Linear layers: give all that read the norm, [a, b].")
    count = len(scale)
    if not all(isinstance(layer, nn.Linear) and layer.in_features == count for layer in layers):
        raise ValueError(f"a layer is no Linear of {count} inputs: give those that read the norm.")
    if not isinstance(channels, Tensor) or channels.shape != (count,):
        shape = tuple(channels.shape) if isinstance(channels, Tensor) else type(channels).__name__
        raise ValueError(f"the norm has {count} channels, not {shape}: give a tensor of as many.")


def smooth(
    norm: nn.LayerNorm | nn.RMSNorm,
    layers: Sequence[nn.Linear],
    largest: Tensor,
    strength: float = 0.5,
) -> None:
    """Divide each channel by s = largest^α / (largest weight)^(1 − α), in place (SmoothQuant).

    Parameters
    ----------
    norm, layers
        As `scale_channels` takes them.
    largest
        The largest |x| of each of the norm's outputs, on calibration data.
    strength
        α: 0 makes the weights' columns equal, 1 the activations' channels.

    References
    ----------
    Xiao et al. 2023, SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models (arXiv 2211.10438), equation 4.
    """
    _require(norm, layers, largest)
    columns = torch.stack([layer.weight.detach().abs().amax(0) for layer in layers]).amax(0)
    s = largest.clamp_min(1e-5) ** strength / columns.clamp_min(1e-5) ** (1 - strength)
    scale_channels(norm, layers, 1 / s)
