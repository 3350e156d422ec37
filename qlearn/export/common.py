"""What every exporter begins and ends with: its arguments, and the check of the written file."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from qlearn.calibration import has_observer, sqnr
from qlearn.data.batches import batches_of
from qlearn.system.cache import as_path
from qlearn.system.errors import Refusal, explain
from qlearn.training import require_float32

Inputs = Iterable[Tensor | tuple[Tensor, Tensor]]

# Rounding of float32 in another order of additions leaves 100 dB and more. Below 60 dB, an error
# of a thousandth, the file computes something else.
FLOAT32_DB = 60
COMPARED = 256  # calibration inputs that a file is compared on, at most


@dataclass(frozen=True)
class Exported:
    """A file that was written, loaded and run.

    Attributes
    ----------
    path
        Where it is; the object itself can be used as a path.
    size_mb
        Its size in MB (10**6 bytes).
    sqnr_db
        Signal-to-quantization-noise ratio of its outputs against the model's, in dB.
    top1
        Share of the inputs for which both have the largest output at the same place; None when
        outputs are not N×classes.
    delegates
        Parts that XNNPACK runs; None when the file is not ExecuTorch's.
    leftovers
        Operators that ExecuTorch's slow portable kernels run, and how many calls of each.
    """

    path: Path
    size_mb: float
    sqnr_db: float
    top1: float | None
    delegates: int | None = None
    leftovers: Counter[str] | None = None

    def __fspath__(self) -> str:
        """Return the path: ``open`` and other functions take the object as one."""
        return str(self.path)

    def __str__(self) -> str:
        """Return the report in one line."""
        parts = [f"{self.path.name}: {self.size_mb:.3f} MB", f"SQNR {self.sqnr_db:.1f} dB"]
        if self.top1 is not None:
            parts.append(f"top-1 {self.top1:.1%}")
        if self.delegates is not None:
            left = ", ".join(f"{count}× {name}" for name, count in self.leftovers.items())
            parts.append(f"delegates {self.delegates}, left over: {left or 'nothing'}")
        return ", ".join(parts)


def require_folder(path: str | Path, *suffixes: str) -> Path:
    """Return the path of a file to write; OSError if its folder is missing or it is a folder.

    What ends in none of the suffixes is refused, if there are any.
    """
    path = as_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist: make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it.")
    if suffixes and path.suffix not in suffixes:
        raise Refusal(f"{path.name} must end in {' or '.join(suffixes)}.")
    return path


def require_file(path: str | Path, writer: str) -> Path:
    """Return the path, or raise FileNotFoundError, which names the function that writes it."""
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: write it with qlearn.export.{writer}.")
    return path


def require_runnable(
    model: nn.Module, example: Tensor, calibration: Inputs | None = None
) -> nn.Module:
    """Return the model in eval mode (a copy if it is not), or refuse what cannot be exported."""
    if not isinstance(model, nn.Module):
        raise Refusal(f"The model is a {type(model).__name__}: give an nn.Module.")
    if not isinstance(example, Tensor):
        raise Refusal(f"The example is a {type(example).__name__}: give one input tensor.")
    if not example.numel():
        raise Refusal("The example holds no sample: give an input of at least one.")
    if has_observer(model):
        raise Refusal("The model still has observers: convert it first, then export it.")
    if calibration is not None:
        require_float32(model)
        if is_quantized(model):
            raise Refusal("The model is quantized already: leave the calibration inputs out.")
    # An exported graph is always marked as training, and refuses eval().
    if "eval" not in vars(model) and any(module.training for module in model.modules()):
        try:
            model = copy.deepcopy(model).eval()
        except Exception as error:
            raise Refusal(
                f"The model is in training mode and cannot be copied ({explain(error)}): call its "
                "eval() first."
            ) from error
    try:
        with torch.no_grad():
            outputs = model(example)
    except Exception as error:
        raise Refusal(
            f"The model does not run on the example, of shape {tuple(example.shape)}: "
            f"{explain(error)}. Give an input that it takes."
        ) from error
    if not isinstance(outputs, Tensor):
        raise Refusal(f"The model returns a {type(outputs).__name__}: let it return one tensor.")
    if outputs.ndim == 0 or outputs.is_complex():
        kind = "complex numbers" if outputs.is_complex() else "a single number"
        raise Refusal(
            f"The model returns {kind}: let it return a tensor of real numbers, samples first "
            "(torch.view_as_real makes one of complex numbers)."
        )
    if not outputs.isfinite().all():
        raise Refusal("The model's own outputs are not finite: fix it before you export it.")
    return model


def is_quantized(model: nn.Module) -> bool:
    """Return whether a model is a graph that PT2E has converted."""
    return isinstance(model, fx.GraphModule) and any(
        "quantized_decomposed" in str(node.target) for node in model.graph.nodes
    )


def calibration_inputs(calibration: Inputs, example: Tensor) -> Iterator[Tensor]:
    """Yield calibration inputs in batches of the example's size, which is fixed in the file.

    A remainder is left out.
    """
    size, seen = len(example), False
    for inputs, _ in batches_of(calibration):
        if inputs.shape[1:] != example.shape[1:]:
            raise Refusal(
                f"The calibration inputs have shape {tuple(inputs.shape[1:])}, the example "
                f"{tuple(example.shape[1:])}: give both in the same shape."
            )
        for part in inputs.split(size):
            if len(part) == size:
                seen = True
                yield part
    if not seen:
        raise Refusal(
            f"No calibration batch had {size} inputs or more: give one, or None for fp32."
        )


def gather_inputs(example: Tensor, check: Inputs | None) -> list[Tensor]:
    """Return the inputs to compare a file on."""
    return [example, *(calibration_inputs(check, example) if check is not None else ())]


def copy_first(batches: Iterable[Tensor], inputs: list[Tensor]) -> Iterator[Tensor]:
    """Pass batches on; add the first of them to ``inputs``, which the file is compared on."""
    for batch in batches:
        if len(inputs) * len(batch) < COMPARED:
            inputs.append(batch)
        yield batch


def verify(
    path: Path, run: Callable[[Tensor], Tensor], model: nn.Module, inputs: list[Tensor], exact: bool
) -> tuple[float, float, float | None]:
    """Return MB, SQNR in dB and top-1 agreement of a file, or refuse one that computes otherwise.

    ``exact`` files must have ``FLOAT32_DB``.
    """
    with torch.no_grad():
        wanted = torch.cat([model(batch) for batch in inputs])
    found = torch.cat([run(batch) for batch in inputs])
    if found.shape != wanted.shape:
        raise Refusal(
            f"The file's outputs have shape {tuple(found.shape)} and the model's "
            f"{tuple(wanted.shape)}, so it is not kept: its forward depends on more than its input."
        )
    if not found.isfinite().all():
        raise Refusal(
            "The file's outputs are not finite, so it is not kept: calibrate on real inputs, and "
            "look for an overflow or a division by zero."
        )
    decibels = sqnr(wanted, found)
    if exact and decibels < FLOAT32_DB:
        raise Refusal(
            f"The file's outputs are {decibels:.0f} dB from the model's, and {FLOAT32_DB} dB is "
            "the least for the same arithmetic, so it is not kept: its forward depends on "
            "something that is not exported, such as chance or a global variable."
        )
    classes = wanted.ndim == 2 and wanted.shape[1] > 1
    same = (found.argmax(1) == wanted.argmax(1)).double().mean().item() if classes else None
    return path.stat().st_size / 10**6, decibels, same


def is_float32(model: nn.Module) -> bool:
    """Return whether every number of a model is held in float32 (counters may be integers)."""
    whole = (torch.float32, torch.int64)
    return all(value.dtype in whole for value in (*model.parameters(), *model.buffers()))
