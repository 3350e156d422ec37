"""The 4-bit forms of a `DepthwiseCNN` that ``make bench`` measures beside `qlearn.schemes`."""

import copy
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    QConfig,
    QuantWrapper,
    convert,
    disable_observer,
    fuse_modules,
    fuse_modules_qat,
    prepare,
    prepare_qat,
)
from torch.utils.data import DataLoader

from qlearn.calibration import calibrate
from qlearn.models import ConvBNReLU
from qlearn.training import fit

# The x86 engine adds pairs of products in 16 bits where there is no VNNI, so activations get 7.
ACTIVATIONS = {"dtype": torch.quint8, "quant_min": 0, "quant_max": 255, "reduce_range": True}
FOUR_BITS = {
    "dtype": torch.qint8,
    "qscheme": torch.per_tensor_symmetric,
    "quant_min": -8,
    "quant_max": 7,
}


def four_bit_ptq(model: nn.Module, calibration: Iterable) -> nn.Module:
    """Return a `DepthwiseCNN` with weights of 4 bits per tensor and 8-bit activations.

    The weights take 16 of int8's 256 values, and a byte each: the file is no smaller for it.
    Eager mode, because its ``convert`` clips the weights to their 4 bits; ``convert_fx`` does not.
    """
    wrapped = QuantWrapper(copy.deepcopy(model)).eval()
    _fuse(wrapped, fuse_modules)
    wrapped.qconfig = QConfig(
        activation=HistogramObserver.with_args(dtype=torch.quint8, reduce_range=True),
        weight=MinMaxObserver.with_args(**FOUR_BITS),
    )
    prepared = prepare(wrapped)
    calibrate(prepared, calibration)
    return convert(prepared)


def four_bit_qat(
    model: nn.Module, train: DataLoader, epochs: int, learning_rate: float = 1e-3
) -> nn.Module:
    """Return a `DepthwiseCNN` with weights of 4 bits per tensor, trained on with them.

    For the last quarter of the epochs the ranges and the batch-norm statistics stand still.
    """
    wrapped = QuantWrapper(copy.deepcopy(model)).train()
    _fuse(wrapped, fuse_modules_qat)
    wrapped.qconfig = QConfig(
        activation=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, **ACTIVATIONS),
        weight=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, **FOUR_BITS),
    )
    prepared = prepare_qat(wrapped)
    settle = partial(_settle, after=epochs - epochs // 4)
    fit(prepared, train, epochs=epochs, learning_rate=learning_rate, on_epoch=settle)
    return convert(prepared)


def _fuse(model: nn.Module, fuse: Callable[..., nn.Module]) -> None:
    for module in model.modules():
        if isinstance(module, ConvBNReLU):
            fuse(module, ["0", "1", "2"], inplace=True)


def _settle(model: nn.Module, epoch: int, after: int) -> None:
    """Freeze observers and batch norm once epoch ``after`` is over."""
    if epoch > after:
        model.apply(disable_observer)
        model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)
