"""Where a model is, and its inputs beside it."""

import itertools

import torch
from torch import Tensor, nn


def device_of(model: object) -> torch.device | None:
    """Return where a module's parameters and buffers are; None if it has none, or is no module."""
    if not isinstance(model, nn.Module):
        return None
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), None)


def require_values(model: object) -> None:
    """Raise a ValueError when all of a model's parameters are on the meta device."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    if parameters and all(parameter.is_meta for parameter in parameters):
        raise ValueError(
            "the model's weights are on the meta device and hold no numbers: build it on the CPU, "
            "or load a checkpoint into it with load_state_dict(…, assign=True)."
        )


def place(inputs: object, device: torch.device | None) -> object:
    """Return a tensor on a device and whole in memory, as ``view`` asks; all else as it is."""
    if not isinstance(inputs, Tensor):
        return inputs
    if inputs.ndim == 4 and inputs.is_contiguous(memory_format=torch.channels_last):
        return inputs.to(device or inputs.device)
    return inputs.to(device or inputs.device).contiguous()


def synchronize(device: torch.device | None) -> None:
    """Wait for an accelerator, which works on after a call has returned."""
    if device is None or device.type == "cpu":  # this is timed with the call: it must cost nothing
        return
    found = torch.accelerator.current_accelerator()
    if found is not None and device.type == found.type:
        torch.accelerator.synchronize(device)


def name_device(model: object) -> str:
    """Return the name of the GPU that a model is on, or the kind of its device."""
    device = device_of(model)
    cuda = device is not None and device.type == "cuda"
    return torch.cuda.get_device_name(device) if cuda else str(device or "cpu")
