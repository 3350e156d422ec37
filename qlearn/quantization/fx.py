"""FX mode: a traced model, quantized layer by layer as a mapping of qconfigs says."""

import copy
from collections.abc import Iterable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from qlearn.calibration import calibrate, has_observer
from qlearn.system.errors import explained

NO_TRACE = "torch.fx cannot trace the model"
NOT_SUPPORTED = "the backend does not support the qconfig for any layer that it is set for."


def fx_mapping(qconfig: tq.QConfig) -> tq.QConfigMapping:
    """Return the engine's mapping with this qconfig for every layer but embeddings."""
    mapping = tq.get_default_qconfig_mapping(torch.backends.quantized.engine)
    # An embedding has no static int8 form: it would raise.
    return mapping.set_global(qconfig).set_object_type(nn.Embedding, None)


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
        If the model cannot be traced, there is nothing to quantize, or nothing to calibrate with.
    """
    # Step 1: trace the model, and insert observers.
    with explained(NO_TRACE, torch.fx.proxy.TraceError):
        prepared = prepare_fx(copy.deepcopy(model), mapping, (example,))
    if not has_observer(prepared):
        raise ValueError(NOT_SUPPORTED)
    # Step 2: find the ranges of activations.
    calibrate(prepared, batches)
    # Step 3: replace float layers by quantized ones.
    return convert_clipped(prepared)


def convert_clipped(prepared: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Convert a prepared FX model, each weight clipped to the levels of its layer's qconfig.

    ``convert()`` clips, ``convert_fx()`` does not: a 4-bit weight could take the value 8.
    """
    from torch.ao.nn.quantized.modules.utils import _clamp_weights

    qconfigs = {name: getattr(layer, "qconfig", None) for name, layer in prepared.named_modules()}
    converted = convert_fx(prepared)
    for name, layer in converted.named_modules():
        if not (hasattr(layer, "set_weight_bias") and hasattr(layer, "weight")):
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
