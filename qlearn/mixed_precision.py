"""From a table to a decision: who is dominated, and which layers deserve more bits."""

import copy
import sys
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from qlearn.calibration import calibrate, inputs_of, sqnr
from qlearn.data import DataSet, loaders
from qlearn.layerwise import sensitivity
from qlearn.qconfigs import clip_weights, fx_mapping, weight_qconfig
from qlearn.training import evaluate

FLOAT_BITS = 32
BATCHES = 2  # to calibrate with: two models a layer have to be


def pareto(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the rows that no other row beats in both accuracy and cost.

    A row is beaten, or dominated, when another is at least as accurate and costs at most as much,
    and is better in one of the two. The rule takes the numbers as they stand: a row within the
    error of measurement of the front is off it all the same.

    Parameters
    ----------
    table
        With ``accuracy``, ``latency_ms`` and ``size_mb``, as `compare` and `sweep` return it. Rows
        without numbers are on no front.

    Returns
    -------
    pandas.DataFrame
        The table with two more columns of bool: ``latency_front`` and ``size_front``.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    missing = {"accuracy", "latency_ms", "size_mb"} - set(table.columns)
    if missing:
        raise ValueError(
            f"the table lacks {', '.join(sorted(missing))}: compare() with a test set."
        )
    accuracy = table["accuracy"].to_numpy(float)
    marked = table.copy()
    for name in ("latency", "size"):
        cost = table["latency_ms" if name == "latency" else "size_mb"].to_numpy(float)
        marked[f"{name}_front"] = [
            bool(np.isfinite(a) and np.isfinite(c))
            and not np.any((accuracy >= a) & (cost <= c) & ((accuracy > a) | (cost < c)))
            for a, c in zip(accuracy, cost, strict=True)
        ]
    return marked


class Mixed(NamedTuple):
    """A model of mixed precision, the curve that it was chosen from, and each layer alone."""

    model: nn.Module
    curve: pd.DataFrame
    layers: pd.DataFrame


def mixed_precision(
    model: nn.Module,
    data: DataSet,
    budget: float,
    *,
    bits: int = 4,
    per_channel: bool = False,
) -> Mixed:
    """Keep the layers that suffer most in float, as many as a budget of bits allows.

    Each layer is quantized alone first, and the SQNR of the model's outputs is measured
    (`sensitivity`). Then, greedily, the most sensitive layer is returned to float, and the next,
    until all are. Of the models within the budget the one with the highest SQNR is chosen: it
    can tell apart models that have the same accuracy.

    Parameters
    ----------
    model
        A float model in eval mode that ``torch.fx`` can trace; it stays as it is.
    data
        Samples to calibrate with and to measure on. Choosing layers on the test samples flatters
        the result a little: give a ``DataSet`` whose ``test`` is a validation set where it matters.
    budget
        Mean bits a weight, at most, over all Conv2d and Linear layers.
    bits
        Of a quantized weight, from 2 to 8; activations have 8. (Fewer than 8 are still stored in
        a byte here: the budget is the one that a format with packed weights would need.)
    per_channel
        One scale a channel instead of one a layer.

    Returns
    -------
    Mixed
        ``model``, and ``curve``: a row for each number of float layers, from 0, with ``layer``
        (returned to float last), ``bits`` (mean over weights), ``accuracy``, ``sqnr_db`` and
        ``chosen``; ``layers``, what `sensitivity` found for each of them.

    Raises
    ------
    ValueError
        If bits is not from 2 to 8, the budget is below it, or the model is one that
        `sensitivity` refuses.
    """
    from tqdm import tqdm

    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; a quantized weight has from 2 to 8.")
    if budget < bits:
        raise ValueError(
            f"the budget is {budget:g} bits a weight, fewer than the {bits} of a layer."
        )
    train, test = loaders(data)
    calibration = [batch for batch, _ in zip(train, range(BATCHES), strict=False)]
    qconfig = weight_qconfig(bits, per_channel)
    alone = sensitivity(model, calibration, test, batches=BATCHES, qconfig=qconfig)
    order = list(alone.sort_values("sqnr_db")["layer"])
    weights = {name: model.get_submodule(name).weight.numel() for name in order}
    logits = _outputs(model, test)
    rows, models = [], []
    for kept in tqdm(range(len(order) + 1), desc="mixed precision", unit="model", file=sys.stdout):
        everything = kept == len(order)
        mixed = model if everything else _quantize_but(model, order[:kept], qconfig, calibration)
        share = sum(weights[name] for name in order[:kept]) / sum(weights.values())
        rows.append(
            {
                "float_layers": kept,
                "layer": order[kept - 1] if kept else "",
                "bits": bits + share * (FLOAT_BITS - bits),
                "accuracy": evaluate(mixed, test),
                "sqnr_db": sqnr(logits, _outputs(mixed, test)),
            }
        )
        models.append(mixed)
    curve = pd.DataFrame(rows)
    best = curve[curve["bits"] <= budget]["sqnr_db"].idxmax()
    curve["chosen"] = curve.index == best
    return Mixed(models[best], curve, alone)


def _quantize_but(model: nn.Module, kept: list[str], qconfig, calibration: list) -> nn.Module:
    """Quantize all but some layers, in FX mode."""
    mapping = fx_mapping(qconfig)
    for name in kept:
        mapping.set_module_name(name, None)
    prepared = prepare_fx(copy.deepcopy(model), mapping, (inputs_of(calibration[0]),))
    calibrate(prepared, calibration)
    return clip_weights(convert_fx(prepared), qconfig)


def _outputs(model: nn.Module, loader) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(inputs) for inputs, _ in loader])
