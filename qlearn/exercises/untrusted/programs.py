"""Exported programs of others, read without running any code of theirs.

`torch.export.load` unpickles, evaluates expressions, runs Python source and loads native code, and
says of itself that it is not for files of others. So what an honest program holds is copied into
a new archive, after it has been checked, and that one is loaded.
"""

import io
import json
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qlearn.exercises.untrusted.allow_list import require_allowed
from qlearn.exercises.untrusted.archives import open_archive

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
TENSORS = {WEIGHTS: re.compile(r"weight_[0-9]{1,6}"), CONSTANTS: re.compile(r"tensor_[0-9]{1,6}")}
EXAMPLES = "data/sample_inputs/model.pt"
# What torch.export.save writes besides, and its writer writes anew.
MARKS = ("archive_format", "archive_version", "byteorder", ".data/version",
         ".data/serialization_id")  # fmt: skip
DESCRIPTION_MB = 20


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Load an exported program of which nothing but numbers and operators is trusted.

    Plain weights and torchao's are read, and no other tensor subclass. Example inputs, metadata
    and guards are left out.

    Parameters
    ----------
    path
        A file that `torch.export.save` has written, for one program.

    Raises
    ------
    ValueError
        When it holds anything else, in a few words.
    """
    import torchao  # noqa: F401  its tensor subclasses must be known to read them

    clean = io.BytesIO(_copy(open_archive(path)))
    try:
        with _weights_only():
            program = torch.export.load(clean)
    except pickle.UnpicklingError:
        raise ValueError("a weight in it is pickled as more than a tensor") from None
    for name, value in (*program.state_dict.items(), *program.constants.items()):
        kind = type(value.data) if isinstance(value, Tensor) else type(value)
        if kind is not Tensor and not kind.__module__.startswith("torchao.quantization"):
            raise ValueError(f"it holds {name} as a {kind.__name__}, which is no kind of weight")
    return program


def _copy(reader: torch._C.PyTorchFileReader) -> bytes:
    """Write what was checked into a new archive, so that nothing else can be found in it."""
    names = set(reader.get_all_records())
    parts = {
        MODEL: require_allowed(_description(reader, MODEL)),
        **{config: require_allowed(_description(reader, config)) for config in TENSORS},
    }
    tensors = _tensors(parts)
    allowed = {*parts, *tensors, EXAMPLES, *MARKS}
    for name in sorted(names - allowed):
        raise ValueError(f"it holds {name[:80]!r}, which torch.export.save writes for no model")
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    writer.set_min_version(6)  # as torch.export.save does
    content = {name: json.dumps(part).encode() for name, part in parts.items()}
    content |= {"archive_format": b"pt2", "archive_version": b"0", EXAMPLES: b""}
    for name, pickled in tensors.items():
        content[name] = reader.get_record(name)
        if pickled:
            open_archive(content[name])  # an archive within the archive
    for name, data in content.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


def _description(reader: torch._C.PyTorchFileReader, name: str) -> Any:
    if not reader.has_record(name):
        raise ValueError(f"it lacks {name!r}: write it with torch.export.save")
    if reader.get_record_size(name) > DESCRIPTION_MB * 10**6:
        raise ValueError(f"its {name!r} has more than {DESCRIPTION_MB} MB")
    return json.loads(reader.get_record(name))


def _tensors(parts: dict[str, Any]) -> dict[str, bool]:
    """Return the files of weights and constants, and whether each is pickled."""
    found: dict[str, bool] = {}
    for config, pattern in TENSORS.items():
        for name, entry in parts[config]["config"].items():
            if not pattern.fullmatch(entry["path_name"]):
                raise ValueError(
                    f"it holds {name} in {entry['path_name'][:60]!r}, no tensor's file"
                )
            place = f"{Path(config).parent}/{entry['path_name']}"
            found[place] = found.get(place, False) or bool(entry["use_pickle"])
    return found


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have PyTorch unpickle tensors only, even where it asks itself for more."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
