"""From a float model to a file that other runtimes load: ONNX and ExecuTorch, fp32 or int8.

``onnx`` and ``executorch`` below are functions, although modules of the same names hold them:
they are imported here at once, so that a later import of the module cannot replace them.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from qlearn.export.contents import executorch_contents
from qlearn.export.executorch import executorch, executorch_method
from qlearn.export.onnx import onnx, onnx_session

__all__ = [
    "calibration_inputs",
    "executorch",
    "executorch_contents",
    "executorch_method",
    "onnx",
    "onnx_session",
    "quiet",
    "replacing",
]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what exporters and runtimes print; show it after all if an exception passes.

    Python's streams are redirected, and the process's own (file descriptors 1 and 2) too, because
    C++ code writes there. Warnings and log records below ERROR are dropped.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    disabled = logging.root.manager.disable
    with tempfile.TemporaryFile("w+", errors="replace") as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        failed = True
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                yield
            failed = False
        finally:
            said.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            logging.disable(disabled)
            if failed:
                said.seek(0)
                sys.stderr.write(said.read())


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place only if the block succeeds.

    Raises
    ------
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist: make it first.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        os.replace(unfinished, path)


def calibration_inputs(
    calibration: Iterable[Tensor | tuple[Tensor, Tensor]], example: Tensor
) -> Iterator[Tensor]:
    """Yield calibration inputs in batches of the size the file will be made for.

    Parameters
    ----------
    calibration
        Input tensors, or (inputs, labels) pairs such as a DataLoader gives.
    example
        The input that the export traces: its batch size is fixed in the file, so batches are cut
        to it, and a remainder is left out.

    Raises
    ------
    ValueError
        If the inputs have another shape than the example, or there is not one whole batch.
    """
    size, seen = len(example), False
    for item in calibration:
        inputs = item if isinstance(item, Tensor) else item[0]
        if inputs.shape[1:] != example.shape[1:]:
            raise ValueError(
                f"The calibration inputs have shape {tuple(inputs.shape[1:])}, the example "
                f"{tuple(example.shape[1:])}: give both in the same shape."
            )
        for part in inputs.split(size):
            if len(part) == size:
                seen = True
                yield part
    if not seen:
        raise ValueError(
            f"No calibration batch had {size} inputs or more: give one, or None for fp32."
        )
