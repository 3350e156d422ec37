"""What an app needs beside a file: labels, preprocessing, an example, lines that load it."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor

from qlearn.data.documentation import PIECES
from qlearn.data.text import ALPHABET, LENGTH, PADDING, UNKNOWN
from qlearn.system.cache import write_whole

TEMPLATES = Path(__file__).with_name("app")
# How the languages call the types of an input.
TYPES = {
    torch.float32: {"cpp": "float", "kotlin": "Float", "swift": "Float", "torch": "float32"},
    torch.int64: {"cpp": "int64_t", "kotlin": "Long", "swift": "Int64", "torch": "int64"},
    torch.int32: {"cpp": "int32_t", "kotlin": "Int", "swift": "Int32", "torch": "int32"},
}
_IMAGE = {
    "kind": "image",
    "words": (
        "A grey picture with a white stroke on black, which fills it: resize it to 28×28 pixels "
        "(bilinear) and divide each value by the largest that a pixel can have (255 for 8 bits): "
        "it is then in [0, 1]. Rows from the top, pixels from the left; no mean is subtracted."
    ),
    "height": 28,
    "width": 28,
    "resize": "bilinear",
    "range": [0, 1],
    "channels": 1,
}
_COLOUR = _IMAGE | {
    "channels": 3,
    "words": f"{_IMAGE['words']} The grey values come three times, as red, green and blue.",
}
_PHRASE = {
    "kind": "text",
    "words": (
        f"Normalize the text to NFC, make every stretch of white space one space, and keep the "
        f"first {LENGTH} characters. Each becomes its id in `alphabet`, or {UNKNOWN} if it is not "
        f"there; put {PADDING} on the left until there are {LENGTH}."
    ),
    "length": LENGTH,
    "unknown": UNKNOWN,
    "padding": PADDING,
    "alphabet": ALPHABET,
}
_DOCUMENTATION = {
    "kind": "text",
    "words": (
        "Take from the start of the text the longest of `pieces` that it begins with, over and "
        "over, leave out characters with which none begins, and give the places of the pieces in "
        "the list, counted from 0."
    ),
    "pieces": list(PIECES),
}
PREPROCESSING = {
    "resnet18": _COLOUR,
    "phrase_lstm": _PHRASE,
    "language_model": _DOCUMENTATION,
} | dict.fromkeys(("mlp", "depthwise_cnn", "character_cnn", "small_cnn"), _IMAGE)
UNTOLD = {
    "kind": "unknown",
    "words": "The exported program does not say how its inputs are made: write it down here.",
}


def write_app_files(
    folder: Path,
    name: str,
    example: Tensor,
    classes: tuple[str, ...] | None,
    runs: dict[str, Callable[[Tensor], Tensor]],
) -> None:
    """Write into a folder what an app needs to use a model's files.

    Parameters
    ----------
    name
        Of a course model, whose preprocessing is known, or of any other.
    example
        An input as the files take it.
    classes
        Names of the outputs, in order; None if nobody told them.
    runs
        File name → function of the input that runs it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "input": {"shape": list(example.shape), "type": str(example.dtype).removeprefix("torch.")},
        "preprocessing": PREPROCESSING.get(name, UNTOLD),
    }
    _write_bytes(folder / "example.bin", example)
    for file, run in runs.items():
        output = run(example)
        _write_bytes(folder / f"expected.{file}.bin", output)
        about["output"] = {
            "shape": list(output.shape),
            "type": str(output.dtype).removeprefix("torch."),
        }
    if classes is not None:
        about["output"]["words"] = (
            "A score for each line of labels.txt, in its order (in dimension 1); the largest is "
            "the answer."
        )
        # A label may hold a line end: it is written as \n, and a backslash twice.
        labels = (label.replace("\\", "\\\\").replace("\n", "\\n") for label in classes)
        _write_text(folder / "labels.txt", "".join(f"{label}\n" for label in labels))
    text = json.dumps(about, indent=1, ensure_ascii=False)
    _write_text(folder / "preprocessing.json", text)
    files = sorted(file for file in runs if file.endswith(".pte"))
    if files and example.dtype in TYPES and about["output"]["type"] == "float32":
        _write_code(folder, files[-1], example)  # int8, where there is one


def _write_code(folder: Path, file: str, example: Tensor) -> None:
    """Write the lines of each language that load an ExecuTorch file."""
    values = {
        "file": file,
        "shape": ", ".join(map(str, example.shape)),
        "count": example.numel(),
        "version": importlib.metadata.version("executorch").partition("+")[0],
    }
    for template in sorted(TEMPLATES.iterdir()):
        text = Template(template.read_text(encoding="utf-8"))
        _write_text(folder / template.stem, text.substitute(values | TYPES[example.dtype]))


def _write_text(path: Path, text: str) -> None:
    with write_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _write_bytes(path: Path, values: Tensor) -> None:
    """Write values in C order, little-endian, as they are in memory on every machine of today."""
    whole = values.detach().contiguous().flatten()  # as bytes: NumPy has no bfloat16
    with write_whole(path) as unfinished:
        unfinished.write_bytes(whole.view(torch.uint8).numpy().tobytes())
