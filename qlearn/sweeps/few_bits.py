"""A study of few bits: calibration, equalization and training compared over several seeds."""

import contextlib
import io
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from qlearn import data, models
from qlearn.quantization.equalization import correct_bias, equalize, fold
from qlearn.quantization.lsq import LearnedStep
from qlearn.quantization.qconfigs import fake_quantizer, weight_qconfig
from qlearn.quantization.schemes import LEARNING_RATES, qat, static_fx
from qlearn.system.cache import home, source_digest, write_whole
from qlearn.training import evaluate, fit

METHODS = (
    "PTQ", "repaired", "QAT", "folded, QAT", "equalized, QAT", "QAT, learned step"
)  # fmt: skip


def low_bit_study(
    seeds: Iterable[int] = range(5),
    bits: Iterable[int] = (4, 3),
    *,
    orders: Iterable[int] = range(5),
    float_epochs: int = 8,
    qat_epochs: int = 3,
    methods: Iterable[str] = METHODS,
) -> pd.DataFrame:
    """Train a `DepthwiseCNN` on the digits from each seed and quantize it in each way.

    Weights of few bits on one grid for all methods (`weight_qconfig`), activations of 8 bits.
    "PTQ" is calibrated only, "repaired" is equalized and bias-corrected before that, both with one
    scale a layer and with one a channel. The others are fine-tuned with one scale a layer: "QAT",
    with a learned step by LSQ, and "equalized, QAT" from the equalized model. That has no batch
    norm any more; neither has "folded, QAT", which shows what is equalization's.

    Every cell has a loader of its own, so that it does not depend on which cells ran before it.

    Parameters
    ----------
    seeds
        Of the float model: its first weights and the order of its training samples.
    bits
        Of a weight: 8, 4 or 3.
    orders
        Seeds of the order of the samples that a float model is calibrated or fine-tuned with: the
        other source of variance, crossed with the first.
    float_epochs, qat_epochs
        Passes over the training samples.
    methods
        Some of those above.

    Returns
    -------
    pandas.DataFrame
        seed, order, bits, scales ("per tensor", "per channel"; "" for float), method, accuracy in
        [0, 1]; the float model of a seed has 32 bits, the method "float" and the order -1.

    Raises
    ------
    ValueError
        If a method or a number of bits is none of those above.

    References
    ----------
    Krishnamoorthi 2018 (arXiv 1806.08342); Nagel et al. 2021, A White Paper on Neural Network
    Quantization (arXiv 2106.08295).
    """
    rows, bits, methods, orders = [], list(bits), list(methods), list(orders)
    for given, known in ((methods, METHODS), (bits, tuple(LEARNING_RATES))):
        if not set(given) <= set(known):
            raise ValueError(f"{given} is not all of {known}: the study knows no others.")
    digits = data.digits()
    cells = list(itertools.product(orders, bits, (False, True), methods))
    cells = [cell for cell in cells if not (cell[2] and "QAT" in cell[3])]
    for seed in tqdm(list(seeds), desc="seeds", unit="seed", file=sys.stdout, ncols=80):
        with contextlib.redirect_stdout(io.StringIO()):  # one progress bar is enough
            model, accuracy = _float_model(digits, seed, float_epochs)
            rows.append((seed, -1, 32, "", "float", accuracy))
            for order, width, per_channel, method in cells:
                train, test = data.loaders(digits, seed=1000 + order)
                made = _quantize(model, train, width, per_channel, method, qat_epochs)
                scales = "per channel" if per_channel else "per tensor"
                rows.append((seed, order, width, scales, method, evaluate(made, test)))
    return pd.DataFrame(rows, columns=["seed", "order", "bits", "scales", "method", "accuracy"])


def kept_study() -> pd.DataFrame | None:
    """Return the study that ``qlearn prepare --all`` made with this package, or None."""
    path = _path()
    return pd.read_csv(path, keep_default_na=False) if path.exists() else None


def keep_study(force: bool = False) -> str:
    """Make the study in full and keep it, again if forced; return "made", or "there" if it was."""
    path = _path()
    if path.exists() and not force:
        return "there"
    table = low_bit_study()
    with write_whole(path) as unfinished:
        table.to_csv(unfinished, index=False)
    return "made"


def _path() -> Path:
    """Path of the study that is kept, which depends on the code that makes it and on the engine."""
    digest = source_digest("qlearn.sweeps.few_bits")
    return home() / "studies" / f"low_bits-{torch.backends.quantized.engine}-{digest[:10]}.csv"


def _float_model(digits: data.DataSet, seed: int, epochs: int) -> tuple[nn.Module, float]:
    train, test = data.loaders(digits, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.DepthwiseCNN()
        fit(model, train, epochs=epochs)
    return model, evaluate(model, test)


def _quantize(
    model: nn.Module, train: DataLoader, bits: int, per_channel: bool, method: str, epochs: int
) -> nn.Module:
    if method == "PTQ":
        return static_fx(model, train, per_channel, bits)
    if method == "repaired":
        weight = weight_qconfig(bits, per_channel).weight
        return static_fx(correct_bias(equalize(model), weight, train), train, per_channel, bits)
    learned = LearnedStep.with_args(bits=bits, symmetric=True)
    weight = learned if method == "QAT, learned step" else fake_quantizer(bits, per_channel)
    start = {"folded, QAT": fold, "equalized, QAT": equalize}.get(method, lambda model: model)
    return qat(start(model), train, bits, weight, epochs)
