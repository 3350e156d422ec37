"""Assertions about how a model was quantized."""

import torch

from qlearn.exercises import Answer
from qlearn.exercises.checks.layers import activation_scales, quantized_layers, quantized_weights


def is_quantized(answer: Answer, kind: str, at_least: int = 1) -> None:
    """Assert that the artifact holds at least so many quantized layers of a kind.

    Parameters
    ----------
    answer
        A model handed in as TorchScript.
    kind
        "dynamic linear", "dynamic lstm", "static conv", "static linear", …
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
