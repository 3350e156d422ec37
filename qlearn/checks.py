"""What test cells call: each raises AssertionError with one sentence for a learner.

Every check measures the artifact. None asserts an absolute time.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from qlearn.artifacts import Answer, answers, explain
from qlearn.export import executorch_contents

FLOAT16 = "quantized::linear_dynamic_fp16"  # the same class of layer, but no int8
# Operators of TorchScript graphs that hold a quantized layer's weights, and what they are.
DYNAMIC = {
    "quantized::linear_dynamic": "linear",
    "quantized::linear_relu_dynamic": "linear",
    FLOAT16: "linear",
    "aten::quantized_lstm": "lstm",
    "aten::quantized_gru": "gru",
}
STATIC = {
    "quantized::linear": "linear",
    "quantized::linear_relu": "linear",
    "quantized::conv1d": "conv",
    "quantized::conv1d_relu": "conv",
    "quantized::conv2d": "conv",
    "quantized::conv2d_relu": "conv",
    "quantized::conv2d_add_relu": "conv",
}
TRIES = 3  # measurements before a claim is refused: a busy machine can spoil one
FACTOR = 3.0  # a claimed ratio of times may be off by so much: machines differ and drift


def exists(name: str, suffixes: Sequence[str] = ()) -> Answer:
    """Return an answer that is there and can be read.

    Parameters
    ----------
    name
        As it was given to `qlearn.submit`.
    suffixes
        Endings of files that are accepted, such as ``(".pt",)``; any when empty.
    """
    answer = answers()[name]
    assert not suffixes or answer.path.suffix in suffixes, (
        f"The answer {name!r} is a {answer.kind}; {' or '.join(suffixes)} is asked for."
    )
    answer.load()
    return answer


def runs(answer: Answer, inputs: Tensor, batch: int | None = None) -> Tensor:
    """Run a model and return its output: float, finite, one row an input.

    Parameters
    ----------
    answer
        A model.
    inputs
        A batch.
    batch
        Give it so many inputs at a time, for a file that takes no other number; all at once if
        None.
    """
    model = answer.load()
    assert callable(model), f"The answer {answer.name!r} is a table, and a model is asked for."
    try:
        with torch.no_grad():
            parts = [model(part) for part in inputs.split(batch or len(inputs))]
            output = parts[0] if len(parts) == 1 else torch.cat(parts)
    except Exception as error:
        shape = (batch or len(inputs), *inputs.shape[1:])
        raise AssertionError(
            f"The model {answer.name!r} does not run on {shape}: {explain(error)}."
        ) from None
    assert isinstance(output, Tensor) and output.shape[:1] == inputs.shape[:1], (
        f"The model {answer.name!r} must return one tensor with a row for each input."
    )
    assert torch.isfinite(output).all(), (
        f"The model {answer.name!r} returns values that are not finite: check its scales."
    )
    return output


def looks_at_its_input(answer: Answer, inputs: Tensor) -> None:
    """Assert that different inputs do not all get the same output.

    Parameters
    ----------
    answer
        A model.
    inputs
        A batch of different samples.
    """
    output = runs(answer, inputs)
    assert len(output.unique(dim=0)) > 1, (
        f"The model {answer.name!r} gives every input the same output: it ignores its input."
    )


def quantized_layers(answer: Answer) -> Counter[str]:
    """Count the quantized layers in a TorchScript or ExecuTorch artifact's own graph.

    Parameters
    ----------
    answer
        A model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch file.

    Returns
    -------
    Counter
        Keys such as "dynamic linear", "float16 linear", "dynamic lstm", "static conv"; the same
        layer counts once however often it is called. For ExecuTorch also "float conv" and
        "portable conv" (not run by XNNPACK), as `executorch_contents` names them.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return Counter(executorch_contents(answer.path).layers)
    model = _torchscript(answer)
    counts: Counter[str] = Counter()
    for module in model.modules():
        kind = _packed_kind(module)
        if kind:
            counts[kind] += 1
    if not counts:
        for node in _nodes(model):
            for kinds, word in ((DYNAMIC, "dynamic"), (STATIC, "static")):
                if node.kind() in kinds:
                    counts[f"{word} {kinds[node.kind()]}"] += 1
    if counts["dynamic linear"]:
        halves = sum(node.kind() == FLOAT16 for node in _nodes(model))
        counts["dynamic linear"] -= halves
        counts["float16 linear"] += halves
    return +counts


def is_quantized(answer: Answer, kind: str, at_least: int = 1) -> None:
    """Assert that the artifact holds at least so many quantized layers of a kind.

    Parameters
    ----------
    answer
        A model handed in as TorchScript.
    kind
        "dynamic linear", "dynamic lstm", "static conv", "static linear", …
    at_least
        How many.
    """
    counts = quantized_layers(answer)
    found = ", ".join(f"{n} {key}" for key, n in counts.items()) or "none at all"
    assert counts[kind] >= at_least, (
        f"The model {answer.name!r} should have at least {at_least} {kind} "
        f"layer{'s' * (at_least > 1)} in int8; its graph holds: {found}."
    )


def is_calibrated(answer: Answer) -> None:
    """Assert that a static model's scales are not the 1 that they begin with.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript.
    """
    scales = activation_scales(answer)
    assert scales, f"The model {answer.name!r} has no static layer: no scale was found in it."
    untouched = sum(scale == 1.0 for scale in scales)
    assert untouched < len(scales) / 2, (
        f"{untouched} of {len(scales)} scales in {answer.name!r} are exactly 1, as before any "
        "calibration: run batches of data through the prepared model before convert."
    )


def activation_scales(answer: Answer) -> list[float]:
    """Scales of the outputs of a static model's layers, read from its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, of the lite interpreter too, or as an ExecuTorch
        file.
    """
    if answer.path.suffix == ".pte":
        answer.load()
        return executorch_contents(answer.path).scales
    scales = []
    for node in _nodes(_torchscript(answer)):
        if node.kind() in STATIC:
            value = [*node.inputs()][-2].toIValue()
            if isinstance(value, float):
                scales.append(value)
    return scales


def operators(answer: Answer) -> Counter[str]:
    """Count the operators in a TorchScript artifact's frozen graph, such as "aten::conv2d".

    Parameters
    ----------
    answer
        A model handed in as TorchScript.
    """
    assert answer.path.suffix == ".pt", (
        f"The answer {answer.name!r} is a {answer.kind}; hand in the model itself."
    )
    return Counter(node.kind() for node in _nodes(answer.load()))


def quantized_weights(answer: Answer) -> list[Tensor]:
    """Quantized weights of a static model's layers, in the order of its frozen graph.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, scripted or traced.
    """
    assert answer.path.suffix == ".pt", (
        f"The answer {answer.name!r} is a {answer.kind}; hand in the converted model itself."
    )
    weights = []
    for node in _nodes(answer.load()):
        if node.kind() in STATIC:
            packed = [v.toIValue() for v in node.inputs() if "PackedParams" in str(v.type())]
            weights += [parameters.unpack()[0] for parameters in packed if parameters is not None]
    return weights


def weights_on_grid(answer: Answer, bits: int, layers: int) -> None:
    """Assert that a static model's weights fit ``bits`` bits, with one scale a tensor.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript.
    bits
        A layer's integers may span 2**bits neighbouring levels.
    layers
        How many quantized layers there must be.
    """
    weights = quantized_weights(answer)
    assert len(weights) >= layers, (
        f"The model {answer.name!r} has {len(weights)} static int8 layers, and {layers} are asked "
        "for: every convolution and every linear layer."
    )
    for number, weight in enumerate(weights, 1):
        layer = f"Layer {number} of {answer.name!r}, with weights {tuple(weight.shape)},"
        assert weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric), (
            f"{layer} has a scale for each channel; one for the whole tensor is asked for."
        )
        integers = weight.int_repr().int()
        span = (integers.max() - integers.min()).item() + 1
        assert span <= 2**bits, (
            f"{layer} spans {span} levels of its grid, and {bits} bits have {2**bits}: give its "
            "observer a range that the converter keeps to."
        )


def operator_calls(answer: Answer, operator: str, inputs: Tensor) -> int:
    """Count the calls of an operator in one forward pass, loops unrolled, with the profiler.

    Parameters
    ----------
    answer
        A model.
    operator
        Such as "quantized::linear".
    inputs
        A batch.
    """
    runs(answer, inputs)
    model = answer.load()
    with torch.no_grad():
        for _ in range(3):  # TorchScript optimizes itself then, and that is slow to profile
            model(inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            model(inputs)
    return sum(event.count for event in profile.key_averages() if event.key == operator)


def weight_schemes(answer: Answer) -> list[str]:
    """Say of each int8 layer whether its packed weights have one scale or one a channel.

    Parameters
    ----------
    answer
        A dynamic or static model handed in as TorchScript.

    Returns
    -------
    list of str
        "per tensor" or "per channel", in the order of computation; layers whose weights are
        packed otherwise, as an LSTM's, are left out.
    """
    schemes = []
    for node in _nodes(answer.load()):
        if node.kind() in DYNAMIC or node.kind() in STATIC:
            packed = [*node.inputs()][1].toIValue()
            if isinstance(packed, torch.ScriptObject) and hasattr(packed, "unpack"):
                weight = packed.unpack()[0]
                if weight.is_quantized:
                    axes = "channel" if "per_channel" in str(weight.qscheme()) else "tensor"
                    schemes.append(f"per {axes}")
    return schemes


def weight_types(answer: Answer) -> Counter[str]:
    """Count the numbers that a model stores as plain or torchao tensors, by their type.

    Parameters
    ----------
    answer
        A model handed in as TorchScript or exported program; int8 weights that the legacy API
        packs are not counted.

    Returns
    -------
    Counter
        Keys such as "float32", "bfloat16", "int8".
    """
    model = answer.load()
    tensors = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    if not tensors and isinstance(model, torch.jit.ScriptModule):  # it was frozen
        constants = (node for node in _nodes(model) if node.kind() == "prim::Constant")
        values = (node.output().toIValue() for node in constants)
        tensors = [value for value in values if isinstance(value, Tensor)]
    counts: Counter[str] = Counter()
    for tensor in tensors:
        inner = getattr(tensor, "qdata", tensor)  # torchao keeps its integers there
        counts[str(inner.dtype).removeprefix("torch.")] += inner.numel()
    return counts


def smaller_than(answer: Answer, megabytes: float, ratio: float = 1.0) -> None:
    """Assert that the file is at most ``ratio`` times ``megabytes``.

    Parameters
    ----------
    answer
        Any answer.
    megabytes
        What it is compared with, in MB (10**6 bytes), measured the same way.
    ratio
        At most so many times that.
    """
    assert answer.size_mb <= ratio * megabytes, (
        f"{answer.name!r} has {answer.size_mb:.3g} MB, {answer.size_mb / megabytes:.2f} times the "
        f"{megabytes:.3g} MB that it is compared with; at most {ratio:.2f} times is asked for."
    )


def agrees_with(
    answer: Answer, reference: Callable[[Tensor], Tensor], inputs: Tensor, share: float
) -> None:
    """Assert that the model predicts the reference's class for a share of the inputs.

    Parameters
    ----------
    answer
        A classifier.
    reference
        The model that it was made from.
    inputs
        A batch.
    share
        In [0, 1].
    """
    with torch.no_grad():
        wanted = reference(inputs).argmax(1)
    same = (runs(answer, inputs).argmax(1) == wanted).double().mean().item()
    assert same >= share, (
        f"The model {answer.name!r} agrees with the original on {same:.1%} of the inputs; "
        f"{share:.0%} is asked for, so something in it is not the original's."
    )


def accuracy(answer: Answer, test: Iterable) -> float:
    """Measure the accuracy of a model over batches of (inputs, labels), in [0, 1].

    Parameters
    ----------
    answer
        A classifier.
    test
        Batches of (inputs, labels).
    """
    right = total = 0
    for inputs, labels in test:
        right += (runs(answer, inputs).argmax(1) == labels).sum().item()
        total += len(labels)
    return right / total


def accuracy_at_least(answer: Answer, test: Iterable, minimum: float) -> None:
    """Assert that the model's accuracy, measured here, is at least a minimum in [0, 1].

    Parameters
    ----------
    answer
        A classifier.
    test
        Batches of (inputs, labels).
    minimum
        In [0, 1].
    """
    found = accuracy(answer, test)
    assert found >= minimum, (
        f"The model {answer.name!r} is right on {found:.1%} of the test set; at least "
        f"{minimum:.1%} is asked for."
    )


def claim_close(what: str, claimed: Any, measured: float, tolerance: float) -> None:
    """Assert that a number that was handed in is what is measured here.

    Parameters
    ----------
    what
        What it is the number of, for the sentence.
    claimed
        What was handed in.
    measured
        What the artifact gives.
    tolerance
        Largest difference.
    """
    assert isinstance(claimed, Real) and math.isfinite(claimed), (
        f"{what} must be a finite number, and {claimed!r} is none."
    )
    assert abs(claimed - measured) <= tolerance, (
        f"{what} was given as {claimed:.4g}; measured from the artifact it is {measured:.4g}."
    )


def faster_claim_holds(
    claimed: Any,
    slow: Callable[..., Any],
    fast: Callable[..., Any],
    inputs: Tensor,
    factor: float = FACTOR,
) -> None:
    """Assert that a claimed speedup is within a generous factor of one measured now.

    Parameters
    ----------
    claimed
        Time of ``slow`` over time of ``fast``, as handed in.
    slow, fast
        Models.
    inputs
        What to time them on.
    factor
        How many times too large or too small the claim may be.
    """
    from qlearn.benchmarking import compare

    assert isinstance(claimed, Real) and math.isfinite(claimed) and claimed > 0, (
        f"A speedup is a positive number, and {claimed!r} is none."
    )
    for _ in range(TRIES):
        table = compare({"slow": slow, "fast": fast}, inputs, threads=1, seconds=0.3)
        measured = table.loc["fast", "speedup"]
        if measured / factor <= claimed <= measured * factor:
            return
    raise AssertionError(
        f"A speedup of {claimed:.3g} was handed in, and {measured:.3g} is measured here: measure "
        "with qlearn.compare, the models in eval mode, and hand in what it says."
    )


def table_has(answer: Answer, columns: Sequence[str], rows: Sequence[str] = ()) -> Any:
    """Return a table that has the columns and rows that are asked for.

    Parameters
    ----------
    answer
        A DataFrame that was handed in.
    columns, rows
        Labels that must be there; others may be too.
    """
    import pandas as pd

    table = answer.load()
    assert isinstance(table, pd.DataFrame), (
        f"The answer {answer.name!r} is no table: hand in a DataFrame."
    )
    for what, wanted, there in (("column", columns, table.columns), ("row", rows, table.index)):
        missing = [label for label in wanted if label not in there]
        assert not missing, (
            f"The table {answer.name!r} lacks the {what} {missing[0]!r}; it has "
            f"{', '.join(map(str, there)) or 'none'}."
        )
    return table


def _torchscript(answer: Answer) -> torch.jit.ScriptModule:
    """Return a model as TorchScript; a lite interpreter's file holds it beside its bytecode."""
    assert answer.path.suffix in (".pt", ".ptl"), (
        f"The answer {answer.name!r} is a {answer.kind}; hand in the converted model itself."
    )
    model = answer.load()
    if answer.path.suffix == ".pt":
        return model
    return torch.jit.load(answer.path, map_location="cpu").eval()


def _packed_kind(module: nn.Module) -> str:
    """Tell a quantized layer of a scripted module by its class's name."""
    name = getattr(module, "original_name", "")
    qualified = str(getattr(module, "_c", module)._type()) if hasattr(module, "_c") else ""
    if ".quantized." not in qualified:
        return ""
    word = "dynamic" if ".dynamic." in qualified else "static"
    for kind in ("Linear", "Conv", "LSTM", "GRU", "Embedding"):
        if kind in name and "Packed" not in name:
            return f"{word} {kind.lower()}"
    return ""


def _nodes(model: torch.jit.ScriptModule) -> Iterator[torch._C.Node]:
    """All nodes of the frozen graph, those of loops and branches included."""
    # What was handed in frozen already has no mode any more, and freeze() would stumble over that.
    model = copy.deepcopy(model)
    frozen = torch.jit.freeze(model.eval()) if hasattr(model, "training") else model

    def walk(block: Any) -> Iterator[torch._C.Node]:
        for node in block.nodes():
            yield node
            for inner in node.blocks():
                yield from walk(inner)

    return walk(frozen.inlined_graph)
