"""Weight-only quantization: Linear weights in 4 bits, in groups that share a scale."""

import copy

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader


def int4_packed(model: nn.Module, train: DataLoader) -> nn.Module:
    """Hold Linear weights in 4 bits, two to a byte, by PyTorch's own kernel; compute in bf16.

    ``torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, scales_and_zeros)``
    """
    linear = [n for n, m in model.named_modules() if n and type(m) is nn.Linear]
    if not linear:
        raise ValueError("there is nothing to quantize: no Linear layer inside the model")
    quantized = copy.deepcopy(model)
    for name in linear:
        quantized.set_submodule(name, Int4Linear(quantized.get_submodule(name)))
    return quantized.eval()


class Int4Linear(nn.Module):
    """A Linear layer whose weights take 4 bits each, by PyTorch's own kernel; it computes in bf16.

    Every 32 inputs of an output share a scale and a zero. Both sides of the weight are padded with
    zeros to the sizes that the kernel asks for.
    """

    GROUP = 32  # inputs that share a scale
    OUTPUTS = 16  # the kernel packs so many outputs together

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        # Step 1: pad the weights, outputs × inputs, and split the inputs into groups.
        self.outputs = layer.out_features
        self.padding = -layer.in_features % self.GROUP
        padding = (0, self.padding, 0, -self.outputs % self.OUTPUTS)
        weight = nn.functional.pad(layer.weight.detach().float(), padding)
        groups = weight.unflatten(1, (-1, self.GROUP))
        # Step 2: an asymmetric grid of 16 levels from each group's minimum to its maximum.
        low, high = groups.amin(2, True), groups.amax(2, True)
        scale = ((high - low) / 15).clamp_min(1e-8)
        codes = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)
        # Step 3: pack two codes to a byte, in the kernel's order.
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # Step 4: a scale and a zero for each group: the kernel computes (code − 8) · scale + zero.
        pairs = torch.cat([scale, low + 8 * scale], 2).transpose(0, 1)
        self.register_buffer("weight", packed)
        self.register_buffer("scales_and_zeros", pairs.contiguous().bfloat16())
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 outputs, …×outputs, of float32 inputs, …×inputs."""
        rows = nn.functional.pad(x, (0, self.padding)).flatten(0, -2).bfloat16()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.weight, self.GROUP, self.scales_and_zeros
        )
        y = y[:, : self.outputs].float().unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias
