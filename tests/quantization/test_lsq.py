"""The learned step size against its paper and against PyTorch's fake quantization."""

import copy

import pytest
import torch
import torch.ao.quantization as tq

from qlearn import calibration, models, training
from qlearn.quantization.lsq import LearnedStep


def test_the_step_begins_as_the_paper_says_and_rounds_as_pytorch_does():
    torch.manual_seed(0)
    w = torch.randn(64, 9)
    step = LearnedStep(bits=4)
    rounded = step(w)
    s = float(2 * w.abs().mean() / 7**0.5)
    assert float(step.scale.detach()) == pytest.approx(s)
    expected = torch.fake_quantize_per_tensor_affine(w, float(step.scale.detach()), 0, -8, 7)
    torch.testing.assert_close(rounded.detach(), expected)


def test_the_gradient_of_the_step_is_the_papers():
    w = torch.tensor([-9.0, -1.3, -0.2, 0.4, 0.9, 7.0])
    step = LearnedStep(bits=3)
    step.scale.data.fill_(0.5)
    step.started.fill_(True)
    step(w).sum().backward()
    v = w / 0.5  # levels -4 ... 3
    each = torch.where(v <= -4, -4.0, torch.where(v >= 3, 3.0, v.round() - v))
    expected = each.sum() / (len(w) * 3) ** 0.5
    torch.testing.assert_close(step.scale.grad, expected.reshape(1))


def test_the_gradient_of_weights_under_a_learned_step_passes_inside_the_range_only():
    w = torch.tensor([-9.0, -1.3, 0.4, 7.0], requires_grad=True)
    step = LearnedStep(bits=3)
    step.scale.data.fill_(0.5)
    step.started.fill_(True)
    step(w).sum().backward()
    assert w.grad.tolist() == [0, 1, 1, 0]


def test_what_was_trained_with_a_learned_step_is_what_is_converted(depthwise_cnn, digit_batches):
    wrapped = tq.QuantWrapper(copy.deepcopy(depthwise_cnn)).train()
    names = [n for n, m in wrapped.named_modules() if isinstance(m, models.ConvBNReLU)]
    wrapped = tq.fuse_modules_qat(wrapped, [[f"{n}.{i}" for i in range(3)] for n in names])
    activation = tq.get_default_qat_qconfig(torch.backends.quantized.engine).activation
    wrapped.qconfig = tq.QConfig(activation, LearnedStep.with_args(bits=4))
    prepared = tq.prepare_qat(wrapped)

    training.fit(prepared, digit_batches, epochs=1, learning_rate=1e-3)
    layer = prepared.module.blocks[0][1][0]
    before = layer.weight_fake_quant.scale.detach().clone()
    training.fit(prepared, digit_batches, epochs=1, learning_rate=1e-3)
    assert not torch.equal(layer.weight_fake_quant.scale, before), "the step learns"
    converted = tq.convert(prepared.eval())
    stored = converted.module.blocks[0][1][0].weight()
    assert stored.q_scale() == pytest.approx(float(layer.weight_fake_quant.scale.detach()))
    assert -8 <= int(stored.int_repr().min()) and int(stored.int_repr().max()) <= 7
    images = torch.cat([images for images, _ in digit_batches])
    prepared.apply(tq.disable_observer)
    assert calibration.sqnr(prepared(images), converted(images)) > 20
