"""What a model computes when it runs: operators and dtypes as PyTorch's dispatcher sees them."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qlearn.exercises import Answer, under
from qlearn.exercises.checks.behaviour import runs
from qlearn.exercises.checks.layers import LAYERS, torchscript

# Operators of ATen that compute with the weights of a layer, by the kind of that layer.
KINDS = {
    "linear": "mm addmm _addmm_activation bmm baddbmm linear mv addmv dot mkldnn_linear matmul",
    "conv": "convolution _convolution conv1d conv2d mkldnn_convolution _slow_conv2d_forward",
    "lstm": "lstm lstm_cell mkldnn_rnn_layer _thnn_fused_lstm_cell",
    "gru": "gru gru_cell _thnn_fused_gru_cell",
    "embedding": "embedding",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}


class _Recorder(TorchDispatchMode):
    """Keep what each operator is and computes in, and the levels that static layers give."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.levels: dict[tuple[float, int], list[Tensor]] = {}  # a grid belongs to one layer

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        output = func(*args, **(kwargs or {}))
        full_name = func._schema.name
        tensors = [part for part in args if isinstance(part, Tensor)]
        if tensors and (kind := KIND_OF.get(full_name.removeprefix("aten::"))):
            full_name = f"{str(tensors[0].dtype).removeprefix('torch.')} {kind}"
        self.operators[full_name] += 1
        if LAYERS.get(full_name, "").startswith("static") and output.is_quantized:
            grid = output.q_scale(), output.q_zero_point()
            self.levels.setdefault(grid, []).append(output.int_repr().int())
        return output


def operators_run(answer: Answer, inputs: Tensor) -> Counter[str]:
    """Count the operators that a model runs on a batch of inputs, loops and branches as they go.

    Parameters
    ----------
    answer
        A model handed in as TorchScript, of the lite interpreter too, or as an exported program.

    Returns
    -------
    Counter
        Float layers by the dtype that they compute in, such as "float32 linear" or "bfloat16
        conv"; all other operators by name, such as "quantized::linear".
    """
    return _recorded(answer, inputs).operators


def levels_used(
    answer: Answer, inputs: Tensor, batch: int | None = None
) -> list[tuple[int, float]]:
    """Say of each static layer what its outputs use of their 256 levels.

    Parameters
    ----------
    batch
        As in `runs`.

    Returns
    -------
    list of (int, float)
        From the lowest to the highest level that occurs, so many; and the share of the outputs,
        in [0, 1], at the highest level that there is: they may have been clipped.
    """
    found = []
    for calls in _recorded(answer, inputs, batch).levels.values():
        low = min(levels.min().item() for levels in calls)
        high = max(levels.max().item() for levels in calls)
        top = 255 if low >= 0 else 127
        clipped = sum((levels == top).sum().item() for levels in calls)
        found.append((high - low + 1, clipped / sum(levels.numel() for levels in calls)))
    return found


def _recorded(answer: Answer, inputs: Tensor, batch: int | None = None) -> _Recorder:
    runs(answer, inputs, batch)  # one that fails is refused there, in a sentence
    recorder = _Recorder()
    with under(answer.made_with), torch.no_grad():
        # What the lite interpreter runs, a recorder does not see.
        model = torchscript(answer) if answer.path.suffix == ".ptl" else answer.load()
        with recorder:
            for part in inputs.split(batch or len(inputs)):
                model(part.clone())
    return recorder
