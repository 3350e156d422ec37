"""Weights in groups: every so many inputs of an output share a scale and a least level."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qlearn.calibration import require_eval, run_hooked
from qlearn.data.batches import batches_of
from qlearn.system.errors import explained


class Grouped(NamedTuple):
    """A Linear layer's weight, outputs×inputs, as integers and a grid for each group.

    Attributes
    ----------
    codes
        Whole numbers from 0 to 2^bits − 1, as floats, outputs×inputs.
    scale, low
        Step and least level, outputs×groups; a last group may hold fewer inputs than the others.
    group
        Inputs that share a scale.
    divisor
        By which each input is divided before it meets the weight (AWQ), or None.
    """

    codes: Tensor
    scale: Tensor
    low: Tensor
    group: int
    divisor: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Return the weight that the codes stand for, outputs×inputs, in float."""
        parts = self.codes.split(self.group, 1)
        grids = zip(self.scale.split(1, 1), self.low.split(1, 1), strict=True)
        pairs = zip(parts, grids, strict=True)
        weight = torch.cat([codes * scale + low for codes, (scale, low) in pairs], 1)
        return weight if self.divisor is None else weight / self.divisor


def grid(weights: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return scale and least level of 2^bits levels from the minimum to the maximum of each row.

    Parameters
    ----------
    weights
        …×inputs of one group; both results are …×1.
    """
    low, high = weights.amin(-1, True), weights.amax(-1, True)
    return ((high - low) / (2**bits - 1)).clamp_min(1e-8), low


def codes_of(weights: Tensor, scale: Tensor, low: Tensor, bits: int) -> Tensor:
    """Return the nearest level of each weight, 0 to 2^bits − 1, as floats."""
    return ((weights - low) / scale).round().clamp(0, 2**bits - 1)


def round_to_nearest(weight: Tensor, bits: int, group: int) -> Grouped:
    """Round a weight, outputs×inputs, to the nearest levels of a grid for each group of inputs."""
    parts = weight.detach().split(group, 1)
    grids = [grid(part, bits) for part in parts]
    codes = [codes_of(part, *pair, bits) for part, pair in zip(parts, grids, strict=True)]
    scale, low = (torch.cat(columns, 1) for columns in zip(*grids, strict=True))
    return Grouped(torch.cat(codes, 1), scale, low, group)


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of the Linear layers inside a model.

    Raises
    ------
    ValueError
        If there are none.
    """
    names = [name for name, module in model.named_modules() if name and type(module) is nn.Linear]
    if not names:
        raise ValueError("there is nothing to quantize: no Linear layer inside the model")
    return names


def replace_layers(model: nn.Module, made: Mapping[str, nn.Module]) -> nn.Module:
    """Put new layers in the places of others, by name, and wherever else a model holds those."""
    places = list(model.named_modules(remove_duplicate=False))
    new = {id(model.get_submodule(name)): layer for name, layer in made.items()}
    for name, module in places:
        if id(module) in new:
            model.set_submodule(name, new[id(module)])
    return model


def hessians(model: nn.Module, names: Iterable[str], batches: Iterable) -> dict[str, Tensor]:
    """Return H = mean of x xᵀ over the inputs x of each named Linear layer.

    Up to a factor it is the Hessian of the layer's squared error ‖Wx − Ŵx‖², the same for every
    output: an error E of the weights costs tr(E H Eᵀ) for each input.

    Parameters
    ----------
    model
        A float model in eval mode.
    names
        Of Linear layers.
    batches
        Inputs, or (inputs, labels) pairs.

    Returns
    -------
    dict of str to Tensor
        inputs×inputs, float32.

    Raises
    ------
    ValueError
        If the model is in training mode, or a layer is never called on these batches.
    """
    require_eval(model, "the model")
    layers = {name: model.get_submodule(name) for name in names}
    sums = {
        name: torch.zeros(layer.in_features, layer.in_features) for name, layer in layers.items()
    }
    rows = dict.fromkeys(layers, 0)
    for inputs, _ in batches_of(batches, model):
        with explained("the model fails"):
            calls = run_hooked(model, layers, inputs)
        for call in calls:
            x = call.source.flatten(0, -2).float()
            sums[call.name] += x.T @ x
            rows[call.name] += len(x)
    if idle := [name for name, count in rows.items() if not count]:
        raise ValueError(f"{idle[0]} was not called: give batches that go through every layer.")
    return {name: total / rows[name] for name, total in sums.items()}
