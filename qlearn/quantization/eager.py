"""Eager mode: stubs around a float model, layers fused by the order of their definition."""

import torch
import torch.ao.quantization as tq
from torch import nn
from torch.utils.data import DataLoader

from qlearn.calibration import calibrate, inputs_of
from qlearn.quantization.qconfigs import weight_qconfig
from qlearn.quantization.tracing import copy_with_paddings

CALIBRATION_BATCHES = 8
FUSABLE = [
    chain
    for conv, norm in ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d),
                       (nn.Conv3d, nn.BatchNorm3d))
    for chain in ([conv, norm, nn.ReLU], [conv, norm], [conv, nn.ReLU])
] + [[nn.Linear, nn.BatchNorm1d], [nn.Linear, nn.ReLU]]  # fmt: skip


def static_eager(model: nn.Module, train: DataLoader, per_channel: bool) -> nn.Module:
    """Compute in int8, with ranges found beforehand (eager mode).

    ``fused = fuse_modules(QuantWrapper(model), groups)``; ``fused.qconfig = QConfig(
    get_default_qconfig("x86").activation, observer)``, where the weights' observer is a symmetric
    ``MinMaxObserver`` or ``PerChannelMinMaxObserver`` of qint8; ``prepared = prepare(fused)``; run
    it on some batches; ``convert(prepared)``

    Raises
    ------
    ValueError
        If the inputs are integers, or if fusing layers that are defined one after the other
        changes what the model computes.
    """
    example = inputs_of(next(iter(train)))
    if not example.is_floating_point():
        raise ValueError(
            "its inputs are integers, which QuantWrapper would quantize: eager mode needs a "
            "QuantStub behind the embedding, set by hand (exercise 2 does it)"
        )
    # Step 1: quantize at the entrance, dequantize at the exit.
    wrapped = tq.QuantWrapper(copy_with_paddings(model)).eval()
    # Step 2: fuse batch norms and ReLUs into the layers before them.
    groups = _fusable_groups(wrapped)
    fused = tq.fuse_modules(wrapped, groups) if groups else wrapped
    with torch.no_grad():
        if not torch.allclose(fused(example), model(example), rtol=1e-3, atol=1e-4):
            raise ValueError(
                "fusing neighbours changed the model's outputs: its layers are not called in the "
                "order of their definition, so eager mode needs a fusion list made by hand"
            )
    # Step 3: insert observers, calibrate them, and convert to int8 layers.
    fused.qconfig = weight_qconfig(8, per_channel)
    for layer in fused.modules():  # transposed convolutions have no scales per channel here
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            layer.qconfig = weight_qconfig(8, per_channel=False)
        if isinstance(layer, nn.PReLU):
            layer.qconfig = None  # its int8 form is wrong by decibels
    prepared = tq.prepare(fused)
    calibrate(prepared, train, CALIBRATION_BATCHES)
    return tq.convert(prepared)


def _fusable_groups(model: nn.Module) -> list[list[str]]:
    """Names of layers that eager mode can fuse and that follow one another in their parent."""
    groups = []
    for prefix, parent in model.named_modules():
        children = [(f"{prefix}.{name}".lstrip("."), m) for name, m in parent.named_children()]
        while children:
            kinds = [type(module) for _, module in children]
            chain = next((c for c in FUSABLE if kinds[: len(c)] == c), [])
            if chain:
                groups.append([name for name, _ in children[: len(chain)]])
            children = children[max(1, len(chain)) :]
    return groups
