"""``qlearn export``: a course model, or an exported program, to files of every format."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from qlearn.export.common import Exported
from qlearn.export.executorch_file import executorch
from qlearn.export.noise import quiet
from qlearn.export.onnx_file import onnx
from qlearn.export.refusals import Refusal
from qlearn.export.torchscript_file import torchscript
from qlearn.system.errors import explain

if TYPE_CHECKING:
    from rich.table import Table

SUFFIXES = {"executorch": ".pte", "onnx": ".onnx", "torchscript": ".pt", "lite": ".ptl"}
CALIBRATION, CHECKED = 64, 100  # training and test inputs


class Subject(NamedTuple):
    """What is exported: a name for its files, a model, and inputs where there are any."""

    name: str
    model: nn.Module
    example: Tensor
    calibration: list[Tensor] | None = None
    check: list[Tensor] | None = None


def load_subject(model: str) -> Subject:
    """Return a course model with its data, or the program of a ``.pt2`` file."""
    from qlearn import pretrained

    if model in pretrained.RECIPES:
        dataset = pretrained.RECIPES[model].data()
        train, test = (
            [inputs.unsqueeze(0) for inputs, _ in islice(iter(part), count)]
            for part, count in ((dataset.train, CALIBRATION), (dataset.test, CHECKED))
        )
        weights = ("digits",) if model == "resnet18" else ()
        return Subject(model, getattr(pretrained, model)(*weights), test[0], train, test)
    if Path(model).suffix == ".pt2" and Path(model).is_file():
        return _load_program(Path(model))
    raise Refusal(
        f"There is no model {model!r}: name one of {', '.join(pretrained.RECIPES)}, or a .pt2 file "
        "that torch.export.save has written."
    )


def _load_program(path: Path) -> Subject:
    """Load an exported program; nothing in its file is unpickled but tensors."""
    import torchao  # noqa: F401  its tensors must be known to be read

    try:
        with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"), quiet():
            program = torch.export.load(path)
    except Exception as error:
        raise Refusal(
            f"{path} cannot be read as an exported program ({explain(error)}): "
            "write it with torch.export.save."
        ) from error
    names = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise Refusal(f"{path} takes {len(values)} inputs: only one tensor can be exported.")
    shape = [size if isinstance(size, int) else 1 for size in values[0].shape]
    generator = torch.Generator().manual_seed(0)
    # Integers become zeros, which are valid indices.
    example = torch.rand(shape, generator=generator).to(values[0].dtype)
    return Subject(path.stem, program.module(), example)


def export_all(
    of: Subject, formats: Sequence[str], int8: bool | None, folder: Path
) -> Iterator[tuple[str, Exported | Refusal]]:
    """Write each format in each precision; yield the file's name and the result.

    ``int8`` chooses one precision; None writes both. An exported program is written as it is.
    """
    if of.calibration is None and int8:
        raise Refusal(
            "A .pt2 file brings no inputs to calibrate with: quantize its model by PT2E, save "
            "that, and export it without --int8."
        )
    precisions = {None: (".fp32", ".int8"), True: (".int8",), False: (".fp32",)}[int8]
    folder.mkdir(parents=True, exist_ok=True)
    for form in formats:
        for precision in ("",) if of.calibration is None else precisions:
            path = folder / f"{of.name}{precision}{SUFFIXES[form]}"
            try:
                yield path.name, _export(of, form, precision == ".int8", path)
            except Refusal as refusal:
                yield path.name, refusal


def _export(of: Subject, form: str, int8: bool, path: Path) -> Exported:
    if form in ("executorch", "onnx"):
        write = executorch if form == "executorch" else onnx
        return write(of.model, of.example, path, of.calibration if int8 else None, of.check)
    model = of.model
    if int8:
        from qlearn.quantization.schemes import static_fx

        model = static_fx(model, [torch.cat(of.calibration)])
    return torchscript(model, of.example, path, of.check)


def make_table(files: dict[str, Exported]) -> "Table":
    """Return a table for the terminal."""
    from rich.table import Table

    rows = Table("file")
    for head in ("MB", "SQNR (dB)", "top-1", "delegates"):
        rows.add_column(head, justify="right")
    rows.add_column("left over")
    for name, made in files.items():
        top1 = "" if made.top1 is None else f"{made.top1:.1%}"
        delegates = "" if made.delegates is None else str(made.delegates)
        left = ", ".join(f"{count}× {op}" for op, count in (made.leftovers or {}).items())
        rows.add_row(name, f"{made.size_mb:.3f}", f"{made.sqnr_db:.1f}", top1, delegates, left)
    return rows


def export_command(model: str, formats: Sequence[str], int8: bool | None, folder: Path) -> int:
    """Do what ``qlearn export`` says; return its exit code.

    It is 0 if every file was written, 1 if one could not be, 2 if the arguments are wrong.
    """
    from rich.console import Console

    unknown = [form for form in formats if form not in SUFFIXES]
    if unknown:
        known = ", ".join(SUFFIXES)
        print(f"There is no format {unknown[0]!r}: choose from {known}.", file=sys.stderr)
        return 2
    made: dict[str, Exported] = {}
    refused: dict[str, Refusal] = {}
    try:
        for name, outcome in export_all(load_subject(model), formats, int8, folder):
            (made if isinstance(outcome, Exported) else refused)[name] = outcome
    except (Refusal, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if made:
        Console().print(make_table(made))
        print(f"Each was loaded from {folder} and run beside the model.")
    for name, refusal in refused.items():
        print(f"{name} was not written. {refusal}", file=sys.stderr)
    return 1 if refused else 0
