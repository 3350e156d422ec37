"""Hand in models and tables: written as data, then read and run before they count."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from qlearn.exercises import run
from qlearn.exercises.conditions import conditions_of
from qlearn.exercises.reading import FOLDER, KINDS, LIMIT_MB, RECORD, Answer
from qlearn.exercises.untrusted.scripts import require_pure_graphs
from qlearn.exercises.values import as_json
from qlearn.system.cache import as_path
from qlearn.system.errors import explain, name_error
from qlearn.training import require_logits, require_numbers

LONGEST = 64  # characters of a name
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
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise ValueError(f"{name!r} is no name: use lower-case letters, digits and underscores.")
    if len(name) > LONGEST:
        raise ValueError(f"The name {name[:20]}… is too long: use at most {LONGEST} characters.")
    folder = Path(FOLDER)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{FOLDER} is a file here, and answers go into a folder: rename it.")
    folder.mkdir(exist_ok=True)
    suffix, write, expected = _form(name, thing, example_inputs)
    temporary = folder / f".{name}.{os.getpid()}{suffix}"
    try:
        write(temporary)
        if suffix in (".pt", ".ptl"):
            _add_record(temporary)
        _verify(name, temporary, example_inputs, expected)
        path = folder / f"{name}{suffix}"
        for old in folder.glob(f"{name}.*"):
            if old != path:
                old.unlink()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    run.note(name)
    answer = Answer(name, path)
    print(f"Handed in {name!r}: {answer.kind}, {answer.size_mb:.3g} MB.")
    return answer


def _form(
    name: str, thing: Any, example_inputs: Tensor | tuple | None
) -> tuple[str, Callable[[Path], None], Any]:
    """Choose the suffix, a function that writes the file, and the output to expect of it."""
    if isinstance(thing, torch.export.ExportedProgram):
        return ".pt2", lambda path: _save_program(thing, path), None
    if isinstance(thing, nn.Module):
        return _form_of_module(name, thing, example_inputs)
    if isinstance(thing, os.PathLike) or isinstance(thing, str) and _names_file(thing.strip()):
        file = as_path(thing.strip() if isinstance(thing, str) else thing)
        _require_file(name, file)
        return file.suffix.lower(), lambda path: shutil.copyfile(file, path), None
    text = as_json(name, thing)
    return ".json", lambda path: path.write_text(text, encoding="utf-8"), None


def _names_file(text: str) -> bool:
    """Say whether a text means a file; a learner's name is none, whatever lies beside it."""
    if "\n" in text:
        return False
    return text.lower().endswith(ENDINGS) or "." in text and os.path.isfile(text)


def _require_file(name: str, file: Path) -> None:
    """Raise ValueError unless a file is there, and of a kind that can be handed in."""
    if file.suffix.lower() not in KINDS or not file.is_file():
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


def _form_of_module(
    name: str, model: nn.Module, example_inputs: Tensor | tuple | None
) -> tuple[str, Callable[[Path], None], Any]:
    if example_inputs is None:
        raise ValueError(f"{name!r} is a model: give example_inputs too, a batch that it takes.")
    if getattr(model, "training", False):  # a frozen ScriptModule has no mode
        raise ValueError(f"{name!r} is in training mode: call its eval() before handing it in.")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{name!r} is wrapped for several devices: hand in its .module.")
    if any(map(is_parametrized, model.modules())):
        raise ValueError(
            f"{name!r} has a layer that computes its weight anew in each call (weight_norm, "
            "spectral_norm): call torch.nn.utils.parametrize.remove_parametrizations(layer, "
            '"weight") on it before handing it in.'
        )
    arguments = _arguments(example_inputs)
    try:
        with torch.no_grad():
            expected = model(*arguments)
    except Exception as error:
        raise ValueError(f"{name!r} fails at its first input: {_place(model, arguments)}"
                         f"{explain(error)}.") from None  # fmt: skip
    require_numbers(require_logits(expected))
    if _is_torchao(model):
        # Tracing a torchao model can end the process; exporting is its own way out.
        # The first dimension of each argument is the batch, and may be another when it is graded.
        batch = tuple({0: torch.export.Dim.AUTO} for _ in arguments)
        program = torch.export.export(model, arguments, dynamic_shapes=batch)
        return ".pt2", lambda path: _save_program(program, path), expected
    scripted = _scripted(name, model, arguments)
    return ".pt", lambda path: torch.jit.save(scripted, path), expected


def _save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    # Its example inputs would be saved too, whole storages, and weigh more than a layer.
    program.example_inputs = None
    torch.export.save(program, path)


def _scripted(name: str, model: nn.Module, arguments: tuple) -> torch.jit.ScriptModule:
    """Script the model; trace it when it cannot be scripted."""
    if isinstance(model, torch.jit.ScriptModule):
        return model
    try:
        scripted = torch.jit.script(model)
        scripted.save_to_buffer()  # which fails for what a later read could not bring back
        require_pure_graphs(scripted)  # observers and attention's fast path may call more
        return scripted
    except Exception as error:
        reason = name_error(error)  # many honest models cannot be scripted: they are traced
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            traced = torch.jit.trace(model, arguments)
    except Exception as error:
        raise ValueError(
            f"{name!r} runs, but TorchScript can neither script nor trace it "
            f"({explain(error)}): hand in the converted model itself."
        ) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    print(
        f"{name!r} cannot be scripted ({reason}), so it was traced: a branch or a loop in it "
        "stays as it ran for example_inputs."
    )
    return traced


def _place(model: nn.Module, arguments: tuple) -> str:
    """Name the innermost layer that was entered and never left."""
    entered: list[str] = []
    handles = []
    for layer, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return ""
        handles.append(module.register_forward_pre_hook(lambda *_, n=layer: entered.append(n)))
        handles.append(module.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        with torch.no_grad():
            model(*arguments)
    except Exception:
        return f"in layer {entered[-1]!r}, " if entered and entered[-1] else ""
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _is_torchao(model: nn.Module) -> bool:
    parameters = [*model.parameters(), *model.buffers()]
    return any(type(value.data).__module__.startswith("torchao") for value in parameters)


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
            output = loaded(*_arguments(example_inputs))
    except Exception as error:
        raise ValueError(f"{name!r} was written but does not run: {explain(error)}.") from None
    if expected is not None and not torch.allclose(output, expected, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{name!r} gives other outputs after it was written and read: its forward depends "
            "on something that is not part of the model."
        )


def _arguments(inputs: Tensor | tuple) -> tuple:
    return inputs if isinstance(inputs, tuple) else (inputs,)
