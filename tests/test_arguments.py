"""Arguments of the wrong kind: every public function says what is wrong, and what to give."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qlearn
from qlearn.data import digits

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
IMAGES = torch.rand(4, 1, 28, 28)
SET = [(torch.rand(1, 28, 28), number % 10) for number in range(16)]
LOADER = DataLoader(SET, 8)
ONE = {"a": MODEL}

WRONG = {
    "inputs in a list": (lambda: qlearn.compare(ONE, [1, 2]), "inputs are a list"),
    "inputs of NumPy": (lambda: qlearn.compare(ONE, IMAGES.numpy()), "inputs are a ndarray"),
    "no inputs": (lambda: qlearn.latency(MODEL, None), "inputs are a NoneType"),
    "an empty batch": (lambda: qlearn.compare(ONE, IMAGES[:0]), "hold no sample"),
    "a class": (lambda: qlearn.compare({"a": nn.Linear}, IMAGES), "give a model"),
    "a text for a model": (lambda: qlearn.compare({"a": "b"}, IMAGES), "'a' is 'b': give a model"),
    "no time": (lambda: qlearn.compare(ONE, IMAGES, seconds=0), "seconds is 0"),
    "time as text": (lambda: qlearn.compare(ONE, IMAGES, seconds="1"), "seconds is '1'"),
    "no threads": (lambda: qlearn.compare(ONE, IMAGES, threads=0), "threads is 0"),
    "half a thread": (lambda: qlearn.latency(MODEL, IMAGES, threads=0.5), "threads is 0.5"),
    "a size of nothing": (lambda: qlearn.model_size(None), "give an nn.Module"),
    "half an epoch": (lambda: qlearn.fit(MODEL, LOADER, epochs=1.5), "epochs is 1.5"),
    "a rate of 0": (lambda: qlearn.fit(MODEL, LOADER, epochs=1, learning_rate=0), "rate is 0"),
    "a rate as text": (
        lambda: qlearn.fit(MODEL, LOADER, epochs=1, learning_rate="0.1"),
        "learning_rate is '0.1'",
    ),
    "loaders of a loader": (lambda: qlearn.loaders(LOADER), "DataLoader is no data set"),
    "batches of halves": (lambda: qlearn.loaders(digits(), 0.5), "batch_size is 0.5"),
    "a sweep of a loader": (lambda: qlearn.sweep(MODEL, ["fp32"], LOADER), "no data set"),
    "a sweep of nothing": (
        lambda: qlearn.sweep(None, ["fp32"], digits()),
        "is a NoneType",
    ),
    "a limit as text": (
        lambda: qlearn.sweep(MODEL, ["fp32"], digits(), limit="5"),
        "limit is '5'",
    ),
    "a batch as text": (
        lambda: qlearn.sweep(MODEL, ["fp32"], digits(), batch="5"),
        "batch is '5'",
    ),
    "a budget as text": (
        lambda: qlearn.mixed_precision(MODEL, digits(), "8"),
        "budget is '8'",
    ),
    "bits as text": (
        lambda: qlearn.mixed_precision(MODEL, digits(), 8, bits="4"),
        "bits is '4'",
    ),
    "a number for calibration": (lambda: qlearn.schemes.static_fx(MODEL, 5), "holds no batches"),
    "SQNR of lists": (lambda: qlearn.sqnr([1.0], [1.0]), "one is a list: make"),
    "a study of a model": (lambda: qlearn.observer_study(MODEL, {}), "no list of tensors"),
    "a front of a dict": (lambda: qlearn.pareto({"accuracy": 1}), "the table lacks"),
    "a figure of another table": (
        lambda: qlearn.comparison(pd.DataFrame({"a": [1]})),
        "lacks latency_ms",
    ),
    "no figure": (lambda: qlearn.show(None, alt="nothing"), "a NoneType is no figure"),
    "a name that is none": (lambda: qlearn.submit(3, 1), "The name comes first"),
    "a name without end": (lambda: qlearn.submit("a" * 300, 1), "is too long"),
    "a table of several levels": (
        lambda: qlearn.submit("a", pd.DataFrame({("a", "b"): [1]})),
        "several levels",
    ),
    "an exercise that is none": (lambda: qlearn.start("ex9", "ada"), "no exercise 'ex9'; there"),
    "a part that is none": (lambda: qlearn.hint("ex1", "x"), "'x' is none of them"),
    "a path that is none": (lambda: qlearn.data.image_folder(None, size=8), "is no path"),
    "a table for a path": (
        lambda: qlearn.data.text_csv(pd.DataFrame(), text="a", label="b"),
        "a DataFrame is no path",
    ),
    "a report that is none": (lambda: qlearn.device.read("no.json"), "There is no file no.json"),
    "a function exported": (
        lambda: qlearn.export.onnx(np.sum, IMAGES, "a.onnx"),
        "is a .*: give an nn.Module",
    ),
    "calibration by a number": (
        lambda: qlearn.export.onnx(MODEL, IMAGES, "a.onnx", 5),
        "holds no batches",
    ),
}
SUFFIXES = {"torchscript": ".onnx", "executorch": ".onnx", "onnx": ".pte"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_argument_gets_a_sentence(kind, tmp_path):
    call, says = WRONG[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("answers/*")) and not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_file_is_named_for_what_it_holds(form, tmp_path):
    with pytest.raises(ValueError, match="must end in"):
        getattr(qlearn.export, form)(MODEL, IMAGES, tmp_path / f"a{SUFFIXES[form]}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "train", [IMAGES, TensorDataset(IMAGES, torch.arange(4))], ids=["a tensor", "a set"]
)
def test_a_scheme_takes_whatever_holds_batches(train):
    """A tensor is a set of samples, and its rows are no batches, of which this model takes none."""
    model = nn.Sequential(nn.Flatten(2), nn.Linear(784, 10), nn.Flatten()).eval()
    made = qlearn.schemes.static_fx(model, train)
    assert qlearn.sqnr(model(IMAGES), made(IMAGES)) > 20
