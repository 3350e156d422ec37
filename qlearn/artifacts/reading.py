"""Artifacts that were handed in, read back as data, and what their errors mean."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FOLDER = "answers"  # beside the notebook
LIMIT_MB = 100
KINDS = {
    ".pt": "TorchScript",
    ".ptl": "TorchScript for the lite interpreter",
    ".pt2": "exported program",
    ".pte": "ExecuTorch program",
    ".onnx": "ONNX model",
    ".json": "table",
}
# What an error that a quantized model raises at its first input really says.
CAUSES = {
    "with arguments from the 'CPU' backend": (
        "a quantized layer received ordinary floats: put a QuantStub before it, or wrap the "
        "model in QuantWrapper"
    ),
    "'QuantizedCPU' backend": (
        "an operator that only knows floats received a quantized tensor: dequantize before it, "
        "or use FloatFunctional for an addition"
    ),
    "should be the same": "a float layer stands inside the quantized region: quantize it too, "
    "or put a DeQuantStub before it",
    "view size is not compatible": "the output of a quantized convolution is channels_last: "
    "use flatten(1) instead of view",
    "method->set_inputs()": "the ExecuTorch file was exported for another shape or batch size: "
    "export it with an example of the shape that it will get",
    "shapes cannot be multiplied": "the example inputs do not have the shape that the model takes",
}


@dataclass(frozen=True)
class Answer:
    """One artifact: a file and what it is."""

    name: str
    path: Path

    @property
    def kind(self) -> str:
        """What the file holds, in words."""
        return KINDS[self.path.suffix]

    @property
    def size_mb(self) -> float:
        """Size of the file in MB (10**6 bytes)."""
        return self.path.stat().st_size / 10**6

    def load(self) -> Any:
        """Return the model, as a function of its inputs, or the table as plain data.

        Raises
        ------
        AssertionError
            When the file cannot be read: in one sentence, for a learner.
        """
        try:
            return _LOADERS[self.path.suffix](self.path)
        except Exception as error:
            raise AssertionError(
                f"The answer {self.name!r} cannot be read as {self.kind} ({first_line(error)}): "
                f"hand it in again with qlearn.submit({self.name!r}, …)."
            ) from None


class Answers(dict[str, Answer]):
    """Answers by name; a missing one is explained."""

    def __missing__(self, name: str) -> Answer:
        """Raise an AssertionError, which a test cell shows to the learner."""
        raise AssertionError(
            f"There is no answer {name!r} yet: run the work cell that ends with "
            f"qlearn.submit({name!r}, …)."
        )


def answers(folder: str | Path = FOLDER) -> Answers:
    """Return what has been handed in, by name.

    Parameters
    ----------
    folder
        Where `submit` wrote.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix in KINDS)
    return Answers({path.stem: Answer(path.stem, path) for path in files})


def explain(error: Exception) -> str:
    """Say in words what an error of a quantized model means, with its first line.

    Parameters
    ----------
    error
        What running the model raised.
    """
    text = str(error)
    causes = [cause for sign, cause in CAUSES.items() if sign in text]
    return f"{causes[0]} ({first_line(error)})" if causes else first_line(error)


def first_line(error: Exception) -> str:
    """Name an error by its type and the first line of its message, at most 160 characters.

    Parameters
    ----------
    error
        Any.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


def _load_json(path: Path) -> Any:
    import pandas as pd

    if path.stat().st_size > LIMIT_MB * 10**6:
        raise ValueError("it is too large")
    data = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, Mapping) and set(data) == {"columns", "index", "data"}:
        return pd.DataFrame(**data)
    return data


def _load_exported(path: Path) -> Callable:
    import torchao  # noqa: F401  its tensor subclasses must be known to read them

    module = torch.export.load(path).module()
    module.training = False  # it was exported in eval mode, and its eval() raises
    return module


def _load_executorch(path: Path) -> Callable:
    from qlearn.export import executorch_contents, executorch_method

    executorch_contents(path)  # the runtime ends the process on some damaged files
    return executorch_method(path)


def _load_onnx(path: Path) -> Callable:
    from qlearn.export import onnx_session

    return onnx_session(path)


def _load_lite(path: Path) -> Callable:
    from qlearn.export import torchscript_module

    return torchscript_module(path)


_LOADERS: dict[str, Callable[[Path], Any]] = {
    ".pt": lambda path: torch.jit.load(path, map_location="cpu").eval(),
    ".ptl": _load_lite,
    ".pt2": _load_exported,
    ".pte": _load_executorch,
    ".onnx": _load_onnx,
    ".json": _load_json,
}
