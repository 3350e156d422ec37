"""Assertions about how a model was quantized."""

from collections import Counter

import torch
from torch import Tensor

from qlearn.exercises import Answer
from qlearn.exercises.checks.behaviour import runs
from qlearn.exercises.checks.execution import levels_used, operators_run
from qlearn.exercises.checks.layers import (
    LAYERS,
    activation_scales,
    quantized_layers,
    quantized_weights,
)

# Of what it was calibrated with, a layer's outputs use the 128 levels that every engine has; with
# noise in their place the range is often too wide, and what the model really sees uses fewer.
LEVELS = 112
WIDER = 3.0  # times that a scale may be off what the inputs need: symmetric grids take twice it
MOVED = 1e-4  # the sine of an angle; a training with a rate of 1e-5 turns filters further
DISTINCT = 0.5  # share of a layer's weights that differ from each other, in floats
SAME = 0.95  # agreement of a prepared and a converted model
FLOATS = ("float", "bfloat")  # as the names of dtypes begin
CLIPPED = 0.02  # share of a layer's outputs that may lie at the end of its range


def is_quantized(
    answer: Answer, kind: str, at_least: int = 1, inputs: Tensor | None = None
) -> None:
    """Assert that the artifact holds at least so many quantized layers of a kind.

    Parameters
    ----------
    answer
        A model handed in as TorchScript, or as an ExecuTorch file.
    kind
        "dynamic linear", "dynamic lstm", "static conv", "static linear", …
    inputs
        A batch to run the model on: then so many must be called, and no float layer of that kind
        may be; in a static model none at all. Not for ExecuTorch, whose file says who runs what.
    """
    counts = quantized_layers(answer)
    found = ", ".join(f"{n} {key}" for key, n in counts.items()) or "none at all"
    assert counts[kind] >= at_least, (
        f"The model {answer.name!r} should have at least {at_least} {kind} "
        f"layer{'s' * (at_least > 1)} in int8; its graph holds: {found}."
    )
    if inputs is None or answer.path.suffix == ".pte":
        return
    run = operators_run(answer, inputs)
    timing, layer = kind.split()
    called = sum(run[name] for name, what in LAYERS.items() if what == kind)
    assert called >= at_least or kind == "static lstm", (
        f"The model {answer.name!r} holds {counts[kind]} {kind} layers in int8, and calls {called} "
        f"when it runs: {at_least} should compute."
    )
    if timing == "static" and layer != "embedding":
        runs_in_int8(answer, inputs)
    wrong = [name for name in run if name.startswith(FLOATS) and name.endswith(f" {layer}")]
    assert not wrong, _left(answer, run, wrong[0])


def runs_in_int8(answer: Answer, inputs: Tensor) -> None:
    """Assert that no layer but an embedding computes in floats on a batch of inputs."""
    run = operators_run(answer, inputs)
    for name in run:
        left = name.startswith(FLOATS) and " " in name and not name.endswith("embedding")
        assert not left, _left(answer, run, name)


def _left(answer: Answer, run: Counter[str], name: str) -> str:
    return (
        f"The model {answer.name!r} runs {run[name]} {name} beside its int8 layers: quantize that "
        "too."
    )


def is_calibrated(answer: Answer, inputs: Tensor | None = None, batch: int | None = None) -> None:
    """Assert that no scale of a static model is the 1 that it begins with.

    Parameters
    ----------
    answer
        A static model handed in as TorchScript, or as an ExecuTorch file.
    inputs
        All samples that it may have been calibrated with: then its layers' outputs must use
        their levels, and the input of an ExecuTorch file must have a scale that fits them.
    batch
        As in `runs`.
    """
    scales = activation_scales(answer)
    assert scales, f"The model {answer.name!r} has no static layer: no scale was found in it."
    untouched = sum(scale == 1.0 for scale in scales)
    assert not untouched, (
        f"Of {len(scales)} scales in {answer.name!r}, exactly 1 as before any calibration: "
        f"{untouched}. Run batches of data through the prepared model before convert."
    )
    if inputs is None:
        return
    if answer.path.suffix == ".pte":  # which says nothing of its layers' outputs
        fits = (max(inputs.max().item(), 0) - min(inputs.min().item(), 0)) / 255
        assert fits / WIDER <= scales[0] <= fits * WIDER, (
            f"The input of {answer.name!r} has the scale {scales[0]:.3g}, and its inputs need "
            f"{fits:.3g}: calibrate with images like those that the model will see."
        )
        return
    for number, (levels, clipped) in enumerate(levels_used(answer, inputs, batch), 1):
        assert levels >= LEVELS and clipped <= CLIPPED, (
            f"The output of layer {number} of {answer.name!r} uses {levels} of 256 levels, and "
            f"{clipped:.0%} of it may be clipped: calibrate with images or texts like those that "
            "the model will see."
        )


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


def is_trained_with_rounding(
    prepared: Answer, converted: Answer, start: Answer, inputs: Tensor
) -> None:
    """Assert that a converted model comes of quantization-aware training of a float one.

    Parameters
    ----------
    prepared
        What was trained, before `convert`: floats, with fake quantization.
    converted
        What was made of it.
    start
        The float model that training began with.
    inputs
        A batch to run all on.
    """
    name = prepared.name
    run = operators_run(prepared, inputs)
    rounded = sum(number for key, number in run.items() if "fake_quant" in key or "_fq_" in key)
    layers = run["float32 conv"] + run["float32 linear"]
    assert layers and rounded > layers, (
        f"The model {name!r} runs {layers} float layers and {rounded} fake quantizations: hand in "
        "what prepare_qat returned, trained and in eval mode, before convert."
    )
    before, after = _weights(start), _weights(prepared)
    assert _shapes(before) == _shapes(after), (
        f"The layers of {name!r} are not those of {start.name!r}: prepare a copy of that model."
    )
    # Folding batch norm scales a filter, rounding moves each weight by less than a level, and an
    # optimizer turns the filter.
    turned = _all_turned(before, after)
    assert sorted(turned)[len(turned) // 2] > MOVED, (
        f"The weights of {name!r} are those of {start.name!r} in {sum(t <= MOVED for t in turned)} "
        f"of {len(turned)} layers: train what prepare_qat returns, with an optimizer that is made "
        "after it."
    )
    # Of a few weights most differ even when they are rounded.
    large = [weight for weight in after if weight.numel() > 500]
    distinct = min((len(w.unique()) / w.numel() for w in large), default=1.0)
    assert distinct > DISTINCT, (
        f"The weights of {name!r} are rounded already: hand in what was trained, in floats."
    )
    wanted, found = runs(prepared, inputs), runs(converted, inputs)
    same = (wanted.argmax(1) == found.argmax(1)).double().mean().item()
    assert same >= SAME, (
        f"{converted.name!r} says the same as {name!r} on {same:.0%} of the inputs: hand in both "
        "from one training, the prepared model with its observers disabled."
    )


def _weights(answer: Answer) -> list[Tensor]:
    """Return the matrices and filters of a float model."""
    state = answer.load().state_dict()
    return [
        value for value in state.values() if value.dim() in (2, 4) and value.is_floating_point()
    ]


def _shapes(weights: list[Tensor]) -> list[tuple[int, ...]]:
    return sorted(tuple(weight.shape) for weight in weights)


def _all_turned(before: list[Tensor], after: list[Tensor]) -> list[float]:
    """Return how far each layer turned; a layer is followed to the nearest one of its shape.

    Not by its place: FX has layers in the order in which they run, a module as they were defined.
    """
    left, turned = [*after], []
    for weight in before:
        ways = {i: _turned(weight, v) for i, v in enumerate(left) if v.shape == weight.shape}
        nearest = min(ways, key=ways.__getitem__)
        turned.append(ways[nearest])
        del left[nearest]
    return turned


def _turned(before: Tensor, after: Tensor) -> float:
    """Return the sine of the angle between two layers' filters, the mean over filters."""
    cosine = torch.cosine_similarity(before.flatten(1).double(), after.flatten(1).double())
    return (1 - cosine.clamp(-1, 1) ** 2).clamp(min=0).sqrt().mean().item()
