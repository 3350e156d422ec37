"""FX mode: a traced model, quantized layer by layer as a mapping of qconfigs says."""

import copy
from collections.abc import Iterable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx

from qlearn.calibration import calibrate, has_observer, sqnr
from qlearn.quantization.equalization import require_right_fold
from qlearn.quantization.tracing import (
    NO_TRACE,
    copy_to_trace,
    require_own_weights,
    separate_calls,
)
from qlearn.system.errors import explained
from qlearn.training import require_float32

# Of int8 models and their references; 25 dB and more were seen.
AGREEMENT_DB = 10
NOT_SUPPORTED = (
    "the backend does not support the qconfig for any layer that it is set for, or PyTorch's own "
    "modules, such as a TransformerEncoder, hold those layers: FX mode does not look into them."
)


def fx_mapping(qconfig: tq.QConfig | None) -> tq.QConfigMapping:
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
    least: float | None = None,
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
    least
        As in `convert_checked`. None checks nothing: with few bits, whose weights are clipped,
        and with outputs that depend on every rounding no reference agrees.

    Raises
    ------
    ValueError
        If the model is not float32, cannot be traced or fails, there is nothing to quantize, or
        nothing to calibrate with.
    """
    require_float32(model)
    require_own_weights(model)
    require_right_fold(model, example)
    # Step 1: trace the model, and insert observers.
    with explained(NO_TRACE):
        separate, mapping = separate_calls(copy_to_trace(model), mapping, example)
        prepared = prepare_fx(separate, mapping, (example,))
    if not has_observer(prepared):
        raise ValueError(NOT_SUPPORTED)
    # Step 2: find the ranges of activations.
    with explained("FX mode cannot quantize the model"):
        calibrate(prepared, batches)
        # Step 3: replace float layers by quantized ones.
        if least is None:
            converted = convert_clipped(prepared)
        else:
            converted = convert_checked(prepared, example, least)
    require_hooks(model, converted)
    return converted


def require_hooks(model: nn.Module, quantized: nn.Module) -> None:
    """Raise a ValueError if a layer has lost a forward hook, which may change what it returns."""
    inner = quantized.module if isinstance(quantized, tq.QuantWrapper) else quantized
    layers = dict(inner.named_modules())
    for name, layer in model.named_modules():
        hooks = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
        # PyTorch's own compute a weight (weight_norm, prune), which the quantized layer has.
        own = [hook for hook in hooks if not type(hook).__module__.startswith("torch.nn.utils")]
        found = layers.get(name)
        if found and len(own) > len(found._forward_hooks) + len(found._forward_pre_hooks):
            raise ValueError(
                f"the forward hook of {name!r} is lost, and what it changes with it: remove it if "
                "it only watches, or write what it does into a forward()."
            )


def convert_checked(
    prepared: torch.fx.GraphModule, example: Tensor, least: float
) -> torch.fx.GraphModule:
    """Convert as `convert_clipped` does; refuse kernels that compute something else.

    One can be wrong, as that for a product with a negative number is. The judge is the reference
    model, which computes in float between quantize and dequantize operations: the int8 model has
    to come within ``least`` dB of it.
    """
    reference = convert_to_reference_fx(copy.deepcopy(prepared))
    converted = convert_clipped(prepared)
    with torch.no_grad():
        wanted, found = reference(example), converted(example)
    if isinstance(wanted, Tensor) and (decibels := sqnr(wanted, found)) < least:
        raise ValueError(
            f"the int8 kernels' outputs are {decibels:.0f} dB from those of the graph that they "
            f"were made from, and {least:g} dB is the least: an operator between the layers, such "
            "as a product with a negative number, has a wrong int8 form, so leave it in float."
        )
    return converted


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
