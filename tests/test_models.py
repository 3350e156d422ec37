import pytest
import torch
from torch.ao.quantization import (
    QuantWrapper,
    convert,
    fuse_modules,
    get_default_qconfig,
    prepare,
)

from qlearn import data, models

MODELS = {
    "mlp": models.MLP,
    "small_cnn": models.SmallCNN,
    "depthwise_cnn": models.DepthwiseCNN,
    "phrase_lstm": lambda: models.PhraseLSTM(data.VOCABULARY, 15),
    "resnet18": models.resnet18,
    "small_gpt": lambda: models.SmallGPT(96, width=32, layers=2, context=40),
}
CONV_BN_RELU = [["conv1", "bn1", "relu1"], ["conv2", "bn2", "relu2"]]


def inputs_of(name: str) -> torch.Tensor:
    if name == "phrase_lstm":
        return torch.stack([data.encode(text) for text in ("Deutsch", "Nouvelle-Calédonie")])
    if name == "small_gpt":
        return torch.arange(39).repeat(3, 1)
    return data.digits(channels=3 if name == "resnet18" else 1).test.inputs[:4]


@pytest.fixture(params=MODELS)
def case(request):
    torch.manual_seed(0)
    return request.param, MODELS[request.param]().eval(), inputs_of(request.param)


def test_a_model_gives_a_row_of_logits_per_sample(case):
    name, model, inputs = case
    logits = model(inputs)
    shapes = {"phrase_lstm": (15,), "small_gpt": (96, 39)}
    assert logits.shape == (len(inputs), *shapes.get(name, (10,)))
    assert torch.allclose(logits[:1], model(inputs[:1]), atol=1e-5)


def test_a_model_scripts_traces_and_exports(case):
    _, model, inputs = case
    expected = model(inputs)
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    forms = {
        "script": torch.jit.script(model),
        "fx": torch.fx.symbolic_trace(model),
        "export": torch.export.export(model, (inputs,), dynamic_shapes=(batch,)).module(),
    }
    for form, other in forms.items():
        assert torch.allclose(other(inputs), expected, atol=1e-5), form
        assert other(inputs[:1]).shape == expected[:1].shape, form


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "depthwise_cnn"])
def test_an_eager_int8_model_scripts_and_runs(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    if name == "small_cnn":
        fuse_modules(model, CONV_BN_RELU, inplace=True)
    for block in model.modules():
        if isinstance(block, models.ConvBNReLU):
            fuse_modules(block, ["0", "1", "2"], inplace=True)
    wrapped = QuantWrapper(model)
    wrapped.qconfig = get_default_qconfig(torch.backends.quantized.engine)
    prepared = prepare(wrapped)
    inputs = inputs_of(name)
    prepared(inputs)
    quantized = convert(prepared)
    scripted = torch.jit.script(quantized)
    assert torch.equal(scripted(inputs), quantized(inputs))
    kinds = {type(module).__module__ for module in quantized.modules()}
    assert any("quantized" in kind for kind in kinds)
    assert torch.nn.functional.cosine_similarity(quantized(inputs), model(inputs)).min() > 0.9


def test_the_mlp_has_the_tutorials_weights():
    weights = [layer.weight for layer in models.MLP().children() if hasattr(layer, "weight")]
    assert [tuple(weight.shape) for weight in weights] == [(256, 784), (128, 256), (10, 128)]
    assert sum(weight.numel() for weight in weights) == 234_752
    assert models.count_parameters(models.MLP()) == 234_752 + 256 + 128 + 10


def test_small_cnn_and_depthwise_cnn_take_other_images():
    colour = torch.rand(2, 3, 32, 32)
    assert models.SmallCNN(channels=3, classes=7, size=32)(colour).shape == (2, 7)
    assert models.DepthwiseCNN(channels=3, classes=7)(colour).shape == (2, 7)
    assert 30_000 < models.count_parameters(models.DepthwiseCNN()) < 60_000


def test_conv_bn_relu_fuses_by_its_names():
    block = models.ConvBNReLU(3, 8, 3).eval()
    fused = fuse_modules(block, ["0", "1", "2"])
    x = torch.rand(1, 3, 8, 8)
    assert isinstance(fused[0], torch.ao.nn.intrinsic.ConvReLU2d)
    assert torch.allclose(fused(x), block(x), atol=1e-5)


def test_the_lstm_reads_the_last_step_and_embeds_padding_to_zeros():
    torch.manual_seed(0)
    model = models.PhraseLSTM(data.VOCABULARY, 15).eval()
    ids = data.encode("Suomi").unsqueeze(0)
    assert (model.embedding(ids)[0, 0] == 0).all()
    changed = ids.clone()
    changed[0, -1] = 5
    assert not torch.allclose(model(ids), model(changed))


def test_the_gpt_sees_no_character_that_is_still_to_come():
    torch.manual_seed(0)
    model = models.SmallGPT(96, width=32, layers=2, context=40).eval()
    ids = inputs_of("small_gpt")[:1]
    changed = ids.clone()
    changed[0, 20] = 5
    before, after = model(ids), model(changed)
    assert torch.allclose(before[..., :20], after[..., :20], atol=1e-6)
    assert not torch.allclose(before[..., 20:], after[..., 20:], atol=1e-3)
    assert torch.allclose(model(ids[:, :20]), before[..., :20], atol=1e-5)


def test_both_forms_of_resnet18_share_their_state_dict():
    torch.manual_seed(0)
    plain, quantizable = models.resnet18().eval(), models.resnet18(quantizable=True).eval()
    quantizable.load_state_dict(plain.state_dict())
    inputs = inputs_of("resnet18")
    assert torch.allclose(plain(inputs), quantizable(inputs), atol=1e-5)
    assert not hasattr(plain, "quant") and hasattr(quantizable, "quant")
