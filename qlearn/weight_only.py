"""Modules that some schemes end in: another float type, another runtime, weights of 4 bits."""

import copy

import torch
from torch import Tensor, nn


class Cast(nn.Module):
    """Compute in another float type, behind an entrance and an exit in float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's float32 outputs; integer inputs (ids) are not cast."""
        x = x.to(self.dtype) if x.is_floating_point() else x
        return self.model(x).float()


class Program(nn.Module):
    """An ExecuTorch program as a module; its bytes are its state, and so its size."""

    def __init__(self, program: bytes) -> None:
        from executorch.runtime import Runtime

        super().__init__()
        self.register_buffer("program", torch.frombuffer(bytearray(program), dtype=torch.uint8))
        # The runtime reads the bytes where they are, and does not keep them alive itself.
        self.kept = program
        self.loaded = Runtime.get().load_program(self.kept)
        self.method = self.loaded.load_method("forward")

    def forward(self, x: Tensor) -> Tensor:
        """Run the program."""
        return self.method.execute([x])[0]


class Int4Linear(nn.Module):
    """A Linear layer whose weights take 4 bits each, with a scale and a zero for every 32.

    Both sides of the weight are padded with zeros to what the kernel asks for.
    """

    GROUP = 32  # inputs that share a scale
    OUTPUTS = 16  # the kernel packs so many outputs together

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.outputs = layer.out_features
        self.padding = -layer.in_features % self.GROUP
        padding = (0, self.padding, 0, -self.outputs % self.OUTPUTS)
        weight = nn.functional.pad(layer.weight.detach().float(), padding)
        groups = weight.unflatten(1, (-1, self.GROUP))
        low, high = groups.amin(2, True), groups.amax(2, True)
        scale = ((high - low) / 15).clamp_min(1e-8)
        codes = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # The kernel computes (code - 8) * scale + zero, all in bf16.
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
