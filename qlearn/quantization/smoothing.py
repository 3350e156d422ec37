"""SmoothQuant: move the difficulty of activations into weights, where it does less harm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def scale_channels(norm: nn.LayerNorm, layers: Sequence[nn.Linear], factor: Tensor) -> None:
    """Multiply a LayerNorm's channels, and divide the weights that read them: the same function.

    Both are changed in place. With large factors for a few channels this *makes* outliers.

    Parameters
    ----------
    norm
        With a weight and a bias.
    layers
        All Linear layers that read its output.
    factor
        Positive, one for each channel.

    Raises
    ------
    ValueError
        If a factor is not positive.
    """
    if not (factor > 0).all():
        raise ValueError("each factor must be positive: divided by zero, a weight is lost.")
    norm.weight *= factor
    norm.bias *= factor
    for layer in layers:
        layer.weight /= factor


def smooth(
    norm: nn.LayerNorm, layers: Sequence[nn.Linear], largest: Tensor, strength: float = 0.5
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
    columns = torch.stack([layer.weight.detach().abs().amax(0) for layer in layers]).amax(0)
    s = largest.clamp_min(1e-5) ** strength / columns.clamp_min(1e-5) ** (1 - strength)
    scale_channels(norm, layers, 1 / s)
