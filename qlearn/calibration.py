"""Calibration, recorded outputs of layers, studies of observers, and SQNR.

Everything here runs under ``torch.no_grad`` rather than ``torch.inference_mode``: an observer keeps
tensors of the pass, and PyTorch refuses to update an inference tensor in an ordinary one.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from qlearn.data.batches import batches_of, split_batch
from qlearn.system.errors import explained

if TYPE_CHECKING:
    import pandas as pd

# torchao (PT2E) has classes of its own with these names, and importing it costs seconds.
_OBSERVERS = {"ObserverBase", "FakeQuantizeBase"}


def calibrate(prepared: nn.Module, loader: Iterable, batches: int | None = None) -> int:
    """Show data to a prepared model, so that its observers learn their ranges.

    Parameters
    ----------
    prepared
        Result of ``prepare``, ``prepare_fx`` or ``prepare_pt2e``, in eval mode.
    loader, batches
        Batches of (inputs, labels) or inputs alone, a set or a tensor; how many to use, or all.

    Returns
    -------
    int
        The number of samples seen.

    Raises
    ------
    ValueError
        When the model is in training mode, has no observer or fails, or no batch was given.
    """
    require_eval(prepared, "the prepared model")
    if not has_observer(prepared):
        raise ValueError(
            "nothing to calibrate: the model has no observer, so run prepare() first, "
            "and set a qconfig before that."
        )
    samples = 0
    with torch.no_grad():
        for inputs, _ in batches_of(loader, prepared, batches):
            with explained("the prepared model fails"):
                prepared(inputs)
            samples += len(inputs)
    if samples == 0:
        raise ValueError("nothing to calibrate with: give a loader and batches of at least one.")
    return samples


def record(
    model: nn.Module, names: Sequence[str], loader: Iterable, batches: int | None = 1
) -> dict[str, list[Tensor]]:
    """Collect the outputs of named layers.

    Parameters
    ----------
    model
        A float or quantized model in eval mode.
    names
        Of layers, as in ``model.named_modules()``.
    loader, batches
        As in `calibrate`.

    Returns
    -------
    dict of str to list of Tensor
        For each name one float tensor per call of the layer (its own copy, dequantized; the
        first of a tuple, as an LSTM returns it).

    Raises
    ------
    ValueError
        When the model is in training mode, has no layer of that name or fails, a layer returns no
        tensor, or no batch was given.
    """
    require_eval(model, "the model")
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            known = ", ".join(itertools.islice((known for known in modules if known), 8))
            raise ValueError(f"the model has no layer {name!r}: its layers begin with {known}.")
    outputs: dict[str, list[Tensor]] = {name: [] for name in names}
    hooked = {name: modules[name] for name in names}
    for inputs, _ in batches_of(loader, model, batches):
        with explained("the model fails"):
            calls = run_hooked(model, hooked, inputs)
        for call in calls:
            outputs[call.name].append(call.value)
    if not any(outputs.values()):
        raise ValueError("nothing was recorded: no batch was given, or no named layer was called.")
    return outputs


def observer_study(batches: Sequence[Tensor], observers: dict[str, nn.Module]) -> pd.DataFrame:
    """Follow the range that each observer would choose, batch by batch.

    Parameters
    ----------
    batches
        Float tensors, samples first, as `record` returns them.
    observers
        Observers by name (``MinMaxObserver()``, ``HistogramObserver()`` …); they are copied.

    Returns
    -------
    pandas.DataFrame
        observer, samples (seen so far), low and high (ends of the representable range), scale,
        zero_point, sqnr_db (of all batches together, quantized with the parameters so far).
        Per channel: low is the lowest and high the highest end of any channel, scale the
        largest of any channel, and zero_point belongs to that channel.

    Raises
    ------
    ValueError
        When there is no batch, or an observer is a class rather than an instance.
    """
    import pandas as pd

    if not isinstance(batches, Sequence) or not all(isinstance(b, Tensor) for b in batches):
        raise ValueError("batches is no list of tensors: give what record() has for one layer.")
    if len(batches) == 0:
        raise ValueError("batches is empty: give at least one tensor.")
    pooled = torch.cat(list(batches))
    rows = []
    for name, original in observers.items():
        if not _is_observer(original):
            raise ValueError(f"{name!r} is no observer: give an instance such as MinMaxObserver().")
        observer = copy.deepcopy(original)
        samples = 0
        for batch in batches:
            with torch.no_grad():
                observer(batch)
            samples += len(batch)
            rows.append({"observer": name, "samples": samples} | _parameters(observer, pooled))
    return pd.DataFrame(rows)


def _parameters(observer: nn.Module, values: Tensor) -> dict[str, float]:
    """Range, scale and zero point that an observer holds, and their SQNR on some values."""
    scale, zero_point = observer.calculate_qparams()
    zero_point = zero_point.to(torch.int32)
    bounds = (observer.quant_min, observer.quant_max)
    if observer.qscheme in (torch.per_channel_affine, torch.per_channel_symmetric):
        rounded = torch.fake_quantize_per_channel_affine(
            values, scale, zero_point, observer.ch_axis, *bounds
        )
    else:
        rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, *bounds)
    widest = int(scale.argmax())
    return {
        "low": float(((bounds[0] - zero_point) * scale).min()),
        "high": float(((bounds[1] - zero_point) * scale).max()),
        "scale": float(scale.flatten()[widest]),
        "zero_point": int(zero_point.flatten()[widest]),
        "sqnr_db": sqnr(values, rounded),
    }


def sqnr(reference: Tensor, approximation: Tensor) -> float:
    """Signal-to-quantization-noise ratio, 20 log10(‖x‖ / ‖x − y‖).

    Six decibels more halve the error. ``torch.ao.ns.fx.utils.compute_sqnr`` is the same formula
    in float32; this one works in float64 (complex128), so tiny values do not underflow.

    Parameters
    ----------
    reference, approximation
        Tensors of one shape; quantized ones are dequantized.

    Returns
    -------
    float
        Decibels; inf when the two are equal, -inf when the approximation alone is infinite, and
        nan when either holds a NaN or the reference is infinite.

    Raises
    ------
    ValueError
        When the shapes differ, or one is no tensor.
    """
    for given in (reference, approximation):
        if not isinstance(given, Tensor):
            kind = type(given).__name__
            raise ValueError(f"SQNR is of two tensors, and one is a {kind}: make a tensor of it.")
    given = (reference.detach(), approximation.detach())
    whole = torch.complex128 if any(t.is_complex() for t in given) else torch.float64
    x, y = ((t.dequantize() if t.is_quantized else t).to(whole) for t in given)
    if x.shape != y.shape:
        raise ValueError(f"shapes differ: {tuple(x.shape)} against {tuple(y.shape)}.")
    signal, noise = float(torch.linalg.vector_norm(x)), float(torch.linalg.vector_norm(x - y))
    if noise == 0:
        return math.inf
    ratio = signal / noise  # 0 for an approximation that is infinite, too
    return 20 * math.log10(ratio) if ratio else -math.inf


class Call(NamedTuple):
    """One call of a hooked module; ``source`` and ``result`` tell which calls belong together."""

    name: str
    module: nn.Module
    source: Tensor | None
    result: Tensor
    value: Tensor


def run_hooked(model: nn.Module, hooked: Mapping[str, nn.Module], inputs: Tensor) -> list[Call]:
    """Run a model and return the calls of the hooked modules, in order."""
    calls: list[Call] = []

    def hook(name: str, module: nn.Module, args: tuple, output: object) -> None:
        result = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(result, Tensor):
            raise ValueError(
                f"the layer {name!r} returns a {type(output).__name__}: name one that returns a "
                "tensor, or a tuple that begins with one."
            )
        value = result.dequantize() if result.is_quantized else result.detach().clone()
        # A copy, because a later ReLU may work in place.
        calls.append(Call(name, module, args[0] if args else None, result, value))

    handles = [m.register_forward_hook(functools.partial(hook, n)) for n, m in hooked.items()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _is_observer(module: nn.Module) -> bool:
    names = {base.__name__ for base in type(module).__mro__}
    return isinstance(module, nn.Module) and not names.isdisjoint(_OBSERVERS)


def has_observer(model: nn.Module) -> bool:
    """Tell whether a model has anything to calibrate."""
    return any(_is_observer(module) for module in model.modules())


def inputs_of(batch: Tensor | Sequence) -> Tensor:
    """Return the inputs of a batch."""
    return split_batch(batch)[0]


def require_eval(model: nn.Module, what: str) -> None:
    """Raise a ValueError when a model is no module, or in training mode."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{what} is a {type(model).__name__}: give an nn.Module.")
    # Exported (PT2E) models are always marked as training and replace eval() by an error.
    if model.training and "eval" not in vars(model):
        raise ValueError(f"{what} is in training mode: call eval() on it first.")
