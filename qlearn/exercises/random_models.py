"""Models of exercise 1 whose weights are random: good enough for size and speed."""

import torch
from torch import nn


def wide_mlp() -> nn.Sequential:
    """Return five linear layers, 784-1024-1024-1024-1024-10, with the same random weights always.

    Takes N×1×28×28 float32, gives N×10 logits: good enough for size and speed.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (784, 1024, 1024, 1024):
        layers += [nn.Linear(width, 1024), nn.ReLU()]
    return _drawn(nn.Sequential(*layers, nn.Linear(1024, 10)))


def mixed_cnn(channels: int, hidden: int) -> nn.Sequential:
    """Return two convolutions and two linear layers, with the same random weights always.

    Takes N×1×28×28 float32, gives N×10 logits. The share of the parameters that is in linear
    layers is about hidden / (hidden + channels): both have 25 weights for each pair.
    """
    layers = [nn.Conv2d(1, channels, 3, stride=2), nn.ReLU()]
    layers += [nn.Conv2d(channels, channels, 5, stride=2), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(25 * channels, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return _drawn(nn.Sequential(*layers))


def _drawn(model: nn.Sequential) -> nn.Sequential:
    numbers = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=numbers)
        else:
            nn.init.zeros_(parameter)
    return model.eval()
