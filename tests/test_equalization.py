"""The repairs against properties that they promise, and learned rounding against its paper."""

import copy
import math

import pytest
import torch
import torch.ao.quantization as tq
from torch import nn

from qlearn import calibration, data, learned_rounding, models, qconfigs, repair, schemes, training


@pytest.fixture(scope="module")
def train():
    digits = data.digits().train
    images = torch.stack([digits[index][0] for index in range(192)])
    labels = torch.tensor([digits[index][1] for index in range(192)])
    return list(zip(images.split(64), labels.split(64), strict=True))


@pytest.fixture(scope="module")
def cnn(train):
    """A depthwise CNN after a little training, so that its batch norms have met data."""
    torch.manual_seed(0)
    model = models.DepthwiseCNN()
    training.fit(model, train, epochs=2, learning_rate=3e-3)
    return model


def weight(bits=4, per_channel=False):
    return qconfigs.weight_qconfig(bits, per_channel).weight


def ranges(first, second):
    """Range of each channel between two layers, in the first and in the second."""
    groups = getattr(second, "groups", 1)
    inward = second.weight.detach().unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return first.weight.detach().abs().flatten(1).amax(1), inward.abs().flatten(1).amax(1)


def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(cnn, train):
    folded = repair.fold(cnn)
    images = train[0][0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert calibration.sqnr(cnn(images), folded(images)) > 80


def test_equalization_leaves_the_float_outputs_and_makes_the_ranges_agree(cnn, train):
    before, equalized = repair.fold(cnn), repair.equalize(cnn, sweeps=60)
    images = train[0][0]
    assert calibration.sqnr(cnn(images), equalized(images)) > 80
    pairs = repair._pairs(equalized)
    assert len(pairs) == 8, "stem to block, and within and between four blocks"
    for first, second in pairs:
        one, other = ranges(first, second)
        alive = (one > 1e-6) & (other > 1e-6)
        torch.testing.assert_close(one[alive], other[alive], rtol=0.05, atol=1e-6)
    unequal = [
        (a / b.clamp_min(1e-9)).max() for a, b in (ranges(*p) for p in repair._pairs(before))
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
    assert calibration.sqnr(model(x), repair.equalize(model)(x)) > 80
    mlp = models.MLP().eval()
    image = torch.rand(5, 1, 28, 28)
    assert calibration.sqnr(mlp(image), repair.equalize(mlp)(image)) > 80


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
            repair.equalize(model)


def test_bias_correction_brings_the_mean_error_of_every_layer_to_zero(cnn, train):
    folded = repair.fold(cnn)
    names = [name for name, module in folded.named_modules() if repair.is_layer(module)]
    plain = repair.round_weights(folded, weight())
    corrected = repair.correct_bias(cnn, weight(), train, batches=3)
    repaired = repair.round_weights(corrected, weight())
    inputs = [images for images, _ in train]
    wanted = repair._means(folded, names, inputs)
    before, after = (repair._means(m, names, inputs) for m in (plain, repaired))
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
    rounded = repair.round_weights(repair.correct_bias(model, weight(3), inputs), weight(3))
    names = [f"{kind}.{index}" for kind in ("late", "early") for index in range(2)]
    wanted, got = (repair._means(m, names, inputs) for m in (repair.fold(model), rounded))
    for name in names:
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=1e-5)


def test_bias_correction_gives_a_bias_to_a_layer_that_has_none():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 4)).eval()
    batches = [torch.rand(32, 16)]
    corrected = repair.correct_bias(model, weight(3), batches)
    rounded = repair.round_weights(corrected, weight(3))
    torch.testing.assert_close(rounded(batches[0]).mean(0), model(batches[0]).mean(0))
    assert model[0].bias is None


def test_an_asymmetric_weight_observer_is_refused(cnn):
    observer = tq.MinMaxObserver.with_args(dtype=torch.quint8)
    with pytest.raises(ValueError, match="not symmetric"):
        repair.round_weights(cnn, observer)


def test_a_model_that_cannot_be_traced_is_refused():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="cannot trace"):
        repair.fold(Branch().eval())
    with pytest.raises(ValueError, match="training mode"):
        repair.fold(models.MLP())


def test_adaround_rounds_up_or_down_and_beats_the_nearest_level(cnn, train):
    folded, name = repair.fold(cnn), "blocks.0.1.0"
    layer = folded.get_submodule(name)
    rounded = learned_rounding.adaround(cnn, name, weight(3), train, batches=1, steps=150)
    scale, observer = repair.grid_of(layer, weight(3))
    codes = rounded.get_submodule(name).weight.detach() / scale
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    inside = (layer.weight / scale).clamp(observer.quant_min, observer.quant_max)
    assert (codes - inside).abs().max() < 1 + 1e-4, "each weight goes to a level beside it"
    nearest = copy.deepcopy(folded)
    nearest.get_submodule(name).weight.data = (
        repair.round_weights(folded, weight(3)).get_submodule(name).weight.data
    )
    want, near, learned = (
        torch.cat(calibration.record(m, [name], train, batches=None)[name])
        for m in (folded, nearest, rounded)
    )
    assert calibration.sqnr(want, learned) > calibration.sqnr(want, near) + 0.5


def test_the_soft_choice_and_its_regularizer_are_the_papers():
    v = torch.tensor([-9.0, 0.0, 2.0, 9.0])
    expected = torch.tensor([0.0, 0.5, 1.2 / (1 + math.exp(-2)) - 0.1, 1.0])
    torch.testing.assert_close(learned_rounding._soft(v), expected)
    for beta in (20.0, 2.0):
        made, open_ = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])
        assert learned_rounding._indecision(made, beta) == 0
        assert learned_rounding._indecision(open_, beta) == 1
        between = learned_rounding._indecision(torch.tensor([0.9]), beta)
        assert between == pytest.approx(1 - 0.8**beta)


def test_the_gradient_of_weights_under_a_learned_step_passes_inside_the_range_only():
    w = torch.tensor([-9.0, -1.3, 0.4, 7.0], requires_grad=True)
    step = learned_rounding.LearnedStep(bits=3)
    step.scale.data.fill_(0.5)
    step.started.fill_(True)
    step(w).sum().backward()
    assert w.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_what_adaround_chose_is_what_is_quantized(cnn, train, bits):
    """A second look at weights that are on the grid finds the same grid."""
    name = "blocks.0.1.0"
    rounded = learned_rounding.adaround(cnn, name, weight(bits), train, batches=1, steps=20)
    made = schemes.static_fx(rounded, train, per_channel=False, bits=bits)
    kept = made.get_submodule(name).weight().dequantize()
    torch.testing.assert_close(kept, rounded.get_submodule(name).weight.detach())


def test_adaround_names_a_layer_that_it_does_not_take(cnn, train):
    with pytest.raises(ValueError, match="is a ReLU"):
        learned_rounding.adaround(cnn, "stem.2", weight(), train)


def test_the_gradient_of_the_step_is_the_papers():
    w = torch.tensor([-9.0, -1.3, -0.2, 0.4, 0.9, 7.0])
    step = learned_rounding.LearnedStep(bits=3)
    step.scale.data.fill_(0.5)
    step.started.fill_(True)
    step(w).sum().backward()
    v = w / 0.5  # levels -4 ... 3
    each = torch.where(v <= -4, -4.0, torch.where(v >= 3, 3.0, v.round() - v))
    expected = each.sum() / (len(w) * 3) ** 0.5
    torch.testing.assert_close(step.scale.grad, expected.reshape(1))


def test_the_step_begins_as_the_paper_says_and_rounds_as_pytorch_does():
    torch.manual_seed(0)
    w = torch.randn(64, 9)
    step = learned_rounding.LearnedStep(bits=4)
    rounded = step(w)
    s = float(2 * w.abs().mean() / 7**0.5)
    assert float(step.scale.detach()) == pytest.approx(s)
    expected = torch.fake_quantize_per_tensor_affine(w, float(step.scale.detach()), 0, -8, 7)
    torch.testing.assert_close(rounded.detach(), expected)


def test_what_was_trained_with_a_learned_step_is_what_is_converted(cnn, train):
    wrapped = tq.QuantWrapper(copy.deepcopy(cnn)).train()
    names = [n for n, m in wrapped.named_modules() if isinstance(m, models.ConvBNReLU)]
    wrapped = tq.fuse_modules_qat(wrapped, [[f"{n}.{i}" for i in range(3)] for n in names])
    activation = tq.get_default_qat_qconfig(torch.backends.quantized.engine).activation
    wrapped.qconfig = tq.QConfig(activation, learned_rounding.LearnedStep.with_args(bits=4))
    prepared = tq.prepare_qat(wrapped)

    training.fit(prepared, train, epochs=1, learning_rate=1e-3)
    layer = prepared.module.blocks[0][1][0]
    before = layer.weight_fake_quant.scale.detach().clone()
    training.fit(prepared, train, epochs=1, learning_rate=1e-3)
    assert not torch.equal(layer.weight_fake_quant.scale, before), "the step learns"
    converted = tq.convert(prepared.eval())
    stored = converted.module.blocks[0][1][0].weight()
    assert stored.q_scale() == pytest.approx(float(layer.weight_fake_quant.scale.detach()))
    assert -8 <= int(stored.int_repr().min()) and int(stored.int_repr().max()) <= 7
    images = torch.cat([images for images, _ in train])
    prepared.apply(tq.disable_observer)
    assert calibration.sqnr(prepared(images), converted(images)) > 20
