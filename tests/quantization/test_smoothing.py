"""SmoothQuant and its opposite preserve the function."""

import pytest
import torch
from torch import nn

from qlearn.quantization.smoothing import scale_channels, smooth


@pytest.fixture
def layers():
    torch.manual_seed(0)
    norm = nn.LayerNorm(24)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm, [nn.Linear(24, 10), nn.Linear(24, 7)]


def outputs(norm, linear, x):
    return torch.cat([layer(norm(x)) for layer in linear], -1).detach()


def test_scaling_channels_and_smoothing_preserve_the_function(layers):
    norm, linear = layers
    x = torch.randn(50, 24)
    before = outputs(norm, linear, x)
    outliers = torch.ones(24)
    outliers[[3, 17]] = 40
    scale_channels(norm, linear, outliers)
    torch.testing.assert_close(outputs(norm, linear, x), before, rtol=1e-4, atol=1e-4)
    largest = norm(x).detach().abs().amax(0)
    smooth(norm, linear, largest)
    torch.testing.assert_close(outputs(norm, linear, x), before, rtol=1e-4, atol=1e-4)
    assert norm(x).abs().amax(0).max() < 0.3 * largest.max()


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_the_strength_says_whose_ranges_become_equal(layers, strength):
    norm, linear = layers
    x = torch.randn(200, 24)
    smooth(norm, linear, norm(x).detach().abs().amax(0), strength)
    inputs = norm(x).detach().abs().amax(0)
    columns = torch.stack([layer.weight.detach().abs().amax(0) for layer in linear]).amax(0)
    equal = {0: columns, 0.5: inputs / columns, 1: inputs}[strength]
    torch.testing.assert_close(equal, equal.mean().expand(24), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", [nn.RMSNorm(24), nn.LayerNorm(24, bias=False)])
def test_a_norm_without_bias_and_layers_that_share_a_weight(norm):
    torch.manual_seed(0)
    linear, x = [nn.Linear(24, 10), nn.Linear(24, 10)], torch.randn(50, 24)
    linear[1].weight = linear[0].weight
    before = outputs(norm, linear, x)
    smooth(norm, linear, norm(x).detach().abs().amax(0))
    torch.testing.assert_close(outputs(norm, linear, x), before, rtol=1e-4, atol=1e-4)


ONES = torch.ones(24)


@pytest.mark.parametrize(
    ("norm", "linear", "values", "message"),
    [
        (nn.LayerNorm(24, elementwise_affine=False), [nn.Linear(24, 2)], ONES, "without a weight"),
        (nn.LayerNorm(24), [], ONES, "no list of Linear layers"),
        (nn.LayerNorm(24), nn.Linear(24, 2), ONES, "no list of Linear layers"),
        (nn.LayerNorm(24), [nn.Linear(23, 2)], ONES, "no Linear of 24 inputs"),
        (nn.LayerNorm(24), [nn.Linear(24, 2)], ONES[:5], "24 channels, not \\(5,\\)"),
    ],
)
def test_what_does_not_fit_is_refused(norm, linear, values, message):
    for function in (scale_channels, smooth):
        with pytest.raises(ValueError, match=message):
            function(norm, linear, values)


def test_a_factor_of_zero_is_refused(layers):
    norm, linear = layers
    before = norm.weight.clone()
    with pytest.raises(ValueError, match="must be positive"):
        scale_channels(norm, linear, torch.zeros(24))
    assert torch.equal(norm.weight, before)
