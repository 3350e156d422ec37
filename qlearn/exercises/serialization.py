"""Models as files: scripted, traced or exported, and what cannot be is refused in a sentence."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from qlearn.exercises.untrusted.scripts import require_pure_graphs
from qlearn.system.errors import explain, name_error
from qlearn.training import require_logits, require_numbers

# Layers that compute something else in training mode.
TRAINED = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
Form = tuple[str, Callable[[Path], None], Any]


def form_of_module(name: str, model: nn.Module, example_inputs: Tensor | tuple | None) -> Form:
    """Return the suffix of a model's file, a function that writes it, and the output to expect.

    Parameters
    ----------
    example_inputs
        A tensor or a tuple of arguments.

    Raises
    ------
    ValueError
        When the model does not run on them, or cannot be written: in one sentence.
    """
    _require_ready(name, model)
    arguments = as_arguments(name, example_inputs)
    try:
        with torch.no_grad():
            expected = model(*arguments)
    except Exception as error:
        raise ValueError(f"{name!r} fails at its first input: {_place(model, arguments)}"
                         f"{explain(error)}.") from None  # fmt: skip
    try:
        require_numbers(require_logits(expected))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if _is_torchao(model):
        program = _exported(name, model, arguments)
        return ".pt2", lambda path: save_program(program, path), expected
    scripted = _scripted(name, model, arguments)
    return ".pt", lambda path: torch.jit.save(scripted, path), expected


def _require_ready(name: str, model: nn.Module) -> None:
    """Raise a ValueError for a model that is not ready to be handed in."""
    if getattr(model, "_modules", None) is None:
        raise ValueError(
            f"{name!r} has no layers: its __init__ must call super().__init__() first."
        )
    if getattr(model, "training", False):  # a frozen ScriptModule has no mode
        if "eval" in vars(model):  # which torch.export has replaced by one that refuses
            raise ValueError(
                f"{name!r} comes from torch.export: hand in what torch.export.export(model, "
                "inputs) returns for it, or the path of the file that was made of it."
            )
        raise ValueError(f"{name!r} is in training mode: call its eval() before handing it in.")
    for layer, module in model.named_modules():
        if isinstance(module, TRAINED) and module.training:
            raise ValueError(
                f"The layer {layer!r} of {name!r} is in training mode: call eval() on the whole "
                "model before handing it in."
            )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{name!r} is wrapped for several devices: hand in its .module.")
    if any(map(is_parametrized, model.modules())):
        raise ValueError(
            f"{name!r} has a layer that computes its weight anew in each call (weight_norm, "
            "spectral_norm): call torch.nn.utils.parametrize.remove_parametrizations(layer, "
            '"weight") on it before handing it in.'
        )


def as_arguments(name: str, inputs: Tensor | tuple | None) -> tuple:
    """Return example inputs as a tuple of arguments, or raise a ValueError for what is none."""
    if inputs is None:
        raise ValueError(f"{name!r} is a model: give example_inputs too, a batch that it takes.")
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if not tensors or isinstance(inputs, torch.Size):
        raise ValueError(
            f"The example_inputs of {name!r} are a {type(inputs).__name__}: give a tensor, such as "
            "images, or a tuple of the tensors that the model takes."
        )
    if not all(tensor.numel() for tensor in tensors):
        raise ValueError(f"The example_inputs of {name!r} are empty: give a batch that it takes.")
    return arguments


def _exported(name: str, model: nn.Module, arguments: tuple) -> torch.export.ExportedProgram:
    """Export a torchao model: tracing one can end the process.

    The first dimension of each argument is the batch, and may be another when it is graded. A
    batch of one would be taken for the only one.
    """
    single = [isinstance(a, Tensor) and a.dim() > 0 and len(a) == 1 for a in arguments]
    if all(single):
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = tuple({0: torch.export.Dim.AUTO} for _ in arguments)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return torch.export.export(model, arguments, dynamic_shapes=batch)
    except Exception as error:
        raise ValueError(
            f"{name!r} runs, but torch.export cannot follow it ({explain(error)}): its forward "
            "must take tensors only, and compute with them in the same way for every input."
        ) from None


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write an exported program to a file, without its example inputs."""
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
    _require_no_constant(name, model, traced, arguments)
    print(
        f"{name!r} cannot be scripted ({reason}), so it was traced: a branch or a loop in it "
        "stays as it ran for example_inputs."
    )
    return traced


def _require_no_constant(
    name: str, model: nn.Module, traced: torch.jit.ScriptModule, arguments: tuple
) -> None:
    """Raise a ValueError if a trace gives one output whatever the input is, and the model not."""
    others = tuple(a.flip(0).roll(1, -1) if isinstance(a, Tensor) and a.dim() else a
                   for a in arguments)  # fmt: skip
    try:
        with torch.no_grad():
            constant = torch.equal(traced(*others), traced(*arguments))
            moves = not torch.allclose(model(*others), model(*arguments))
    except Exception:
        return  # it takes no other input: nothing is known
    if constant and moves:
        raise ValueError(
            f"{name!r} was traced, and its trace gives the same output for every input: its "
            "forward leaves PyTorch (numpy(), item(), tolist()); compute with tensors throughout."
        )


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
