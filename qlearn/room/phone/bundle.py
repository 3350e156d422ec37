"""What the phone downloads: models in fp32 and int8, inputs, and the outputs the host gets."""

import gzip
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qlearn import data, pretrained
from qlearn.system.cache import home, making

PRECISIONS = ("fp32", "int8")
REFERENCES = 8  # inputs whose outputs the phone compares with the host's
CALIBRATION = 16  # training images


@dataclass(frozen=True)
class PhoneModel:
    """A model that phones can run.

    Attributes
    ----------
    title
        What the page calls it.
    base
        Its key in ``pretrained.RECIPES``.
    load
        Gives the trained float model.
    pixels
        Height and width of its input; the digits are resized to it.
    """

    title: str
    base: str
    load: Callable[[], nn.Module]
    pixels: int


MODELS = {
    "small_cnn": PhoneModel("Small CNN", "small_cnn", pretrained.small_cnn, 28),
    "resnet18": PhoneModel("ResNet-18", "resnet18", partial(pretrained.resnet18, "digits"), 224),
}


def bundle(names: Sequence[str]) -> dict[str, Path]:
    """Return each model's folder in the cache; make what is not there.

    A folder holds ``fp32.onnx``, ``int8.onnx``, ``inputs.bin.gz`` (float32, little-endian, in C
    order, compressed) and ``model.json``, the model's entry in the page's manifest.

    Parameters
    ----------
    names
        Keys of ``MODELS``, in the order in which phones run them.

    Raises
    ------
    ValueError
        If a name is unknown, given twice, or there is none.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(MODELS):
        raise ValueError(
            f"The models are {', '.join(names) or 'none'}: choose from {', '.join(MODELS)}, "
            "each once."
        )
    return {name: _folder(name) for name in names}


def _folder(name: str) -> Path:
    """Return the model's folder; its name changes with anything that the files depend on."""
    from qlearn import export

    versions = [importlib.metadata.version(p) for p in ("onnx", "onnxruntime", "onnxscript")]
    depends_on = (
        pretrained.path(MODELS[name].base).name,
        versions,
        Path(inspect.getfile(export.onnx)).read_text(encoding="utf-8"),
        Path(__file__).read_text(encoding="utf-8"),
    )
    key = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:10]
    folder = home() / "phone" / f"{name}-{key}"
    if not folder.is_dir():
        print(f"Exporting {MODELS[name].title} once; it is then kept in {folder.parent}.")
        with making(folder) as unfinished:
            unfinished.mkdir()
            _export(name, unfinished)
    return folder


def _export(name: str, folder: Path) -> None:
    """Write the files of a model."""
    from qlearn import export

    model = MODELS[name]
    train, test = data.loaders(pretrained.RECIPES[model.base].data())
    calibration = list(_take_images(train, CALIBRATION, model.pixels).split(1))
    inputs = _take_images(test, REFERENCES, model.pixels)
    entry = {"name": name, "title": model.title, "shape": [1, *inputs.shape[1:]], "files": {}}
    for precision, calibrating in zip(PRECISIONS, (None, calibration), strict=True):
        path = folder / f"{precision}.onnx"
        export.onnx(model.load(), inputs[:1], path, calibrating)
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
