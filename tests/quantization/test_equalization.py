"""Equalization and bias correction against the properties that they promise."""

import pytest
import torch
import torch.ao.quantization as tq
from torch import nn

from qlearn import calibration, models, qconfigs
from qlearn.quantization import equalization


def weight(bits=4):
    return qconfigs.weight_qconfig(bits, per_channel=False).weight


def ranges(first, second):
    """Range of each channel between two layers, in the first and in the second."""
    groups = getattr(second, "groups", 1)
    inward = second.weight.detach().unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return first.weight.detach().abs().flatten(1).amax(1), inward.abs().flatten(1).amax(1)


def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(depthwise_cnn, digit_batches):
    folded = equalization.fold(depthwise_cnn)
    images = digit_batches[0][0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert calibration.sqnr(depthwise_cnn(images), folded(images)) > 80


def test_equalization_leaves_the_float_outputs_and_makes_the_ranges_agree(
    depthwise_cnn, digit_batches
):
    before, equalized = (
        equalization.fold(depthwise_cnn),
        equalization.equalize(depthwise_cnn, sweeps=60),
    )
    images = digit_batches[0][0]
    assert calibration.sqnr(depthwise_cnn(images), equalized(images)) > 80
    pairs = equalization._pairs(equalized)
    assert len(pairs) == 8, "stem to block, and within and between four blocks"
    for first, second in pairs:
        one, other = ranges(first, second)
        alive = (one > 1e-6) & (other > 1e-6)
        torch.testing.assert_close(one[alive], other[alive], rtol=0.05, atol=1e-6)
    unequal = [
        (a / b.clamp_min(1e-9)).max() for a, b in (ranges(*p) for p in equalization._pairs(before))
    ]
    assert max(unequal) > 2, "there was something to equalize"


def test_equalization_takes_linear_layers_and_groups():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 4, 1)
    ).eval()
    with torch.no_grad():
        model[0].weight *= torch.logspace(-2, 1, 8).reshape(-1, 1, 1, 1)
    x = torch.randn(5, 3, 9, 9)
    assert calibration.sqnr(model(x), equalization.equalize(model)(x)) > 80
    mlp = models.MLP().eval()
    image = torch.rand(5, 1, 28, 28)
    assert calibration.sqnr(mlp(image), equalization.equalize(mlp)(image)) > 80


def test_only_a_relu_between_two_layers_is_equalized():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.a(x).relu()
            return self.b(y) + y  # scaling y for b alone would change the sum

    clipped = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU6(), nn.Conv2d(3, 3, 1))
    for model in (Residual().eval(), clipped.eval()):
        with pytest.raises(ValueError, match="nothing to equalize"):
            equalization.equalize(model)


def test_bias_correction_brings_the_mean_error_of_every_layer_to_zero(depthwise_cnn, digit_batches):
    folded = equalization.fold(depthwise_cnn)
    names = [name for name, module in folded.named_modules() if type(module) in qconfigs.LAYERS]
    plain = qconfigs.round_weights(folded, weight())
    corrected = equalization.correct_bias(depthwise_cnn, weight(), digit_batches, batches=3)
    repaired = qconfigs.round_weights(corrected, weight())
    inputs = [images for images, _ in digit_batches]
    wanted = equalization._channel_means(folded, names, inputs)
    before, after = (equalization._channel_means(m, names, inputs) for m in (plain, repaired))
    scale = max(float(mean.abs().max()) for mean in wanted.values())
    worst = {
        name: max(float((means[name] - wanted[name]).abs().max()) for name in names) / scale
        for name, means in (("before", before), ("after", after))
    }
    assert worst["after"] < 1e-4 < 1e-2 < worst["before"], worst
    for name in names:
        layer, was = corrected.get_submodule(name), folded.get_submodule(name)
        assert torch.equal(layer.weight, was.weight), "only biases change"


def test_bias_correction_follows_the_order_in_which_layers_run():
    class Interleaved(nn.Module):
        """Its layers are named in another order than they are called."""

        def __init__(self):
            super().__init__()
            self.late = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
            self.early = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

        def forward(self, x):
            for early, late in zip(self.early, self.late, strict=True):
                x = late(early(x).relu()).relu()
            return x

    torch.manual_seed(0)
    model, inputs = Interleaved().eval(), [torch.rand(256, 8)]
    rounded = qconfigs.round_weights(equalization.correct_bias(model, weight(3), inputs), weight(3))
    names = [f"{kind}.{index}" for kind in ("late", "early") for index in range(2)]
    wanted, got = (
        equalization._channel_means(m, names, inputs) for m in (equalization.fold(model), rounded)
    )
    for name in names:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=1e-5)


def test_bias_correction_gives_a_bias_to_a_layer_that_has_none():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 4)).eval()
    batches = [torch.rand(32, 16)]
    corrected = equalization.correct_bias(model, weight(3), batches)
    rounded = qconfigs.round_weights(corrected, weight(3))
    torch.testing.assert_close(rounded(batches[0]).mean(0), model(batches[0]).mean(0))
    assert model[0].bias is None


def test_an_asymmetric_weight_observer_is_refused(depthwise_cnn):
    observer = tq.MinMaxObserver.with_args(dtype=torch.quint8)
    with pytest.raises(ValueError, match="not symmetric"):
        qconfigs.round_weights(depthwise_cnn, observer)


def test_a_model_that_cannot_be_traced_is_refused():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="cannot trace"):
        equalization.fold(Branch().eval())
    with pytest.raises(ValueError, match="training mode"):
        equalization.fold(models.MLP())


class Shared(nn.Module):
    """A convolution and its batch norm, both called twice, or each norm once."""

    def __init__(self, norms):
        super().__init__()
        self.conv, self.norms = nn.Conv2d(2, 2, 3), nn.ModuleList(norms)

    def forward(self, x):
        x = self.norms[0](self.conv(x)).relu()
        return self.norms[-1](self.conv(x))


@pytest.mark.parametrize("count", [1, 2])
def test_folding_keeps_the_outputs_where_layers_are_shared(count):
    torch.manual_seed(0)
    model, x = Shared([nn.BatchNorm2d(2) for _ in range(count)]), torch.rand(8, 2, 8, 8)
    with torch.no_grad():
        for _ in range(20):
            model.train()(x)
        assert torch.allclose(equalization.fold(model.eval())(x), model(x), atol=1e-6)


def test_folding_takes_linear_layers():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.rand(9, 4)
    with torch.no_grad():
        model.train()(x)
        folded = equalization.fold(model.eval())
        assert torch.allclose(folded(x), model(x), atol=1e-6)
    assert not any("BatchNorm" in type(module).__name__ for module in folded.modules())


def tied():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(16, 5))


def over_the_width():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Linear(8, 8))


@pytest.mark.parametrize("make", [tied, over_the_width], ids=lambda make: make.__name__)
def test_what_a_scale_would_change_is_not_equalized(make):
    with pytest.raises(ValueError, match="nothing to equalize"):
        equalization.equalize(make().eval())


def test_bias_correction_takes_linear_layers_over_images_and_data_sets():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    x, weight = torch.rand(12, 4, 4, 8), qconfigs.weight_qconfig(3, per_channel=False).weight
    corrected = equalization.correct_bias(model, weight, x)
    errors = [
        (model(x) - qconfigs.round_weights(each, weight)(x)).mean((0, 1, 2)).abs().max()
        for each in (model, corrected)
    ]
    assert errors[1] < errors[0] / 100


def test_weights_that_are_no_numbers_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="0.weight are not a number"):
        equalization.equalize(model)
