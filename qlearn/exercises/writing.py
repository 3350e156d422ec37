"""Hand in models and tables: written as data, then read and run before they count."""

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.exercises import run
from qlearn.exercises.conditions import conditions_of
from qlearn.exercises.reading import FOLDER, KINDS, LIMIT_MB, RECORD, Answer
from qlearn.exercises.serialization import Form, as_arguments, form_of_module, save_program
from qlearn.exercises.values import as_json
from qlearn.system.cache import as_path
from qlearn.system.errors import explain

LONGEST = 64  # bytes of a name
LONGEST_PATH = 1000  # bytes of a text that names a file
# A text of one line that ends so means a file, also where it cannot be handed in.
ENDINGS = (*KINDS, ".pth", ".bin", ".ckpt", ".safetensors", ".tflite", ".csv", ".xlsx", ".pkl")


def submit(name: str, thing: Any, example_inputs: Tensor | tuple | None = None) -> Answer:
    """Hand in a model, a file or a table under a name; a second time replaces the first.

    What was written is loaded and run before it counts.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    thing
        A module in eval mode, a scripted or traced module, an exported program, the path of a
        ``.pte``, ``.ptl``, ``.pt``, ``.pt2`` or ``.onnx`` file (a text that ends so or names a
        file is one too);
        or a table: a DataFrame or a row of one, a dict, a list, a number or a text. With it goes
        a record of threads and quantized engine, those of `compare` where it comes from there.
    example_inputs
        A tensor or a tuple of arguments; needed for a module.

    Returns
    -------
    Answer
        What was written, into the folder ``answers``.

    Raises
    ------
    ValueError
        When the name is none, the model does not run or cannot be written, or the file is over
        ``LIMIT_MB``: one sentence; an earlier answer of that name is kept.
    """
    _require_name(name)
    if isinstance(thing, str) and example_inputs is not None and not _names_file(thing.strip()):
        raise ValueError(
            f"{name!r} is a text, and example_inputs go with a model: hand in the model, or the "
            f"path of its file, which ends in {', '.join(KINDS)}."
        )
    return _keep(name, _form(name, thing, example_inputs), example_inputs)


def submit_text(name: str, text: str) -> Answer:
    """Hand in a text as it is, also one that could name a file, such as an address in .pt."""
    return _keep(name, _form_of_value(name, text), None)


def _require_name(name: object) -> None:
    if not isinstance(name, str):
        raise ValueError(
            f"The name comes first, and a {type(name).__name__} stands there: call "
            'qlearn.submit("a_name", …).'
        )
    if not name.isidentifier() or name != name.lower():
        raise ValueError(
            f"{name[:LONGEST]!r} is no name: use lower-case letters, digits and underscores."
        )
    if len(os.fsencode(name)) > LONGEST:
        raise ValueError(f"The name {name[:20]}… is too long: use at most {LONGEST} letters.")


def _keep(name: str, form: Form, example_inputs: Tensor | tuple | None) -> Answer:
    """Write, read and run an answer; then it replaces an earlier one of its name."""
    suffix, write, expected = form
    folder = Path(FOLDER)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{FOLDER} is a file here, and answers go into a folder: rename it.")
    temporary = folder / f".{name}.{os.getpid()}{suffix}"
    path = folder / f"{name}{suffix}"
    try:
        folder.mkdir(exist_ok=True)
        write(temporary)
        if suffix in (".pt", ".ptl"):
            _add_record(temporary)
        _verify(name, temporary, example_inputs, expected)
        os.replace(temporary, path)
        for old in folder.glob(f"{name}.*"):  # of another kind; what is no answer stays
            if old != path and old.stem == name and old.suffix in KINDS:
                old.unlink()
    except OSError as error:
        raise ValueError(
            f"{name!r} cannot be written to {path} ({error.strerror or error}): run the notebook "
            "in a folder of your own, with space in it, and hand it in again."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    run.note(name)
    answer = Answer(name, path)
    print(f"Handed in {name!r}: {answer.kind}, {answer.size_mb:.3g} MB.")
    return answer


def _form(name: str, thing: Any, example_inputs: Tensor | tuple | None) -> Form:
    """Choose the suffix, a function that writes the file, and the output to expect of it."""
    if isinstance(thing, torch.export.ExportedProgram):
        return ".pt2", lambda path: save_program(thing, path), None
    if isinstance(thing, nn.Module):
        return form_of_module(name, thing, example_inputs)
    if isinstance(thing, os.PathLike) or isinstance(thing, str) and _names_file(thing.strip()):
        file = as_path(thing.strip() if isinstance(thing, str) else thing)
        _require_file(name, file)
        return file.suffix.lower(), lambda path: shutil.copyfile(file, path), None
    return _form_of_value(name, thing)


def _form_of_value(name: str, value: Any) -> Form:
    text = as_json(name, value)
    return ".json", lambda path: path.write_text(text, encoding="utf-8"), None


def _names_file(text: str) -> bool:
    """Say whether a text means a file; a learner's name is none, whatever lies beside it."""
    if "\n" in text or len(os.fsencode(text)) > LONGEST_PATH:
        return False
    return text.lower().endswith(ENDINGS) or "." in text and os.path.isfile(text)


def _require_file(name: str, file: Path) -> None:
    """Raise ValueError unless a file is there, and of a kind that can be handed in."""
    if file.suffix.lower() not in KINDS or not os.path.isfile(file):
        raise ValueError(
            f"{name!r} cannot be the file {file}: name one that exists and ends in "
            f"{', '.join(KINDS)}, or hand in the model or table itself."
        )
    if file.suffix.lower() in (".pt", ".ptl") and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            inside = {entry.rpartition("/")[2] for entry in archive.namelist()}
        if "data.pkl" in inside and "constants.pkl" not in inside:
            raise ValueError(
                f"{file} was written by torch.save: hand in the model itself, with example_inputs."
            )


def _add_record(path: Path) -> None:
    """Write into an archive of TorchScript under which engine it was made, unless it says so."""
    with zipfile.ZipFile(path, "a") as archive:
        names = archive.namelist()
        root = names[0].split("/")[0] if names else ""
        if f"{root}/{RECORD}" not in names:
            # Without the time, so that the same model gives the same file.
            entry = zipfile.ZipInfo(f"{root}/{RECORD}")
            archive.writestr(entry, json.dumps(conditions_of(None)))


def _verify(name: str, path: Path, example_inputs: Tensor | tuple | None, expected: Any) -> None:
    size = path.stat().st_size / 10**6
    if size > LIMIT_MB:
        raise ValueError(f"{name!r} has {size:.0f} MB and the limit is {LIMIT_MB}: hand in less.")
    try:
        loaded = Answer(name, path).load()
    except AssertionError as error:
        raise ValueError(str(error)) from None
    if example_inputs is None or path.suffix == ".json":
        return
    try:
        with torch.no_grad():
            output = loaded(*as_arguments(name, example_inputs))
    except Exception as error:
        raise ValueError(f"{name!r} was written but does not run: {explain(error)}.") from None
    if expected is not None and not torch.allclose(output, expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{name!r} gives other outputs after it was written and read: its forward depends "
            "on something that is not part of the model."
        )
