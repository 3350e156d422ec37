"""Layer by layer: the error that quantization leaves, and what each layer costs in accuracy."""

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.ao.quantization import QConfig, QConfigMapping, QuantWrapper, get_default_qconfig
from tqdm import tqdm

from qlearn.calibration import Call, inputs_of, require_eval, run_hooked, sqnr
from qlearn.data.batches import as_loader
from qlearn.quantization.equalization import fold, require_right_fold
from qlearn.quantization.fx import NOT_SUPPORTED, quantize_fx
from qlearn.quantization.qconfigs import LAYERS
from qlearn.quantization.tracing import layer_and_call
from qlearn.system.errors import explained
from qlearn.training import accuracy, predict

# Classes in torch.ao.nn.quantized that are no quantized layer.
_NOT_LAYERS = {"Quantize", "DeQuantize", "Dropout", "FloatFunctional", "FXFloatFunctional"}


def layer_errors(
    float_model: nn.Module, quantized: nn.Module, batch: Tensor | Sequence
) -> pd.DataFrame:
    """Compare each quantized layer's output with the float model's.

    Both models run from the same inputs, so the error of a layer includes what it inherits from
    the layers before it. A quantized layer may hold a batch norm and an activation that
    were fused into it; it is compared with the float output after the same operations.

    Parameters
    ----------
    float_model
        The model before quantization (fused or not), in eval mode.
    quantized
        The same model converted, eager or FX, static or dynamic, or prepared for QAT; either
        may be in a ``QuantWrapper``.
    batch
        Inputs, or an (inputs, labels) pair.

    Returns
    -------
    pandas.DataFrame
        layer (name in the float model), kind (class of the quantized layer), sqnr_db; in the
        order in which the layers run.

    Raises
    ------
    ValueError
        When a model is in training mode or fails, or no quantized layer has its like in the float
        model.
    """
    require_eval(float_model, "the float model")
    require_eval(quantized, "the quantized model")
    # Step 1: find the quantized layers, and record their outputs.
    floats, layers = _named(float_model), _named(quantized)
    names = [name for name, module in layers.items() if _is_quantized(module)]
    if not names:
        raise ValueError("the second model has no quantized layer: run convert() on it first.")
    norms = {name: module for name, module in layers.items() if _is_batch_norm(module)}
    origins = {name: (name, 1) if name in floats else layer_and_call(name) for name in names}
    hooked = {name: _output_of(layers[name]) for name in names if origins[name][0] in floats}
    with explained("the quantized model fails"):
        calls = run_hooked(quantized, norms | hooked, inputs_of(batch))
    approximations = _values(call for call in calls if call.name in hooked)
    # A zero point of 0 leaves no negative levels: the layer has absorbed a ReLU.
    rectified = {call.name for call in calls if _has_no_negatives(call.result)}
    # Step 2: record the float layers' outputs, after what was fused into the quantized ones.
    unfused = {call.name for call in calls if _is_batch_norm(call.module)}
    wanted = {origins[name][0] for name in hooked}
    references = _references(float_model, wanted, unfused, inputs_of(batch))
    # Step 3: compare, layer by layer.
    rows = []
    for name, approximation in approximations.items():
        kind, fused = type(layers[name]).__name__, _is_fused(layers[name])
        # Modules that add a second input or another activation have no like in the float model.
        if fused and any(word in kind for word in ("Add", "Leaky", "Tanh")):
            continue
        layer, call = origins[name]
        reference = references[layer]
        if len(approximation) < len(reference):  # each call has a layer of its own
            reference = reference[call - 1 : call]
        if [v.shape for v in reference] != [v.shape for v in approximation]:
            continue
        x, y = (torch.cat([v.flatten() for v in side]) for side in (reference, approximation))
        x = x.relu() if name in rectified or (fused and "ReLU" in kind) else x
        rows.append({"layer": name, "kind": kind, "sqnr_db": sqnr(x, y)})
    if not rows:
        raise ValueError(
            "no quantized layer has its like in the float model: was it made from that model?"
        )
    return pd.DataFrame(rows)


def _references(
    model: nn.Module, layers: Iterable[str], unfused: set[str], inputs: Tensor
) -> dict[str, list[Tensor]]:
    """Collect the float layers' outputs, each after its batch norm unless in `unfused`."""
    modules = _named(model)
    norms = {n: m for n, m in modules.items() if _is_batch_norm(m) and n not in unfused}
    hooked = norms | {name: _output_of(modules[name]) for name in layers}
    with explained("the float model fails"):
        calls = run_hooked(model, hooked, inputs)
    # A batch norm belongs to the layer whose very output it received.
    after = {id(call.source): call for call in calls if call.name in norms}
    return _values(
        call._replace(value=after.get(id(call.result), call).value)
        for call in calls
        if call.name in layers
    )


def sensitivity(
    model: nn.Module,
    loader: Iterable,
    test: Iterable,
    *,
    batches: int = 4,
    qconfig: QConfig | None = None,
) -> pd.DataFrame:
    """Quantize one layer at a time (FX mode) and measure what that costs.

    Parameters
    ----------
    model
        Float model in eval mode that ``torch.fx`` can trace; it is not changed.
    loader
        Batches of (inputs, labels) to calibrate with.
    test
        Batches of (inputs, labels) to evaluate on, in a fixed order.
    batches
        Calibrate with so many batches, the same for each layer.
    qconfig
        What each layer is quantized with; the default of the current engine when None. Weights
        may have fewer than 8 bits and are clipped to their range; an activation of fewer bits
        keeps its scale, but the 8-bit kernels do not clip it.

    Returns
    -------
    pandas.DataFrame
        layer (each ``Conv2d`` and ``Linear``), accuracy in [0, 1], change against the float
        model, sqnr_db of the model's outputs; the worst first.

    Raises
    ------
    ValueError
        When the model is in training mode, cannot be traced or has no such layer, when a layer
        cannot be quantized with the qconfig, when the model fails with a quantized layer, or when
        `test` is empty or changes its order.

    References
    ----------
    Wu et al. 2020, Integer Quantization for Deep Learning Inference (arXiv 2004.09602), on partial
    quantization; they compare accuracies only.
    """
    # Step 1: fold batch norms, and list the layers.
    float_model, model = model, fold(model)
    names = [name for name, module in model.named_modules() if name and type(module) in LAYERS]
    if not names:
        raise ValueError("the model has no Conv2d or Linear layer inside it to quantize.")
    qconfig = qconfig or get_default_qconfig(torch.backends.quantized.engine)
    calibration = list(itertools.islice(as_loader(loader), batches))
    if not calibration:
        raise ValueError("nothing to calibrate with: give a loader and batches of at least one.")
    require_right_fold(float_model, inputs_of(calibration[0]))
    # Step 2: the float model's outputs, which the others are compared with.
    with explained("the model fails"):
        logits, labels = predict(model, test)
    rows = []
    for name in tqdm(names, desc="sensitivity", unit="layer", file=sys.stdout):
        # Step 3: a model with this layer quantized and the others in float.
        with explained(f"the model fails with {name} quantized"):
            outputs, seen = predict(_quantize_layer(model, name, qconfig, calibration), test)
        if not torch.equal(seen, labels):
            raise ValueError("test gave its samples in another order: use a loader that does not.")
        # Step 4: what that costs, in accuracy and in the outputs' SQNR, which is finer.
        right = accuracy(outputs, labels)
        rows.append((name, right, right - accuracy(logits, labels), sqnr(logits, outputs)))
    table = pd.DataFrame(rows, columns=["layer", "accuracy", "change", "sqnr_db"])
    return table.sort_values(["accuracy", "sqnr_db"], ignore_index=True)


def _quantize_layer(model: nn.Module, name: str, qconfig: QConfig, calibration: list) -> nn.Module:
    """Return a copy of `model` with the one layer `name` quantized."""
    mapping = QConfigMapping().set_module_name(name, qconfig)
    example = inputs_of(calibration[0])
    try:
        converted = quantize_fx(model, mapping, example, calibration)
        if not _is_quantized(converted.get_submodule(name)):
            raise ValueError(NOT_SUPPORTED)
    except ValueError as error:
        raise ValueError(f"{name} stayed float: {error}") from error
    return converted


def _values(calls: Iterable[Call]) -> dict[str, list[Tensor]]:
    values: dict[str, list[Tensor]] = defaultdict(list)
    for call in calls:
        values[call.name].append(call.value)
    return values


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by name, as if there were no ``QuantWrapper`` around the model."""
    inner = model.module if isinstance(model, QuantWrapper) else model
    return dict(inner.named_modules())


def _output_of(module: nn.Module) -> nn.Module:
    """Where to hook: functional modules are called by method, then pass their result on."""
    functional = type(module).__name__ in ("QFunctional", "FloatFunctional")
    return module.activation_post_process if functional else module


def _is_quantized(module: nn.Module) -> bool:
    path = type(module).__module__
    ours = path.startswith("torch.ao.nn.") and not {"quantized", "qat"}.isdisjoint(path.split("."))
    torchao = type(getattr(module, "weight", None)).__module__.startswith("torchao.")
    return (ours and type(module).__name__ not in _NOT_LAYERS) or torchao


def _has_no_negatives(value: Tensor) -> bool:
    return value.dtype == torch.quint8 and value.q_zero_point() == 0


def _is_fused(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.intrinsic.")


def _is_batch_norm(module: nn.Module) -> bool:
    return "BatchNorm" in type(module).__name__ or type(module).__name__.startswith("BNReLU")
