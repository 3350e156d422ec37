"""AdaRound against its paper, and against rounding to the nearest level."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from qlearn import calibration, pretrained, qconfigs, schemes
from qlearn.quantization import equalization
from qlearn.quantization.adaround import _rectified_sigmoid, _regularizer, adaround, second_moments


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


def test_adaround_comes_near_the_best_of_all_choices(base_models, digit_batches):
    """A depthwise filter has nine weights: all 2⁹ choices can be tried."""
    model, name = pretrained.depthwise_cnn(), "blocks.0.0.0"
    folded = equalization.fold(model)
    layer = folded.get_submodule(name)
    before = calibration.record(folded, ["stem.0"], digit_batches, batches=None)["stem.0"]
    H = second_moments(layer, torch.cat(before).relu())
    made = adaround(model, name, weight(), digit_batches)
    scale, observer = qconfigs.grid_of(layer, weight())
    floor = (layer.weight.detach() / scale).floor().view(-1, 1, 9)
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9)))
    levels = (floor + choices).clamp(observer.quant_min, observer.quant_max) * scale.flatten()

    def cost(weights):
        error = weights - layer.weight.detach().view(-1, 1, 9)
        return ((error @ H) * error).sum(2)

    best = cost(levels).min(1).values.sum()
    learned = cost(made.get_submodule(name).weight.detach().view(-1, 1, 9)).sum()
    nearest = cost(
        qconfigs.round_weights(folded, weight()).get_submodule(name).weight.view(-1, 1, 9)
    )
    assert best <= learned < 10**0.1 * best, "within 1 dB"
    assert nearest.sum() > 2 * learned


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 6, (3, 1), padding="same", dilation=2, padding_mode="reflect", bias=False),
        nn.Linear(4, 6, bias=False),
    ],
)
def test_second_moments_give_the_error_of_the_output(layer):
    x = torch.randn(5, 7, 4) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 9, 9)
    H, w = second_moments(layer, x), layer.weight.detach()
    rows = w.reshape(len(H), -1, H.shape[-1])
    torch.testing.assert_close((rows @ H * rows).sum(), layer(x).detach().square().sum())


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


def test_adaround_of_a_layer_that_sees_only_zeros_rounds_to_the_nearest():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 4)).eval()
    weight = qconfigs.weight_qconfig(4, per_channel=False).weight
    rounded = adaround(layer, "0", weight, [torch.zeros(8, 8)])
    assert torch.equal(
        rounded.get_submodule("0").weight, qconfigs.round_weights(layer, weight)[0].weight
    )


def test_adaround_needs_a_batch_and_a_layer_that_exists():
    layer, weight = nn.Sequential(nn.Linear(8, 4)).eval(), qconfigs.weight_qconfig(4, False).weight
    with pytest.raises(ValueError, match="'1' is no layer of the model"):
        adaround(layer, "1", weight, [torch.zeros(8, 8)])
    with pytest.raises(ValueError, match="'0' was not called"):
        adaround(layer, "0", weight, [])
