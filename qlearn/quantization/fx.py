"""FX mode: a traced model, quantized layer by layer as a mapping of qconfigs says."""

import copy
from collections.abc import Iterable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from qlearn.calibration import calibrate, has_observer
from qlearn.system.errors import explained
from qlearn.training import require_float32

NO_TRACE = "torch.fx cannot trace the model"
NOT_SUPPORTED = (
    "the backend does not support the qconfig for any layer that it is set for, or PyTorch's own "
    "modules, such as a TransformerEncoder, hold those layers: FX mode does not look into them."
)


def fx_mapping(qconfig: tq.QConfig) -> tq.QConfigMapping:
    """Return the engine's mapping with this qconfig for every layer but embeddings and PReLU."""
    mapping = tq.get_default_qconfig_mapping(torch.backends.quantized.engine)
    # Embeddings have no static int8 form: they would raise. That of PReLU is wrong by decibels.
    for kind in (nn.Embedding, nn.EmbeddingBag, nn.PReLU):
        mapping.set_global(qconfig).set_object_type(kind, None)
    return mapping


def quantize_fx(
    model: nn.Module,
    mapping: tq.QConfigMapping,
    example: Tensor,
    batches: Iterable,
) -> torch.fx.GraphModule:
    """Return a quantized copy of a float model.

    Parameters
    ----------
    mapping
        Which layers are quantized, and with what.
    example
        A batch of inputs to trace the model with.
    batches
        Inputs, or (inputs, labels) pairs, to calibrate with; all of them are used.

    Raises
    ------
    ValueError
        If the model is not float32, cannot be traced or fails, there is nothing to quantize, or
        nothing to calibrate with.
    """
    require_float32(model)
    # Step 1: trace the model, and insert observers.
    with explained(NO_TRACE):
        prepared = prepare_fx(copy_with_paddings(model), mapping, (example,))
    if not has_observer(prepared):
        raise ValueError(NOT_SUPPORTED)
    # Step 2: find the ranges of activations.
    with explained("FX mode cannot quantize the model"):
        calibrate(prepared, batches)
        # Step 3: replace float layers by quantized ones.
        return convert_clipped(prepared)


def copy_with_paddings(model: nn.Module) -> nn.Module:
    """Copy a model, and write "same" and "valid" paddings as numbers: int8 layers take no words."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(getattr(layer, "padding", None), str):
            same = layer.padding == "same"
            sizes = zip(layer.dilation, layer.kernel_size, strict=True)
            whole = [dilation * (kernel - 1) * same for dilation, kernel in sizes]
            if all(size % 2 == 0 for size in whole):
                layer.padding = tuple(size // 2 for size in whole)
    return copied


def convert_clipped(prepared: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Convert a prepared FX model, and clip each layer's weights to the levels of its qconfig.

    ``convert()`` clips, ``convert_fx()`` does not: a 4-bit weight could take the value 8. A
    transposed convolution has a qconfig of its own, per tensor.
    """
    from torch.ao.nn.quantized.modules.utils import _clamp_weights

    qconfigs = {name: getattr(m, "qconfig", None) for name, m in prepared.named_modules()}
    converted = convert_fx(prepared)
    for name, layer in converted.named_modules():
        qconfig = qconfigs.get(name)
        if qconfig is None or not (hasattr(layer, "set_weight_bias") and hasattr(layer, "weight")):
            continue
        weight = layer.weight()
        if weight.qscheme() == torch.per_channel_affine:
            parameters = (weight.q_per_channel_scales(), weight.q_per_channel_zero_points())
        else:
            parameters = (torch.tensor(weight.q_scale()), torch.tensor(weight.q_zero_point()))
        layer.set_weight_bias(
            _clamp_weights(weight, qconfigs[name].weight(), *parameters), layer.bias()
        )
    return converted
