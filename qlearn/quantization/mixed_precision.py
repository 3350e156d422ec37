"""Mixed precision: which layers keep more bits, within a budget."""

import itertools
import sys
from typing import NamedTuple

import pandas as pd
from torch import nn
from tqdm import tqdm

from qlearn.calibration import inputs_of, sqnr
from qlearn.data import DataSet, loaders
from qlearn.quantization.equalization import fold
from qlearn.quantization.fx import fx_mapping, quantize_fx
from qlearn.quantization.qconfigs import weight_qconfig
from qlearn.quantization.sensitivity import sensitivity
from qlearn.system.errors import explained, require_positive
from qlearn.training import accuracy, predict

FLOAT = 32
BATCHES = 2  # to calibrate with, for about two models per layer


class Mixed(NamedTuple):
    """A model of mixed precision, the curve that it was chosen from, and each layer alone."""

    model: nn.Module
    curve: pd.DataFrame
    layers: pd.DataFrame


def mixed_precision(
    model: nn.Module, data: DataSet, budget: float, *, bits: int = 4, wide: int = 8
) -> Mixed:
    """Give the layers that suffer most more bits, as many as a budget allows.

    Each layer is quantized alone first, and the SQNR of the model's outputs is measured
    (`sensitivity`). Then, greedily, the most sensitive layer gets the wider format, and the next,
    until all have it. Of the models within the budget the one with the highest SQNR is chosen: it
    can tell apart models that have the same accuracy.

    Parameters
    ----------
    model
        A float model in eval mode that ``torch.fx`` can trace; it is not changed.
    data
        Samples to calibrate with and to measure on. Choosing layers on the test samples flatters
        the result a little: give a ``DataSet`` whose ``test`` is a validation set where it matters.
    budget
        Mean bits a weight, at most, over all Conv2d and Linear layers.
    bits, wide
        Of a weight, from 2 to 8, with one scale per tensor; activations have 8. ``wide`` may also
        be 32: those layers stay float. (Fewer than 8 are still stored in a byte here: the budget
        is the one that a format with packed weights would need.)

    Returns
    -------
    Mixed
        ``model``, and ``curve``: a row for each number of wide layers, from 0, with ``layer``
        (widened last), ``bits`` (mean over weights), ``accuracy``, ``sqnr_db`` and ``chosen``;
        ``layers``, what `sensitivity` found for each of them.

    Raises
    ------
    ValueError
        If bits is not from 2 to 8, wide is neither 32 nor between them, the budget is below bits,
        or the model is one that `sensitivity` refuses.

    References
    ----------
    Wu et al. 2020, Integer Quantization for Deep Learning Inference (arXiv 2004.09602), on partial
    quantization; they return layers to float until the accuracy suffices.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits!r}; a quantized weight has from 2 to 8.")
    if wide != FLOAT and wide not in range(bits + 1, 9):
        raise ValueError(f"wide is {wide!r}; give more than {bits} and at most 8 bits, or 32.")
    require_positive("budget", budget)
    if budget < bits:
        raise ValueError(
            f"the budget is {budget:g} bits a weight, fewer than the {bits} of a layer."
        )
    train, test = loaders(data)
    calibration = list(itertools.islice(train, BATCHES))
    qconfig = weight_qconfig(bits, per_channel=False)
    model = fold(model)
    # Step 1: order the layers by what each of them costs alone, the most sensitive first.
    alone = sensitivity(model, calibration, test, batches=BATCHES, qconfig=qconfig)
    order = list(alone.sort_values("sqnr_db")["layer"])
    weights = {name: model.get_submodule(name).weight.numel() for name in order}
    logits, _ = predict(model, test)
    wider = None if wide == FLOAT else weight_qconfig(wide, per_channel=False)
    # Layers of other kinds, which the budget does not count, have the wide format, or 8 bits.
    rows, models = [], []
    mapping = fx_mapping(wider or weight_qconfig(8, per_channel=False))
    for name in order:
        mapping.set_module_name(name, qconfig)
    for count in tqdm(range(len(order) + 1), desc="mixed precision", unit="model", file=sys.stdout):
        # Step 2: widen one layer after the other, and measure each model.
        if count:
            mapping.set_module_name(order[count - 1], wider)
        mixed, example = model, inputs_of(calibration[0])
        with explained(f"the model fails with {count} layers of {wide} bits"):
            if count < len(order) or wider:
                mixed = quantize_fx(model, mapping, example, calibration)
            outputs, labels = predict(mixed, test)
        share = sum(weights[name] for name in order[:count]) / sum(weights.values())
        mean = bits + share * (wide - bits)
        widened = order[count - 1] if count else ""
        rows.append((count, widened, mean, accuracy(outputs, labels), sqnr(logits, outputs)))
        models.append(mixed)
    # Step 3: choose the best model that the budget allows.
    columns = ["wide_layers", "layer", "bits", "accuracy", "sqnr_db"]
    curve = pd.DataFrame(rows, columns=columns)
    best = curve[curve["bits"] <= budget]["sqnr_db"].idxmax()
    curve["chosen"] = curve.index == best
    return Mixed(models[best], curve, alone)
