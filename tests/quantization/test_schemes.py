"""Every scheme of the registry makes a model that still computes what the float model does."""

import inspect

import pytest
import torch
from torch import nn

from qlearn import benchmarking, calibration, data, models, schemes
from qlearn.quantization.groups import round_to_nearest
from qlearn.quantization.weight_only import Int4Linear

# Of the logits against the float model's, in dB: what each scheme reaches with room to spare, and
# the most that its file may be of the float file. QAT moves the weights: there, accuracy counts.
EXPECTED = {
    "fp32": (200, 1.01),
    "bf16": (25, 0.60),
    "fp16": (45, 0.60),
    "int8_dynamic": (20, 0.40),
    "int8_tensor_eager": (15, 0.40),
    "int8_channel_eager": (15, 0.40),
    "int8_tensor_fx": (15, 0.40),
    "int8_channel_fx": (15, 0.40),
    "int8_pt2e": (15, 0.40),
    "int8_dynamic_torchao": (20, 0.40),
    "int8_weights_torchao": (30, 0.40),
    "int4_weights_packed": (12, 0.30),
    "gptq": (12, 0.30),
    "awq": (12, 0.30),
    "int8_qat": (None, 0.40),
    "int4_qat": (None, 0.40),
}


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def perceptron(digits, base_models):
    from qlearn import pretrained

    return pretrained.mlp()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_scheme_keeps_outputs_and_saves_memory(name, digits, perceptron):
    train, test = data.loaders(digits)
    before = {key: value.clone() for key, value in perceptron.state_dict().items()}
    made = schemes.ALL[name](perceptron, train)
    images, labels = next(iter(test))
    with torch.no_grad():
        wanted, got = perceptron(images), made(images)
    least, most = EXPECTED[name]
    assert got.dtype == torch.float32
    if least is None:
        assert (got.argmax(1) == labels).double().mean() > 0.9
    else:
        assert calibration.sqnr(wanted, got) > least
    assert benchmarking.model_size(made) < most * benchmarking.model_size(perceptron)
    assert all(torch.equal(value, before[key]) for key, value in perceptron.state_dict().items())


def test_the_scheme_that_needs_a_package_says_so(digits, perceptron):
    train, _ = data.loaders(digits)
    assert {*schemes.ALL} - {*EXPECTED} == {"int4_weights_torchao"}
    with pytest.raises((ImportError, ValueError)):
        schemes.ALL["int4_weights_torchao"](perceptron, train)


@pytest.mark.parametrize("name", schemes.ALL)
def test_a_docstring_shows_the_calls_and_the_options(name):
    text = inspect.getdoc(schemes.ALL[name])
    assert "partial(" not in text
    assert name == "fp32" or "``" in text
    options = getattr(schemes.ALL[name], "keywords", {})
    assert all(f"{key}={value!r}" in text for key, value in options.items())


def test_a_layer_that_torchao_passes_over_is_no_quantized_layer():
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU()).eval()
    with pytest.raises(ValueError, match="0 stayed float"):
        schemes.torchao(model, [], "Int4WeightOnlyConfig", group_size=32)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 32), (50, 10)])
def test_the_packed_layer_is_the_dequantized_one(inputs, outputs):
    """Against the formula: code times scale plus the group's least, in groups of 32 inputs."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    x = torch.randn(5, inputs)
    weight = nn.functional.pad(layer.weight.detach(), (0, -inputs % 32)).unflatten(1, (-1, 32))
    low, high = weight.amin(2, True), weight.amax(2, True)
    scale = (high - low) / 15
    restored = (((weight - low) / scale).round() * scale + low).flatten(1)[:, :inputs]
    wanted = nn.functional.linear(x, restored, layer.bias)
    with torch.no_grad():
        got = Int4Linear(layer, round_to_nearest(layer.weight, 4, 32))(x)
    assert got.shape == wanted.shape
    assert calibration.sqnr(wanted, got) > 35  # what bf16 leaves


def test_a_batch_of_a_cnn_goes_through_the_schemes_of_images(digits, base_models):
    from qlearn import pretrained

    train, test = data.loaders(digits)
    model, images = pretrained.depthwise_cnn(), next(iter(test))[0]
    assert isinstance(model, models.DepthwiseCNN)
    for name in ("bf16", "int8_tensor_eager", "int8_channel_eager", "int8_channel_fx", "int8_pt2e"):
        with torch.no_grad():
            made = schemes.ALL[name](model, train)(images)
        assert calibration.sqnr(model(images), made) > 12, name
