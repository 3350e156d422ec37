"""``qlearn export``: a course model, or an exported program, to files of every format."""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from qlearn.data.common import DataSet
from qlearn.export.app_files import write_app_files
from qlearn.export.common import Exported
from qlearn.export.executorch_file import executorch, executorch_method
from qlearn.export.onnx_file import onnx, onnx_session
from qlearn.export.torchscript_file import torchscript, torchscript_module
from qlearn.system.errors import Refusal, explain
from qlearn.system.noise import quiet
from qlearn.training import predict

if TYPE_CHECKING:
    from rich.table import Table

SUFFIXES = {"executorch": ".pte", "onnx": ".onnx", "torchscript": ".pt", "lite": ".ptl"}
LOADERS = {".pte": executorch_method, ".onnx": onnx_session}
CALIBRATION, CHECKED = 64, 100  # training and test inputs


class Subject(NamedTuple):
    """What is exported: a name for its files, a model, and inputs where there are any."""

    name: str
    model: nn.Module
    example: Tensor
    calibration: list[Tensor] | None = None
    check: list[Tensor] | None = None
    dataset: DataSet | None = None


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
        return Subject(model, getattr(pretrained, model)(*weights), test[0], train, test, dataset)
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
    of: Subject, formats: Sequence[str], int8: bool | None, folder: Path, dynamic: bool = False
) -> Iterator[tuple[str, Exported | Refusal]]:
    """Write each format in each precision; yield the file's name and the result.

    ``int8`` chooses one precision; None writes both. An exported program is written as it is.
    ``dynamic`` makes the int8 file of ONNX a dynamic one.
    """
    if of.calibration is None and int8:
        raise Refusal(
            "A .pt2 file brings no inputs to calibrate with: quantize its model by PT2E, save "
            "that, and export it without --int8."
        )
    if dynamic and ("onnx" not in formats or int8 is False):
        raise Refusal("--dynamic is about the int8 file of ONNX: it goes with --to onnx.")
    precisions = {None: (".fp32", ".int8"), True: (".int8",), False: (".fp32",)}[int8]
    folder.mkdir(parents=True, exist_ok=True)
    for form in formats:
        for precision in ("",) if of.calibration is None else precisions:
            path = folder / f"{of.name}{precision}{SUFFIXES[form]}"
            try:
                if dynamic and form == "onnx" and precision != ".fp32":
                    made = onnx(of.model, of.example, path, check=of.check, dynamic=True)
                else:
                    made = _export(of, form, precision == ".int8", path)
                yield path.name, made
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


def load_file(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function of one input that runs a file which ``export_all`` has written."""
    return LOADERS.get(path.suffix, torchscript_module)(path)


def measure_accuracy(run: Callable[[Tensor], Tensor], dataset: DataSet) -> tuple[float, float]:
    """Return a file's accuracy on the whole test set, and its standard error.

    Samples are run one by one, as the file takes them. Of a text, a sample counts as the share of
    its positions that are right: neighbours are not independent.
    """
    outputs, labels = predict(run, torch.utils.data.DataLoader(dataset.test, batch_size=1))
    shares = (outputs.argmax(1) == labels).double().reshape(len(labels), -1).mean(1)
    return shares.mean().item(), shares.std().item() / math.sqrt(len(shares))


def make_table(files: dict[str, Exported], accuracies: dict[str, tuple[float, float]]) -> "Table":
    """Return a table for the terminal."""
    from rich.table import Table

    rows = Table("file")
    for head in ("MB", "SQNR (dB)", "top-1", "accuracy", "delegates"):
        rows.add_column(head, justify="right")
    rows.add_column("left over")
    for name, made in files.items():
        top1 = "" if made.top1 is None else f"{made.top1:.1%}"
        share, error = accuracies.get(name, (None, None))
        accuracy = "" if share is None else f"{share:.1%} ± {error:.1%}"
        delegates = "" if made.delegates is None else str(made.delegates)
        left = ", ".join(f"{count}× {op}" for op, count in (made.leftovers or {}).items())
        numbers = f"{made.size_mb:.3f}", f"{made.sqnr_db:.1f}", top1, accuracy, delegates
        rows.add_row(name, *numbers, left)
    return rows


def export_command(
    model: str, formats: Sequence[str], int8: bool | None, folder: Path, dynamic: bool
) -> int:
    """Do what ``qlearn export`` says; return its exit code.

    It is 0 if every file was written, 1 if one could not be, 2 if the arguments are wrong.
    """
    unknown = [form for form in formats if form not in SUFFIXES]
    if unknown:
        known = ", ".join(SUFFIXES)
        print(f"There is no format {unknown[0]!r}: choose from {known}.", file=sys.stderr)
        return 2
    made: dict[str, Exported] = {}
    refused: dict[str, Refusal] = {}
    try:
        subject = load_subject(model)
        for name, outcome in export_all(subject, formats, int8, folder, dynamic):
            (made if isinstance(outcome, Exported) else refused)[name] = outcome
        if made:
            _report(subject, made, folder)
    except (Refusal, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for name, refusal in refused.items():
        print(f"{name} was not written. {refusal}", file=sys.stderr)
    return 1 if refused else 0


def _report(of: Subject, made: dict[str, Exported], folder: Path) -> None:
    """Print the table of the files, and write beside them what an app needs."""
    from rich.console import Console

    runs = {name: load_file(folder / name) for name in made}
    accuracies = {}
    if of.dataset is not None:
        accuracies = {name: measure_accuracy(run, of.dataset) for name, run in runs.items()}
    Console().print(make_table(made, accuracies))
    print(f"Each was loaded from {folder} and run beside the model.")
    if of.dataset is not None:
        print(
            f"Accuracy: of the file, on all {len(of.dataset.test)} test samples, ± its standard "
            "error."
        )
    app = folder / f"{of.name}.app"
    write_app_files(app, of.name, of.example, of.dataset and of.dataset.classes, runs)
    print(f"What an app needs is in {app}.")
