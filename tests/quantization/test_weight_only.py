"""Groups, GPTQ and AWQ against properties and brute force."""

import inspect
import itertools

import pytest
import torch
from torch import nn

from qlearn import calibration, models, schemes
from qlearn.quantization.awq import awq
from qlearn.quantization.gptq import gptq
from qlearn.quantization.groups import grid, hessians, round_to_nearest


@pytest.fixture
def weight():
    return torch.randn(12, 50, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hessian():
    """Of 50 inputs that depend on one another, the first of them large."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(400, 50, generator=random) @ torch.randn(50, 50, generator=random)
    x[:, 0] *= 20
    return x.T @ x / len(x)


def error(weight, made, hessian):
    difference = weight - made.dequantize()
    return ((difference @ hessian) * difference).sum().item()


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("group", [16, 32, 50, 128])
def test_every_weight_goes_to_the_nearest_level_of_its_group(weight, bits, group):
    made = round_to_nearest(weight, bits, group)
    restored = made.dequantize()
    for start in range(0, 50, group):
        part, got = weight[:, start : start + group], restored[:, start : start + group]
        low, high = part.amin(1, True), part.amax(1, True)
        levels = torch.stack([low + i * (high - low) / (2**bits - 1) for i in range(2**bits)], 2)
        distances = (part.unsqueeze(2) - levels).abs()
        torch.testing.assert_close((part - got).abs(), distances.amin(2), atol=1e-6, rtol=1e-4)


def test_a_group_of_a_whole_row_is_one_scale_per_channel(weight):
    made, (scale, low) = round_to_nearest(weight, 8, 50), grid(weight, 8)
    per_channel = torch.fake_quantize_per_channel_affine(
        weight - low, scale.flatten(), torch.zeros(12, dtype=torch.int32), 0, 0, 255
    )
    torch.testing.assert_close(made.dequantize(), per_channel + low)


def test_a_row_without_a_range_is_kept():
    for constant in (0.0, 0.3, -2.0):
        weight = torch.full((2, 40), constant)
        for made in (round_to_nearest(weight, 2, 16), gptq(weight, torch.eye(40), 2, 16)):
            torch.testing.assert_close(made.dequantize(), weight)


@pytest.mark.parametrize("group", [16, 64])
def test_gptq_with_the_identity_and_awq_with_exponent_0_round_to_nearest(weight, hessian, group):
    wanted = round_to_nearest(weight, 3, group).dequantize()
    torch.testing.assert_close(gptq(weight, torch.eye(50), 3, group).dequantize(), wanted)
    torch.testing.assert_close(awq(weight, hessian, 3, group, [0]).dequantize(), wanted)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_both_come_closer_to_the_outputs_than_nearest_and_gptq_most(weight, hessian, bits):
    before = weight.clone()
    nearest, scaled, spread = (
        error(weight, method, hessian)
        for method in (
            round_to_nearest(weight, bits, 25),
            awq(weight, hessian, bits, 25),
            gptq(weight, hessian, bits, 25),
        )
    )
    assert scaled <= nearest and spread < 0.7 * nearest
    assert torch.equal(weight, before)


def test_gptq_comes_near_to_the_best_of_all_roundings():
    """Six weights on a grid of four levels: all 4⁶ choices can be tried."""
    random = torch.Generator().manual_seed(2)
    nearest, spread, best = 0.0, 0.0, 0.0
    for _ in range(30):
        weight = torch.randn(1, 6, generator=random)
        x = torch.randn(40, 6, generator=random) @ torch.randn(6, 6, generator=random)
        hessian = x.T @ x / len(x)
        scale, low = grid(weight, 2)
        codes = torch.tensor(list(itertools.product(range(4), repeat=6)))
        differences = weight - (codes * scale + low)
        errors = ((differences @ hessian) * differences).sum(1)
        assert errors.min() <= error(weight, gptq(weight, hessian, 2, 6), hessian) + 1e-5
        nearest += error(weight, round_to_nearest(weight, 2, 6), hessian)
        spread += error(weight, gptq(weight, hessian, 2, 6), hessian)
        best += errors.min().item()
    assert spread - best < 0.5 * (nearest - best)


def test_gptq_bears_inputs_that_are_always_zero_or_repeat(weight):
    x = torch.randn(8, 50, generator=torch.Generator().manual_seed(3))
    x[:, 7], x[:, 9] = 0, x[:, 8]
    for hessian in (x.T @ x / 8, torch.zeros(50, 50)):
        assert gptq(weight, hessian, 4, 25).dequantize().isfinite().all()
        assert awq(weight, hessian, 4, 25).dequantize().isfinite().all()


def test_awq_does_the_better_the_more_single_inputs_stand_out(weight, hessian):
    gain = [
        error(weight, round_to_nearest(weight, 3, 50), h) / error(weight, awq(weight, h, 3, 50), h)
        for h in (torch.eye(50), hessian)
    ]
    assert gain[0] == pytest.approx(1) and gain[1] > 1.3


def test_hessians_are_the_mean_products_of_the_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    batches = [(torch.randn(n, 4, 6), None) for n in (3, 7)]
    found = hessians(model, ["0", "2"], batches)
    x = torch.cat([batch.flatten(0, 1) for batch, _ in batches])
    hidden = model[1](model[0](x)).detach()
    torch.testing.assert_close(found["0"], x.T @ x / 40)
    torch.testing.assert_close(found["2"], hidden.T @ hidden / 40)
    with pytest.raises(ValueError, match="0 was not called"):
        hessians(model, ["0"], [])


@pytest.mark.parametrize("name", ["gptq", "awq"])
def test_the_schemes_take_a_language_model_and_refuse_what_has_no_layer(name):
    torch.manual_seed(0)
    model = models.SmallGPT(96, width=48, layers=1, context=16).eval()
    ids = torch.randint(96, (4, 16))
    made = schemes.ALL[name](model, [(ids, ids)])
    assert calibration.sqnr(model(ids), made(ids)) > 15
    with pytest.raises(ValueError, match="no Linear layer"):
        schemes.ALL[name](nn.Sequential(nn.ReLU()).eval(), [(ids, ids)])


@pytest.mark.parametrize("method", [gptq, awq])
def test_learners_can_read_it(method):
    lines = inspect.getsource(method).splitlines()
    assert len(lines) < 40 and sum("# Step" in line for line in lines) >= 4
