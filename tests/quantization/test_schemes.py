"""Every scheme of the registry makes a model that still computes what the float model does."""

import inspect

import pytest
import torch
from torch import nn

import qlearn
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
        schemes.torchao(model, [torch.rand(2, 48)], "Int4WeightOnlyConfig", group_size=32)


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


def settled(*layers, shape):
    """Return layers whose batch norms have met data, and a loader."""
    torch.manual_seed(0)
    model, inputs = nn.Sequential(*layers), 2 * torch.rand(64, *shape) - 1
    with torch.no_grad():
        for _ in range(20):
            model.train()(inputs)
    return model.eval(), [(inputs, torch.arange(64) % 5)]


LINEAR_BN = (nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
CONV1D_BN = (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))


@pytest.mark.parametrize("layers, shape", [(LINEAR_BN, (16,)), (CONV1D_BN, (2, 8))])
def test_batch_norms_behind_linear_and_1d_layers_are_folded(layers, shape):
    model, loader = settled(*layers, shape=shape)
    x = loader[0][0]
    for make in (schemes.static_eager, schemes.static_fx):
        made = make(model, loader, per_channel=True)
        assert calibration.sqnr(model(x), made(x)) > 25
    table = qlearn.layer_errors(model, made, x)
    assert table.sqnr_db.min() > 25, "the reference has the ReLU that int8 has absorbed"
    if shape == (16,):
        assert qlearn.sensitivity(model, loader, loader).sqnr_db.min() > 25


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_transposed_convolution_keeps_its_own_scheme(bits, per_channel):
    model, loader = settled(nn.ConvTranspose2d(2, 4, 2), nn.Flatten(), shape=(2, 4, 4))
    x = loader[0][0]
    made = schemes.static_fx(model, loader, per_channel=per_channel, bits=bits)
    assert calibration.sqnr(model(x), made(x)) > 30
    made = schemes.static_eager(model, loader, per_channel=per_channel)
    assert calibration.sqnr(model(x), made(x)) > 30


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_paddings_in_words_become_numbers(padding):
    layer = nn.Conv2d(2, 4, (3, 5), padding=padding, dilation=(2, 1))
    model, loader = settled(layer, nn.Flatten(), shape=(2, 8, 8))
    x = loader[0][0]
    for make in (schemes.static_eager, schemes.static_fx):
        assert calibration.sqnr(model(x), make(model, loader, per_channel=True)(x)) > 30
    assert layer.padding == padding


def test_same_padding_of_an_even_kernel_is_refused_in_a_sentence():
    model, loader = settled(nn.Conv2d(2, 4, 2, padding="same"), nn.Flatten(), shape=(2, 8, 8))
    for make in (schemes.static_eager, schemes.static_fx):
        with pytest.raises(ValueError, match="even kernel"):
            make(model, loader, per_channel=True)


def test_a_loader_without_batches_is_refused():
    with pytest.raises(ValueError, match="no batches"):
        schemes.int8_dynamic(nn.Sequential(nn.Linear(4, 4)).eval(), [])


@pytest.mark.parametrize("layer", [nn.Linear(16, 5), nn.Identity()])
def test_a_model_that_would_stay_float_is_no_int8_model(layer):
    with pytest.raises(ValueError, match="nothing to quantize"):
        schemes.int8_dynamic(layer.eval(), [(torch.rand(4, 16), torch.zeros(4))])


def test_each_call_of_a_layer_has_a_scale_of_its_own_in_fx_mode():
    """The first call's outputs are a hundred times as large as the second's."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.data *= 0.03
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 4)).eval()
    batches = [torch.rand(32, 8) for _ in range(2)]
    made = schemes.static_fx(model, [(batch, None) for batch in batches])
    table = qlearn.layer_errors(model, made, batches[0]).set_index("layer")
    assert list(table.index) == ["0", "0_call_2", "4"] and table.sqnr_db.min() > 20
    scales = [made.get_submodule(name).scale for name in ("0", "0_call_2")]
    assert scales[0] > 10 * scales[1]


def test_a_forward_hook_is_kept_or_its_loss_is_said():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    model[0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    batches = [(torch.rand(32, 8), torch.zeros(32, dtype=torch.int64))]
    kept = schemes.int8_dynamic(model, batches)
    assert qlearn.sqnr(model(batches[0][0]), kept(batches[0][0])) > 25
    with pytest.raises(ValueError, match="the forward hook of '0' is lost.*into a forward"):
        schemes.static_fx(model, batches)


def test_outputs_that_are_no_numbers_are_refused():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval()
    model[0].weight.data[3, 3] = float("nan")
    batches = [(torch.rand(32, 8), torch.zeros(32, dtype=torch.int64))]
    for run in (
        lambda: schemes.int8_dynamic(model, batches),
        lambda: qlearn.evaluate(model, batches),
        lambda: qlearn.compare({"model": model}, batches[0][0], batches, seconds=0.001),
    ):
        with pytest.raises(ValueError, match=r"not a number \(NaN\): look for the first layer"):
            run()
