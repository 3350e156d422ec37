"""AdaRound against its paper, and against rounding to the nearest level."""

import copy
import math

import pytest
import torch

from qlearn import calibration, qconfigs, schemes
from qlearn.quantization import equalization
from qlearn.quantization.adaround import _rectified_sigmoid, _regularizer, adaround


def weight(bits=4):
    return qconfigs.weight_qconfig(bits, per_channel=False).weight


def test_adaround_rounds_up_or_down_and_beats_the_nearest_level(depthwise_cnn, digit_batches):
    folded, name = equalization.fold(depthwise_cnn), "blocks.0.1.0"
    layer = folded.get_submodule(name)
    rounded = adaround(depthwise_cnn, name, weight(3), digit_batches, batches=1, steps=150)
    scale, observer = qconfigs.grid_of(layer, weight(3))
    codes = rounded.get_submodule(name).weight.detach() / scale
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    inside = (layer.weight / scale).clamp(observer.quant_min, observer.quant_max)
    assert (codes - inside).abs().max() < 1 + 1e-4, "each weight goes to a level beside it"
    nearest = copy.deepcopy(folded)
    nearest.get_submodule(name).weight.data = (
        qconfigs.round_weights(folded, weight(3)).get_submodule(name).weight.data
    )
    want, near, learned = (
        torch.cat(calibration.record(m, [name], digit_batches, batches=None)[name])
        for m in (folded, nearest, rounded)
    )
    assert calibration.sqnr(want, learned) > calibration.sqnr(want, near) + 0.5


def test_the_soft_choice_and_its_regularizer_are_the_papers():
    v = torch.tensor([-9.0, 0.0, 2.0, 9.0])
    expected = torch.tensor([0.0, 0.5, 1.2 / (1 + math.exp(-2)) - 0.1, 1.0])
    torch.testing.assert_close(_rectified_sigmoid(v), expected)
    for beta in (20.0, 2.0):
        made, open_ = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])
        assert _regularizer(made, beta) == 0
        assert _regularizer(open_, beta) == 1
        between = _regularizer(torch.tensor([0.9]), beta)
        assert between == pytest.approx(1 - 0.8**beta)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_what_adaround_chose_is_what_is_quantized(depthwise_cnn, digit_batches, bits):
    """A second look at weights that are on the grid finds the same grid."""
    name = "blocks.0.1.0"
    rounded = adaround(depthwise_cnn, name, weight(bits), digit_batches, batches=1, steps=20)
    made = schemes.static_fx(rounded, digit_batches, per_channel=False, bits=bits)
    kept = made.get_submodule(name).weight().dequantize()
    torch.testing.assert_close(kept, rounded.get_submodule(name).weight.detach())


def test_adaround_names_a_layer_that_it_does_not_take(depthwise_cnn, digit_batches):
    with pytest.raises(ValueError, match="is a ReLU"):
        adaround(depthwise_cnn, "stem.2", weight(), digit_batches)
