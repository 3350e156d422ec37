"""TorchScript files, for ``torch.jit.load`` and for the lite interpreter of PyTorch Mobile."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from qlearn.export import common
from qlearn.export.refusals import refusing
from qlearn.system.cache import write_whole
from qlearn.system.errors import Refusal
from qlearn.system.noise import quiet

LITE = ".ptl"


def torchscript(
    model: nn.Module, example: Tensor, path: str | Path, check: common.Inputs | None = None
) -> common.Exported:
    """Write a model, float or quantized, as TorchScript, and run what was written.

    A module is scripted, so its branches and loops stay. An exported graph has none and is traced.

    Parameters
    ----------
    model
        A module, a legacy int8 model, an exported graph, or TorchScript already. It is saved in
        eval mode and stays as it is.
    example
        One input, to run the model and the file on.
    path
        Ends in ``.pt``, or in ``.ptl`` for the lite interpreter of PyTorch Mobile; an existing
        file is replaced only by one that has been run.
    check
        More inputs to compare the file and the model on; (inputs, labels) pairs will do.

    Raises
    ------
    ValueError
        If the model cannot be written, or the file does not do what the model does: one sentence.
    FileNotFoundError, IsADirectoryError
        If the folder does not exist, or the path is a folder.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/jit.html
    """
    with write_whole(common.require_folder(path, ".pt", LITE)) as unfinished:
        source = common.require_runnable(model, example)
        inputs = common.gather_inputs(example, check)
        with quiet(), refusing("TorchScript"), torch.no_grad():
            script = _script(source, example)
            if unfinished.suffix == LITE:
                script._save_for_lite_interpreter(str(unfinished))
            else:
                script.save(str(unfinished))
            run = torchscript_module(unfinished)
            run(example)
        measured = common.verify(unfinished, run, source, inputs, exact=True)
    return common.Exported(Path(path), *measured)


def _script(model: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(model, torch.jit.ScriptModule):
        return model
    if any(type(value.data).__module__.startswith("torchao") for value in model.parameters()):
        # Tracing such a model can end the process.
        raise Refusal(
            "The model cannot be exported to TorchScript: its weights are torchao tensors; use "
            "torch.export.save, or export it to ExecuTorch."
        )
    if isinstance(model, fx.GraphModule) and "eval" in vars(model):
        return torch.jit.trace(model, (example,), check_trace=False)
    return torch.jit.script(model)


def torchscript_module(path: str | Path) -> Callable[[Tensor], Tensor]:
    """Load a ``.pt`` file with ``torch.jit.load``, a ``.ptl`` file into the lite interpreter.

    Parameters
    ----------
    path
        A file that ``torchscript`` has written.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    from torch.jit.mobile import _load_for_lite_interpreter

    path = common.require_file(path, "torchscript")
    module = _load_for_lite_interpreter(str(path)) if path.suffix == LITE else torch.jit.load(path)
    return torch.no_grad()(module)
