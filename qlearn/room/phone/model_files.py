"""What the phone downloads: models in fp32 and int8, inputs, and the outputs the host gets."""

import gzip
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qlearn import data, pretrained
from qlearn.system.cache import home, source_digest, write_whole

PRECISIONS = ("fp32", "int8")
REFERENCES = 8  # inputs whose outputs the phone compares with the host's
CALIBRATION = 16  # training images


class PhoneModel(NamedTuple):
    """A base model that phones can run: its name on the page, and its input's height and width."""

    title: str
    pixels: int


# Names are keys of ``pretrained.RECIPES``.
MODELS = {"small_cnn": PhoneModel("Small CNN", 28), "resnet18": PhoneModel("ResNet-18", 224)}


def write_bundles(names: Sequence[str]) -> dict[str, Path]:
    """Return each model's folder in the cache; make what is not there.

    A folder holds ``fp32.onnx``, ``int8.onnx``, ``inputs.bin.gz`` (float32, little-endian, in C
    order, compressed) and ``model.json``, the model's entry in the page's manifest.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(MODELS):
        raise ValueError(
            f"The models are {', '.join(names) or 'none'}: choose from {', '.join(MODELS)}, "
            "each once."
        )
    return {name: _write_bundle(name) for name in names}


def _write_bundle(name: str) -> Path:
    versions = [importlib.metadata.version(p) for p in ("onnx", "onnxruntime", "onnxscript")]
    made_from = (pretrained.path(name).name, versions, source_digest(__name__))
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:10]
    folder = home() / "phone" / f"{name}-{key}"
    if not folder.is_dir():
        print(f"Exporting {MODELS[name].title} once; it is then kept in {folder.parent}.")
        with write_whole(folder) as unfinished:
            unfinished.mkdir()
            _export(name, unfinished)
    return folder


def _export(name: str, folder: Path) -> None:
    from qlearn import export

    title, pixels = MODELS[name]
    model = pretrained.resnet18("digits") if name == "resnet18" else getattr(pretrained, name)()
    train, test = data.loaders(pretrained.RECIPES[name].data())
    calibration = list(_take_images(train, CALIBRATION, pixels).split(1))
    inputs = _take_images(test, REFERENCES, pixels)
    entry = {"name": name, "title": title, "shape": [1, *inputs.shape[1:]], "files": {}}
    for precision, calibrating in zip(PRECISIONS, (None, calibration), strict=True):
        path = folder / f"{precision}.onnx"
        export.onnx(model, inputs[:1], path, calibrating)
        outputs = _run_reference(path, inputs)
        entry["files"][precision] = {"bytes": path.stat().st_size, "outputs": outputs.tolist()}
    raw = inputs.numpy().astype("<f4").tobytes()
    (folder / "inputs.bin.gz").write_bytes(gzip.compress(raw, mtime=0))
    (folder / "model.json").write_text(json.dumps(entry), encoding="utf-8")


def _run_reference(path: Path, inputs: Tensor) -> Tensor:
    """Return the outputs, N×classes, that the file itself defines.

    The graph is run as it is written. Optimized for x86 without VNNI instructions, ONNX Runtime's
    int8 kernels add pairs of products in 16 bits, which overflow: the host would be wrong, and a
    right phone would seem to disagree.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: one.numpy()})[0] for one in inputs.split(1)]
    return torch.cat([torch.from_numpy(output) for output in outputs])


def _take_images(loader: DataLoader, count: int, pixels: int) -> Tensor:
    """Return the first images of a batch, count×channels×pixels×pixels, float32 in [0, 1]."""
    images, _ = next(iter(loader))
    return nn.functional.interpolate(images[:count], size=(pixels, pixels), mode="bilinear")
