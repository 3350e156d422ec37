"""Artifacts that were handed in, read back as data, and what their errors mean."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlearn.exercises import run
from qlearn.system.errors import name_error

FOLDER = "answers"  # beside the notebook
LIMIT_MB = 100
VALUE, MADE_WITH = "value", "made_with"  # what the file of a table, number or text holds
TABLE = {"columns", "index", "data"}  # what stands there of a DataFrame
KINDS = {
    ".pt": "TorchScript",
    ".ptl": "TorchScript for the lite interpreter",
    ".pt2": "exported program",
    ".pte": "ExecuTorch program",
    ".onnx": "ONNX model",
    ".json": "table",
}
PLAIN = {str: "text", bool: "truth value", int: "number", float: "number", list: "list"}
RECORD = "extra/made_with.json"  # in the archive of a TorchScript file
RECORD_BYTES = 10_000


@dataclass(frozen=True)
class Answer:
    """One artifact: a file and what it is."""

    name: str
    path: Path

    @property
    def kind(self) -> str:
        """What the file holds, in words."""
        if self.path.suffix != ".json":
            return KINDS[self.path.suffix]
        try:
            value = _parts(self.path)[VALUE]
        except (OSError, ValueError, RecursionError):
            return KINDS[".json"]
        if isinstance(value, dict):
            return "table" if value.keys() == TABLE else "dict"
        return PLAIN.get(type(value), "missing value")

    @property
    def article_and_kind(self) -> str:
        """What the file holds, with an article."""
        return f"{'an' if self.kind[0] in 'aeiouAEIO' else 'a'} {self.kind}"

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
            if self.size_mb > LIMIT_MB:
                raise ValueError(f"it has more than {LIMIT_MB} MB")
            return _LOADERS[self.path.suffix](self.path)
        except Exception as error:
            raise AssertionError(
                f"The answer {self.name!r} cannot be read as {self.kind} ({name_error(error)}): "
                f"hand it in again with qlearn.submit({self.name!r}, …)."
            ) from None

    @property
    def made_with(self) -> dict[str, Any]:
        """Threads, engine, processor and version that it was made with; empty if it says none.

        Whoever wrote the file could write anything here: `under` sets what can be set.
        """
        try:
            if self.path.suffix == ".json":
                record = _parts(self.path)[MADE_WITH]
            else:
                record = _record_of_archive(self.path)
        except (OSError, ValueError, RecursionError, RuntimeError):
            return {}
        return record if isinstance(record, dict) else {}


class Answers(dict[str, Answer]):
    """Answers by name; one that is missing, of an earlier run or in two files is explained."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Take files, each named as its answer; of two for one answer none counts."""
        self.files: dict[str, list[Path]] = {}
        self.earlier: set[str] = set()
        for path in files:
            if not run.counts(path.stem):
                self.earlier.add(path.stem)
                continue
            self.files.setdefault(path.stem, []).append(path)
        single = {name: paths[0] for name, paths in self.files.items() if len(paths) == 1}
        super().__init__({name: Answer(name, path) for name, path in single.items()})

    def __missing__(self, name: str) -> Answer:
        """Raise an AssertionError, which a test cell shows to the learner."""
        if name in self.files:
            names = " and ".join(path.name for path in self.files[name])
            raise AssertionError(
                f"There are several files for the answer {name!r}, {names}: remove all but one, "
                f"or hand it in again with qlearn.submit({name!r}, …), which does so."
            )
        if name in self.earlier:
            raise AssertionError(
                f"The answer {name!r} is of an earlier run of the notebook: run its work cell, "
                f"which ends with qlearn.submit({name!r}, …), again."
            )
        raise AssertionError(
            f"There is no answer {name!r} yet: run the work cell that ends with "
            f"qlearn.submit({name!r}, …)."
        )


def answers(folder: str | Path = FOLDER) -> Answers:
    """Return what has been handed in, by name: since `start`, where this process called it.

    Parameters
    ----------
    folder
        Where `submit` wrote.
    """
    return Answers(sorted(path for path in Path(folder).glob("*") if path.suffix in KINDS))


def _parts(path: Path) -> dict[str, Any]:
    """Return the value and the record of a file; one of an earlier version is the value alone."""
    if path.stat().st_size > LIMIT_MB * 10**6:
        raise ValueError(f"it has more than {LIMIT_MB} MB")
    data = json.loads(path.read_text(encoding="utf-8"))
    whole = isinstance(data, dict) and data.keys() == {VALUE, MADE_WITH}
    return data if whole else {VALUE: data, MADE_WITH: {}}


def _record_of_archive(path: Path) -> Any:
    from qlearn.exercises.untrusted.archives import open_archive

    if path.suffix not in (".pt", ".ptl"):
        return {}
    reader = open_archive(path)
    if not reader.has_record(RECORD) or reader.get_record_size(RECORD) > RECORD_BYTES:
        return {}
    return json.loads(reader.get_record(RECORD))


def _load_json(path: Path) -> Any:
    import pandas as pd

    value = _parts(path)[VALUE]
    if isinstance(value, dict) and value.keys() == TABLE:
        return pd.DataFrame(**value)
    return value


def _load_exported(path: Path) -> Callable:
    from qlearn.exercises.untrusted.programs import load_program

    module = load_program(path).module()
    module.training = False  # it was exported in eval mode, and its eval() raises
    return module


def _load_script(path: Path) -> Callable:
    from qlearn.exercises.keeping import model_of
    from qlearn.exercises.untrusted.scripts import load_script

    return model_of(path, load_script)


def _load_lite(path: Path) -> Callable:
    import torch

    from qlearn.exercises.untrusted.scripts import load_lite_script

    return torch.no_grad()(load_lite_script(path))


def _load_executorch(path: Path) -> Callable:
    from qlearn.export import executorch_contents, executorch_method

    executorch_contents(path)  # the runtime ends the process on some damaged files
    return executorch_method(path)


def _load_onnx(path: Path) -> Callable:
    import onnx

    from qlearn.export import onnx_session

    if _reads_files(onnx.load(path, load_external_data=False)):
        raise ValueError("its weights are in another file: write it with external_data=False")
    return onnx_session(path)


def _reads_files(message: Any) -> bool:
    """Say whether a part of an ONNX model, at any depth, is in another file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return bool(message.external_data) or message.data_location != 0
    parts = [value for field, value in message.ListFields() if field.message_type is not None]
    several = (part if isinstance(part, Iterable) else [part] for part in parts)
    return any(_reads_files(inner) for some in several for inner in some)


_LOADERS: dict[str, Callable[[Path], Any]] = {
    ".pt": _load_script,
    ".ptl": _load_lite,
    ".pt2": _load_exported,
    ".pte": _load_executorch,
    ".onnx": _load_onnx,
    ".json": _load_json,
}
