"""Hand in models and tables as data, and read them back.

Whoever grades measures the artifact, never a Python object of the learner's: a model is written
as TorchScript, as an exported program or as an ExecuTorch file, a table as JSON. None of them
carries code of the author.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
                f"The answer {self.name!r} cannot be read as {self.kind} ({_first_line(error)}): "
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


def submit(name: str, thing: Any, example_inputs: Tensor | tuple | None = None) -> Answer:
    """Hand in a model, a file or a table under a name; a second time replaces the first.

    What was written is loaded and run before it counts.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    thing
        A module in eval mode, a scripted or traced module, an exported program, the path of a
        ``.pte``, ``.ptl``, ``.pt``, ``.pt2`` or ``.onnx`` file; or a table: a DataFrame, a
        dict, a list, a number or a text.
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
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"{name!r} is no name: use lower-case letters, digits and underscores.")
    folder = Path(FOLDER)
    folder.mkdir(exist_ok=True)
    suffix, write, expected = _form(name, thing, example_inputs)
    temporary = folder / f".{name}.{os.getpid()}{suffix}"
    try:
        write(temporary)
        _verify(name, temporary, example_inputs, expected)
        path = folder / f"{name}{suffix}"
        for old in folder.glob(f"{name}.*"):
            if old != path:
                old.unlink()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    answer = Answer(name, path)
    print(f"Handed in {name!r}: {answer.kind}, {answer.size_mb:.3g} MB.")
    return answer


def explain(error: Exception) -> str:
    """Say in words what an error of a quantized model means, with its first line.

    Parameters
    ----------
    error
        What running the model raised.
    """
    text = str(error)
    causes = [cause for sign, cause in CAUSES.items() if sign in text]
    return f"{causes[0]} ({_first_line(error)})" if causes else _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


def _form(
    name: str, thing: Any, example_inputs: Tensor | tuple | None
) -> tuple[str, Callable[[Path], None], Any]:
    """Choose the suffix, a function that writes the file, and the output to expect of it."""
    if isinstance(thing, torch.export.ExportedProgram):
        return ".pt2", lambda path: _save_program(thing, path), None
    if isinstance(thing, nn.Module):
        return _form_of_module(name, thing, example_inputs)
    if isinstance(thing, Path):
        if thing.suffix not in KINDS or not thing.exists():
            raise ValueError(
                f"{thing} cannot be handed in: name a file that exists, of {[*KINDS]}."
            )
        return thing.suffix, lambda path: shutil.copyfile(thing, path), None
    text = _as_json(name, thing)
    return ".json", lambda path: path.write_text(text, encoding="utf-8"), None


def _form_of_module(
    name: str, model: nn.Module, example_inputs: Tensor | tuple | None
) -> tuple[str, Callable[[Path], None], Any]:
    if example_inputs is None:
        raise ValueError(f"{name!r} is a model: give example_inputs too, a batch that it takes.")
    if getattr(model, "training", False):  # a frozen ScriptModule has no mode
        raise ValueError(f"{name!r} is in training mode: call its eval() before handing it in.")
    arguments = _arguments(example_inputs)
    try:
        with torch.no_grad():
            expected = model(*arguments)
    except Exception as error:
        raise ValueError(f"{name!r} fails at its first input: {_place(model, arguments)}"
                         f"{explain(error)}.") from None  # fmt: skip
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
        return torch.jit.script(model)
    except Exception:
        pass  # many honest models cannot be scripted; tracing has the last word
    try:
        with torch.no_grad():
            return torch.jit.trace(model, arguments)
    except Exception as error:
        raise ValueError(
            f"{name!r} runs, but TorchScript can neither script nor trace it "
            f"({_first_line(error)}): hand in the converted model itself."
        ) from None


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


def _as_json(name: str, thing: Any) -> str:
    import pandas as pd

    if isinstance(thing, pd.DataFrame):
        thing = json.loads(thing.to_json(orient="split"))
    try:
        return json.dumps(thing, default=lambda value: value.item())
    except (TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{name!r} is a {type(thing).__name__}, which cannot be handed in: give a model with "
            "example_inputs, a DataFrame, or plain numbers, texts, lists and dicts."
        ) from None


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
    from torch.jit.mobile import _load_for_lite_interpreter

    return _load_for_lite_interpreter(str(path))


_LOADERS: dict[str, Callable[[Path], Any]] = {
    ".pt": lambda path: torch.jit.load(path, map_location="cpu").eval(),
    ".ptl": _load_lite,
    ".pt2": _load_exported,
    ".pte": _load_executorch,
    ".onnx": _load_onnx,
    ".json": _load_json,
}
