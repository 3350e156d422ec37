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
from qlearn.quantization.equalization import correct_bias, equalize
from qlearn.quantization.lsq import LearnedStep
from qlearn.quantization.qconfigs import fake_quantizer, weight_qconfig
from qlearn.quantization.schemes import LEARNING_RATES, qat, static_fx
from qlearn.system.cache import home, source_digest, write_whole
from qlearn.training import evaluate, fit

METHODS = ("PTQ", "repaired", "QAT", "QAT, learned step", "equalized, QAT")


def low_bit_study(
    seeds: Iterable[int] = (0, 1, 2),
    bits: Iterable[int] = (8, 4, 3),
    *,
    float_epochs: int = 8,
    qat_epochs: int = 3,
    methods: Iterable[str] = METHODS,
) -> pd.DataFrame:
    """Train a `DepthwiseCNN` on the digits from each seed and quantize it in each way.

    Weights of few bits, with one scale a layer or one a channel, after batch norm is folded;
    activations of 8 bits. "PTQ" is calibrated only, "repaired" is equalized and bias-corrected
    before that, "QAT" is fine-tuned, and with a learned step (one scale a layer) by LSQ;
    "equalized, QAT" is fine-tuned from the equalized model.

    Parameters
    ----------
    seeds
        Of the float model's first weights and of the order of the training samples.
    bits
        Of a weight: 8, 4 or 3.
    float_epochs, qat_epochs
        Passes over the training samples.
    methods
        Some of those above.

    Returns
    -------
    pandas.DataFrame
        seed, bits, scales ("per tensor", "per channel"; "" for float), method, accuracy in
        [0, 1]; the float model of a seed has 32 bits and the method "float".

    Raises
    ------
    ValueError
        If a method or a number of bits is none of those above.

    References
    ----------
    Krishnamoorthi 2018 (arXiv 1806.08342); Nagel et al. 2021, A White Paper on Neural Network
    Quantization (arXiv 2106.08295).
    """
    rows, bits, methods = [], list(bits), list(methods)
    for given, known in ((methods, METHODS), (bits, tuple(LEARNING_RATES))):
        if not set(given) <= set(known):
            raise ValueError(f"{given} is not all of {known}: the study knows no others.")
    for seed in tqdm(list(seeds), desc="seeds", unit="seed", file=sys.stdout, ncols=80):
        train, test = data.loaders(data.digits(), seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = models.DepthwiseCNN()
            with contextlib.redirect_stdout(io.StringIO()):  # one progress bar is enough
                fit(model, train, epochs=float_epochs)
                rows.append((seed, 32, "", "float", evaluate(model, test)))
                for width, per_channel, method in itertools.product(bits, (False, True), methods):
                    if method == "QAT, learned step" and per_channel:
                        continue
                    made = _quantize(model, train, width, per_channel, method, qat_epochs)
                    scales = "per channel" if per_channel else "per tensor"
                    rows.append((seed, width, scales, method, evaluate(made, test)))
    return pd.DataFrame(rows, columns=["seed", "bits", "scales", "method", "accuracy"])


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


def _quantize(
    model: nn.Module, train: DataLoader, bits: int, per_channel: bool, method: str, epochs: int
) -> nn.Module:
    if method == "PTQ":
        return static_fx(model, train, per_channel, bits)
    if method == "repaired":
        weight = weight_qconfig(bits, per_channel).weight
        return static_fx(correct_bias(equalize(model), weight, train), train, per_channel, bits)
    learned = method == "QAT, learned step"
    weight = LearnedStep.with_args(bits=bits) if learned else fake_quantizer(bits, per_channel)
    start = equalize(model) if method == "equalized, QAT" else model
    return qat(start, train, bits, weight, epochs)
