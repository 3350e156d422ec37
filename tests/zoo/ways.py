"""What can be done with a module: each way gives dB, or refuses in a sentence of ours."""

import contextlib
import io
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import qlearn
from qlearn import export, schemes
from qlearn.data import DataSet, loaders
from qlearn.quantization import schemes as all_schemes

FUNCTIONS = ("compare", "sensitivity", "layer_errors", "mixed_precision", "submit",
             "torchscript", "executorch", "executorch_int8", "onnx", "onnx_int8")  # fmt: skip
WAYS = (*schemes.ALL, *FUNCTIONS)
# A file of another runtime, or a program in it: each is lowered, which takes seconds.
LOWERED = ("int8_pt2e", "executorch", "executorch_int8", "onnx", "onnx_int8")


class Subject(NamedTuple):
    """A module of the zoo with its data, and the outputs that a way is measured against."""

    model: nn.Module
    data: DataSet
    train: list
    test: list
    inputs: Tensor
    wanted: Tensor | None


def subject(model: nn.Module, data: DataSet) -> Subject:
    train, test = ([*loader] for loader in loaders(data, 16))
    inputs = test[0][0]
    wanted = None
    with torch.no_grad(), contextlib.suppress(TypeError):
        wanted = model(inputs)
    return Subject(model, data, train, test, inputs, wanted)


def run(way: str, of: Subject) -> float | str:
    """Return dB, or the sentence; whatever else a way raises is a fault."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return _scheme(way, of) if way in schemes.ALL else globals()[f"_{way}"](of)
        except (ValueError, FloatingPointError) as error:
            return str(error)
        except ImportError as error:
            return f"the scheme needs a package that is not installed: {error}"


def _decibels(of: Subject, outputs: Tensor) -> float:
    return qlearn.sqnr(of.wanted.float(), outputs.float())


def _scheme(way: str, of: Subject) -> float:
    made = all_schemes.ALL[way](of.model, of.train)
    with torch.no_grad():
        return _decibels(of, made(of.inputs))


def _compare(of: Subject) -> float:
    table = qlearn.compare({"a": of.model, "b": of.model}, of.inputs, of.test, seconds=0.001)
    assert table.agreement["b"] == 1
    return math.inf


def _sensitivity(of: Subject) -> float:
    return float(qlearn.sensitivity(of.model, of.train, of.test).sqnr_db.min())


def _layer_errors(of: Subject) -> float:
    made = all_schemes.static_fx(of.model, of.train)
    return float(qlearn.layer_errors(of.model, made, of.inputs).sqnr_db.min())


def _mixed_precision(of: Subject) -> float:
    return float(
        qlearn.mixed_precision(of.model, of.data, 8, bits=8, wide=32).curve.sqnr_db.iloc[0]
    )


def _submit(of: Subject) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        answer = qlearn.submit("model", of.model, of.inputs)
        with torch.no_grad():
            return _decibels(of, answer.load()(of.inputs))


def _write(of: Subject, form: str, suffix: str, *calibration: list) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{suffix}")
        return getattr(export, form)(of.model, of.inputs, path, *calibration).sqnr_db


def _torchscript(of: Subject) -> float:
    return _write(of, "torchscript", ".pt")


def _executorch(of: Subject) -> float:
    return _write(of, "executorch", ".pte")


def _executorch_int8(of: Subject) -> float:
    return _write(of, "executorch", ".pte", of.train)


def _onnx(of: Subject) -> float:
    return _write(of, "onnx", ".onnx")


def _onnx_int8(of: Subject) -> float:
    return _write(of, "onnx", ".onnx", of.train)
