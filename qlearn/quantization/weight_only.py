"""Weight-only quantization: Linear weights in 4 bits, in groups that share a scale."""

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qlearn.quantization.awq import awq
from qlearn.quantization.gptq import gptq
from qlearn.quantization.groups import (
    Grouped,
    hessians,
    linear_layers,
    replace_layers,
    round_to_nearest,
)

GROUP = 32  # inputs that share a scale
OUTPUTS = 16  # the kernel packs so many outputs together
CALIBRATION_BATCHES = 8
METHODS = {"gptq": gptq, "awq": awq}


def int4_packed(model: nn.Module, train: DataLoader) -> nn.Module:
    """Hold Linear weights in 4 bits, two to a byte, by PyTorch's own kernel; compute in bf16.

    ``torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, scales_and_zeros)``
    """
    made = {}
    for name in linear_layers(model):
        layer = model.get_submodule(name)
        made[name] = Int4Linear(layer, round_to_nearest(layer.weight, 4, GROUP))
    return replace_layers(copy.deepcopy(model), made).eval()


def int4_calibrated(model: nn.Module, train: DataLoader, method: str) -> nn.Module:
    """Hold Linear weights in 4 bits as `int4_packed` does, rounded by GPTQ or AWQ.

    ``H = hessians(model, names, batches)[name]``; ``gptq(layer.weight, H, bits=4, group=32)``, or
    ``awq`` with the same arguments, for each layer
    """
    names = linear_layers(model)
    found = hessians(model, names, itertools.islice(train, CALIBRATION_BATCHES))
    made = {}
    for name in names:
        layer = model.get_submodule(name)
        grouped = METHODS[method](layer.weight, found[name], bits=4, group=GROUP)
        made[name] = Int4Linear(layer, grouped)
    return replace_layers(copy.deepcopy(model), made).eval()


class Int4Linear(nn.Module):
    """A Linear layer whose weights take 4 bits each, by PyTorch's own kernel; it computes in bf16.

    Both sides of the weight are padded with zeros to the sizes that the kernel asks for.

    Parameters
    ----------
    layer
        Gives the bias.
    grouped
        Its weight: codes from 0 to 15 in groups of 32.
    """

    def __init__(self, layer: nn.Linear, grouped: Grouped) -> None:
        super().__init__()
        # Step 1: pad the codes, outputs × inputs, and the grids, outputs × groups.
        self.outputs = layer.out_features
        self.padding = -layer.in_features % GROUP
        more = -self.outputs % OUTPUTS
        codes = nn.functional.pad(grouped.codes, (0, self.padding, 0, more)).int()
        scale, low = (nn.functional.pad(t, (0, 0, 0, more)) for t in (grouped.scale, grouped.low))
        # Step 2: pack two codes to a byte, in the kernel's order.
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # Step 3: a scale and a zero for each group: the kernel computes (code − 8) · scale + zero.
        pairs = torch.stack([scale, low + 8 * scale], 2).transpose(0, 1)
        self.register_buffer("weight", packed)
        self.register_buffer("scales_and_zeros", pairs.contiguous().bfloat16())
        self.register_buffer("divisor", grouped.divisor)
        self.bias = copy.deepcopy(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 outputs, …×outputs, of float32 inputs, …×inputs."""
        x = x if self.divisor is None else x / self.divisor
        rows = nn.functional.pad(x, (0, self.padding)).flatten(0, -2).bfloat16()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.weight, GROUP, self.scales_and_zeros
        )
        y = y[:, : self.outputs].float().unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias
