"""Models that were loaded and outputs that were computed, kept from one test cell to the next.

TorchScript optimizes itself at its first calls, which takes seconds for an LSTM that is unrolled;
and every test cell begins with the file. A file is known by its content, so one that was handed in
again is read again.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MODELS_MB = 100
OUTPUTS_MB = 20


class _Latest:
    """Values by key; those used longest ago are forgotten when all together are too large."""

    def __init__(self, limit: float) -> None:
        self.limit = limit  # MB
        self.values: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()

    def find(self, key: Hashable) -> Any:
        """Return the value, or None."""
        if key not in self.values:
            return None
        self.values.move_to_end(key)
        return self.values[key][0]

    def keep(self, key: Hashable, value: Any, megabytes: float) -> None:
        """Keep a value, unless it is too large by itself."""
        if megabytes > self.limit:
            return
        self.values[key] = value, megabytes
        while sum(size for _, size in self.values.values()) > self.limit:
            self.values.popitem(last=False)


_models, _outputs = _Latest(MODELS_MB), _Latest(OUTPUTS_MB)


def model_of(path: Path, load: Callable[[Path], Any]) -> Any:
    """Return a copy of the model in a file, which is loaded only once.

    A copy has a state of its own, and shares with the others what TorchScript has optimized.

    Parameters
    ----------
    load
        Loads it; what it raises is not kept.
    """
    key = _identity(path)
    model = _models.find(key)
    if model is None:
        model = load(path)
        _models.keep(key, model, path.stat().st_size / 10**6)
    return copy.deepcopy(model)


def output_of(path: Path, inputs: Tensor, batch: int | None, run: Callable[[], Tensor]) -> Tensor:
    """Return what a model gives for inputs, which is computed only once.

    Parameters
    ----------
    inputs, batch
        Its inputs, and how many of them it gets at a time.
    run
        Computes the output; what it raises is not kept.
    """
    content = hashlib.sha256(inputs.detach().contiguous().flatten().view(torch.uint8).numpy())
    key = (*_identity(path), content.digest(), inputs.shape, inputs.dtype, batch)
    output = _outputs.find(key)
    if output is None:
        output = run()
        _outputs.keep(key, output, output.nbytes / 10**6)
    return output.clone()  # whoever changes theirs changes nobody else's


def _identity(path: Path) -> tuple[bytes, str, str]:
    """Content and kind of a file, and the engine: packed weights belong to the one they met."""
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    return content, path.suffix, torch.backends.quantized.engine
