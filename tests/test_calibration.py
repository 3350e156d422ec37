"""Calibration and the layer-by-layer studies: the same models and data serve both."""

import copy
import itertools
import math

import pytest
import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.quantized as nnq
import torch.ao.quantization as quantization
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx

from qlearn import calibration, data, models, training
from qlearn.quantization.sensitivity import _quantize_layer, layer_errors, sensitivity

ENGINE = torch.backends.quantized.engine


def low_bits(bits: int) -> quantization.QConfig:
    half = 2 ** (bits - 1)
    return quantization.QConfig(
        activation=quantization.HistogramObserver.with_args(reduce_range=True),
        weight=quantization.PerChannelMinMaxObserver.with_args(
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            quant_min=-half,
            quant_max=half - 1,
        ),
    )


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def train(digits):
    images, labels = zip(*itertools.islice(digits.train, 384), strict=True)
    return list(zip(torch.stack(images).split(64), torch.tensor(labels).split(64), strict=True))


@pytest.fixture(scope="module")
def test(digits):
    images, labels = zip(*itertools.islice(digits.test, 180), strict=True)
    return list(zip(torch.stack(images).split(90), torch.tensor(labels).split(90), strict=True))


@pytest.fixture(scope="module")
def cnn(train):
    torch.manual_seed(0)
    model = models.SmallCNN()
    training.fit(model, train, epochs=2, learning_rate=3e-3)
    return model.eval()


@pytest.fixture(scope="module")
def resnet(train):
    """A quantizable ResNet-18 whose batch norms have seen digits, and a batch of them."""
    torch.manual_seed(0)
    model = models.resnet18(quantizable=True).train()
    images = train[0][0][:16].repeat(1, 3, 1, 1)
    with torch.no_grad():
        for _ in range(3):
            model(images)
    return model.eval(), images[:4]


def fx(model, images, qconfig=None):
    qconfig = qconfig or quantization.get_default_qconfig(ENGINE)
    mapping = quantization.QConfigMapping().set_global(qconfig)
    prepared = prepare_fx(copy.deepcopy(model), mapping, (images,))
    calibration.calibrate(prepared, [images])
    return convert_fx(prepared)


def eager(model, images, fuse=()):
    model = copy.deepcopy(model)
    if fuse:
        quantization.fuse_modules(model, fuse, inplace=True)
    model = quantization.QuantWrapper(model).eval()
    model.qconfig = quantization.get_default_qconfig(ENGINE)
    quantization.prepare(model, inplace=True)
    calibration.calibrate(model, [images])
    return quantization.convert(model)


# calibrate


def test_calibrate_counts_samples_and_sets_ranges(cnn, train):
    mapping = quantization.get_default_qconfig_mapping(ENGINE)
    prepared = prepare_fx(copy.deepcopy(cnn), mapping, (train[0][0],))
    observer = prepared.activation_post_process_0
    assert math.isinf(observer.min_val)
    assert calibration.calibrate(prepared, train, batches=2) == 128
    assert observer.min_val == 0 and observer.max_val == max(x.max() for x, _ in train[:2])
    assert calibration.calibrate(prepared, train) == 384
    prepared(train[0][0])  # an ordinary pass afterwards still works


def test_calibrate_takes_fake_quantize_and_pt2e(cnn, train):
    prepared = quantization.QuantWrapper(copy.deepcopy(cnn)).train()
    prepared.qconfig = quantization.get_default_qat_qconfig(ENGINE)
    quantization.prepare_qat(prepared, inplace=True)
    assert calibration.calibrate(prepared.eval(), train, batches=1) == 64


def test_calibrate_takes_an_exported_model(cnn, train):
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = pytest.importorskip("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config())
    exported = torch.export.export(cnn, (train[0][0],)).module()
    prepared = pt2e.prepare_pt2e(exported, quantizer)
    assert calibration.calibrate(prepared, train, batches=1) == 64


def test_calibrate_refuses(cnn, train):
    with pytest.raises(ValueError, match="no observer"):
        calibration.calibrate(cnn, train)
    prepared = prepare_fx(copy.deepcopy(cnn), quantization.QConfigMapping(), (train[0][0],))
    with pytest.raises(ValueError, match="set a qconfig"):
        calibration.calibrate(prepared, train)
    mapping = quantization.get_default_qconfig_mapping(ENGINE)
    prepared = prepare_fx(copy.deepcopy(cnn), mapping, (train[0][0],))
    for loader, batches in (([], None), (train, 0)):
        with pytest.raises(ValueError, match="at least one"):
            calibration.calibrate(prepared, loader, batches)
    images = train[0][0]
    for wrong, message in (
        (images[:, :, :9], "shape"),
        (images.double(), r"float32 inputs.*x\.new_zeros"),
        (images * math.nan, "not finite"),
    ):
        with pytest.raises(ValueError, match=f"the prepared model fails: .*{message}"):
            calibration.calibrate(prepared, wrong)
    with pytest.raises(ValueError, match=r"training mode.*eval\(\)"):
        calibration.calibrate(prepared.train(), train)


# record


def test_record_gives_each_call_of_a_layer(cnn, train):
    outputs = calibration.record(cnn, ["conv1", "fc"], train, batches=2)
    assert [t.shape for t in outputs["conv1"]] == [(64, 32, 28, 28)] * 2
    torch.testing.assert_close(torch.cat(outputs["fc"]), cnn(torch.cat([train[0][0], train[1][0]])))
    assert not any(module._forward_hooks for module in cnn.modules())


def test_record_is_not_changed_by_a_later_layer_in_place(train):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(inplace=True)).eval()
    assert calibration.record(model, ["1"], train)["1"][0].min() < 0


def test_record_dequantizes(cnn, train):
    (output,) = calibration.record(fx(cnn, train[0][0]), ["conv1"], train)["conv1"]
    assert output.dtype == torch.float32 and not output.is_quantized


def test_record_refuses(cnn, train):
    with pytest.raises(ValueError, match="no layer 'conv9'.*conv1"):
        calibration.record(cnn, ["conv9"], train)
    with pytest.raises(ValueError, match="nothing was recorded"):
        calibration.record(cnn, ["conv1"], [])
    with pytest.raises(ValueError, match="training mode"):
        calibration.record(copy.deepcopy(cnn).train(), ["conv1"], train)
    with pytest.raises(ValueError, match="the model fails: .*different types"):
        calibration.record(cnn, ["conv1"], train[0][0].double())
    with pytest.raises(ValueError, match="layer 'inner' returns a dict: name one"):
        calibration.record(Named().eval(), ["inner"], train)


class Named(nn.Module):
    """A model whose layer returns a dict."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = lambda x: {"logits": x}

    def forward(self, x):
        return self.inner(x)["logits"]


# observer_study


def test_observer_study(cnn, train):
    batches = calibration.record(cnn, ["relu1"], train, batches=3)["relu1"]
    observers = {
        "min–max": quantization.MinMaxObserver(),
        "moving average": quantization.MovingAverageMinMaxObserver(),
        "histogram": quantization.HistogramObserver(),
        "per channel": quantization.PerChannelMinMaxObserver(ch_axis=1),
    }
    before = copy.deepcopy(observers["min–max"].state_dict())
    table = calibration.observer_study(batches, observers)
    assert list(table) == "observer samples low high scale zero_point sqnr_db".split()
    assert table.samples.tolist() == [64, 128, 192] * 4
    assert observers["min–max"].state_dict() == before
    last = table[table.samples == 192].set_index("observer")
    assert last.low["min–max"] == 0 and last.zero_point["min–max"] == 0
    assert last.high["min–max"] == pytest.approx(float(torch.cat(batches).max()), rel=1e-4)
    assert last.scale["min–max"] == pytest.approx(last.high["min–max"] / 255)
    assert last.sqnr_db["per channel"] > last.sqnr_db["min–max"] > 30
    # The histogram clips where that should cost less; it only estimates the cost.
    assert last.high["histogram"] <= last.high["min–max"]
    assert last.sqnr_db["histogram"] > last.sqnr_db["min–max"] - 1
    assert last.high["moving average"] < last.high["min–max"]
    # Every observer's first row is the parameters of the first batch alone.
    alone = quantization.MinMaxObserver()
    alone(batches[0])
    assert table.scale[0] == float(alone.calculate_qparams()[0])


def test_observer_study_of_symmetric_weights_per_channel(cnn):
    observer = low_bits(4).weight()
    table = calibration.observer_study([cnn.conv2.weight], {"weights": observer})
    peaks = cnn.conv2.weight.abs().amax((1, 2, 3))
    assert table.scale[0] == pytest.approx(float(peaks.max() / 7.5))
    assert table.low[0] == pytest.approx(-8 * table.scale[0])
    assert table.high[0] == pytest.approx(7 * table.scale[0])


def test_observer_study_refuses():
    with pytest.raises(ValueError, match="batches is empty"):
        calibration.observer_study([], {"a": quantization.MinMaxObserver()})
    with pytest.raises(ValueError, match="'a' is no observer.*instance"):
        calibration.observer_study([torch.ones(2)], {"a": quantization.MinMaxObserver})


# sqnr

vectors = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20)


@given(vectors, st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_sqnr_does_not_depend_on_the_unit(values, factor, seed):
    x = torch.tensor(values, dtype=torch.float64)
    y = x + torch.randn(len(x), generator=torch.Generator().manual_seed(seed)).double()
    if x.norm() > 0:
        once = calibration.sqnr(x, y)
        assert calibration.sqnr(factor * x, factor * y) == pytest.approx(once, abs=1e-6)
        halved = calibration.sqnr(x, x + (y - x) / 2)
        assert halved - once == pytest.approx(20 * math.log10(2), abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 11), st.integers(0, 1000))
def test_sqnr_gains_six_decibels_a_bit(bits, seed):
    x = torch.rand(20_000, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    coarse, fine = (
        torch.fake_quantize_per_tensor_affine(x, 2.0 / levels, 0, -levels // 2, levels // 2)
        for levels in (2**bits, 2 ** (bits + 1))
    )
    gain = calibration.sqnr(x, fine) - calibration.sqnr(x, coarse)
    assert gain == pytest.approx(6.02, abs=0.3)
    # Uniform values on a uniform grid: signal 1/3, noise step²/12, so 6.02 dB a bit in all.
    assert calibration.sqnr(x, coarse) == pytest.approx(6.02 * bits, abs=0.3)


def test_sqnr_edges():
    from torch.ao.ns.fx.utils import compute_sqnr

    x, y = torch.randn(100), torch.randn(100)
    assert calibration.sqnr(x, y) == pytest.approx(float(compute_sqnr(x, y)), abs=1e-4)
    assert calibration.sqnr(x * 1e-30, y * 1e-30) == pytest.approx(calibration.sqnr(x, y), abs=1e-3)
    assert calibration.sqnr(x, x) == calibration.sqnr(x * 0, x * 0) == math.inf
    assert calibration.sqnr(x * 0, y) == -math.inf
    quantized = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
    assert calibration.sqnr(x, quantized) == calibration.sqnr(x, quantized.dequantize())
    turned = torch.complex(x, y)
    assert calibration.sqnr(turned, 1.1 * turned) == pytest.approx(20, abs=1e-4)
    assert calibration.sqnr(x, x * math.inf) == -math.inf
    assert math.isnan(calibration.sqnr(x, x * math.nan))
    with pytest.raises(ValueError, match="shapes differ"):
        calibration.sqnr(x, y[:5])


# layer_errors

FUSED = [["conv1", "bn1", "relu1"], ["conv2", "bn2", "relu2"]]


@pytest.mark.parametrize("mode", ["fx", "eager"])
def test_layer_errors_of_a_cnn(cnn, train, mode):
    images = train[0][0]
    quantized = fx(cnn, images) if mode == "fx" else eager(cnn, images, FUSED)
    table = layer_errors(cnn, quantized, train[0])
    assert table.layer.tolist() == ["conv1", "conv2", "fc"]
    assert table.kind.tolist() == ["ConvReLU2d", "ConvReLU2d", "Linear"]
    assert table.sqnr_db.between(25, 60).all()
    # The first layer by hand: what was fused into it is in the reference too.
    reference = cnn.relu1(cnn.bn1(cnn.conv1(images)))
    output = calibration.record(
        quantized, ["conv1" if mode == "fx" else "module.conv1"], [images]
    ).popitem()[1][0]
    assert table.sqnr_db[0] == pytest.approx(calibration.sqnr(reference, output))


def test_layer_errors_of_an_unfused_batch_norm(cnn, train):
    """Without BN fusion the batch norm is a layer of its own, and conv alone is compared."""
    images = train[0][0]
    table = layer_errors(cnn, eager(cnn, images), images)
    assert table.layer.tolist() == ["conv1", "bn1", "conv2", "bn2", "fc"]
    assert table.sqnr_db.min() > 20


def test_layer_errors_of_relu_fused_and_batch_norm_after_it(train):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.Flatten()
    ).train()
    model(train[0][0])
    model.eval()
    table = layer_errors(model, eager(model, train[0][0], [["0", "1"]]), train[0])
    assert table.layer.tolist() == ["0", "2"]
    assert table.kind.tolist() == ["ConvReLU2d", "BatchNorm2d"]
    assert table.sqnr_db.min() > 30


@pytest.mark.parametrize("quantizable", [True, False])
def test_layer_errors_of_resnet18_in_fx_mode(resnet, quantizable):
    model, images = resnet
    if not quantizable:
        plain = models.resnet18()
        plain.load_state_dict(model.state_dict(), strict=False)
        model = plain.eval()
    tables = {
        bits: layer_errors(model, fx(model, images, low_bits(bits)), images) for bits in (8, 4)
    }
    # 20 convolutions, three of them in shortcuts, and the classifier.
    assert len(tables[8]) == 21 and tables[8].kind.value_counts()["ConvReLU2d"] == 9
    assert tables[8].sqnr_db.min() > 15
    assert (tables[4].sqnr_db < tables[8].sqnr_db - 6).all()


def test_layer_errors_of_resnet18_in_eager_mode(resnet):
    model, images = resnet
    prepared = copy.deepcopy(model)
    prepared.fuse_model()
    fused = copy.deepcopy(prepared)
    prepared.qconfig = quantization.get_default_qconfig(ENGINE)
    quantization.prepare(prepared, inplace=True)
    calibration.calibrate(prepared, [images])
    quantized = quantization.convert(prepared)
    table = layer_errors(model, quantized, images)
    assert table.kind.value_counts().to_dict() == {
        "Conv2d": 11,
        "ConvReLU2d": 9,
        "QFunctional": 8,
        "Linear": 1,
    }
    assert table.sqnr_db.min() > 15
    # A float model that is fused already gives the same, up to float rounding.
    again = layer_errors(fused, quantized, images)
    assert again.layer.tolist() == table.layer.tolist()
    assert again.sqnr_db.tolist() == pytest.approx(table.sqnr_db.tolist(), abs=1e-2)


def test_layer_errors_of_dynamic_models(train):
    torch.manual_seed(0)
    mlp = models.MLP().eval()
    table = layer_errors(mlp, quantization.quantize_dynamic(mlp), train[0])
    assert table.layer.tolist() == ["fc1", "fc2", "fc3"] and table.sqnr_db.min() > 25
    lstm = models.PhraseLSTM(60, 5).eval()
    ids = torch.randint(1, 60, (8, 32))
    table = layer_errors(lstm, quantization.quantize_dynamic(lstm), ids)
    assert table.layer.tolist() == ["lstm", "fc"] and table.kind.tolist() == ["LSTM", "Linear"]
    assert table.sqnr_db.min() > 25


def test_layer_errors_of_torchao(train):
    torchao = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    mlp = models.MLP().eval()
    quantized = copy.deepcopy(mlp)
    torchao.quantize_(quantized, torchao.Int8WeightOnlyConfig())
    table = layer_errors(mlp, quantized, train[0])
    assert table.layer.tolist() == ["fc1", "fc2", "fc3"] and table.sqnr_db.min() > 25


def test_layer_errors_of_qat_before_and_after_convert(cnn, train):
    mapping = quantization.get_default_qat_qconfig_mapping(ENGINE)
    prepared = prepare_qat_fx(copy.deepcopy(cnn).train(), mapping, (train[0][0],)).eval()
    calibration.calibrate(prepared, train)
    before = layer_errors(cnn, prepared, train[0])
    after = layer_errors(cnn, convert_fx(copy.deepcopy(prepared)), train[0])
    assert before.layer.tolist() == after.layer.tolist() == ["conv1", "conv2", "fc"]
    assert min(before.sqnr_db.min(), after.sqnr_db.min()) > 20


def test_layer_errors_of_a_shared_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 16)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.fc(self.relu(self.fc(x)))

    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(64, 16)
    table = layer_errors(model, quantization.quantize_dynamic(model), x)
    assert table.layer.tolist() == ["fc"] and table.sqnr_db[0] > 25


def test_layer_errors_refuses(cnn, train):
    quantized = fx(cnn, train[0][0])
    with pytest.raises(ValueError, match=r"no quantized layer.*convert\(\)"):
        layer_errors(cnn, cnn, train[0])
    other = nn.Sequential(nn.Conv2d(1, 4, 3)).eval()
    with pytest.raises(ValueError, match="its like in the float model"):
        layer_errors(other, quantized, train[0])
    with pytest.raises(ValueError, match="float model is in training mode"):
        layer_errors(copy.deepcopy(cnn).train(), quantized, train[0])


# sensitivity


def test_sensitivity(cnn, train, test, capsys):
    before = copy.deepcopy(cnn.state_dict())
    table = sensitivity(cnn, train, test, batches=2)
    assert list(table) == ["layer", "accuracy", "change", "sqnr_db"]
    assert sorted(table.layer) == ["conv1", "conv2", "fc"]
    assert table.accuracy.is_monotonic_increasing
    base = training.evaluate(cnn, test)
    assert base > 0.5
    assert (table.accuracy - base).tolist() == pytest.approx(table.change.tolist())
    assert table.change.abs().max() < 0.03 and table.sqnr_db.between(20, 80).all()
    assert "sensitivity" in capsys.readouterr().out
    assert all(torch.equal(before[name], value) for name, value in cnn.state_dict().items())


def test_sensitivity_of_fewer_bits_is_worse(cnn, train, test):
    tables = [
        sensitivity(cnn, train, test, batches=1, qconfig=low_bits(bits)).set_index("layer")
        for bits in (8, 4, 2)
    ]
    for finer, coarser in itertools.pairwise(tables):
        assert (coarser.sqnr_db < finer.sqnr_db[coarser.index]).all()
    assert (tables[2].sqnr_db < tables[0].sqnr_db[tables[2].index] - 6).all()


@pytest.mark.parametrize("name", ["conv1", "conv2", "fc"])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_sensitivity_quantizes_one_layer_within_its_range(cnn, train, name, bits):
    qconfig = low_bits(bits)
    converted = _quantize_layer(cnn, name, qconfig, train[:1])
    kinds = (nnq.Conv2d, nnq.Linear, nniq.ConvReLU2d)
    assert [n for n, m in converted.named_modules() if isinstance(m, kinds)] == [name]
    codes = converted.get_submodule(name).weight().int_repr()
    assert codes.min() >= -(2 ** (bits - 1)) and codes.max() <= 2 ** (bits - 1) - 1
    # The same weights as fake quantization gives, batch norm folded by FX's own fusion.
    prepared = prepare_fx(
        copy.deepcopy(cnn), quantization.QConfigMapping(), (train[0][0],)
    ).get_submodule(name)
    weight = (prepared[0] if isinstance(prepared, nn.Sequential) else prepared).weight
    observer = qconfig.weight()
    observer(weight)
    scale, zero_point = observer.calculate_qparams()
    expected = torch.fake_quantize_per_channel_affine(
        weight, scale, zero_point.int(), 0, observer.quant_min, observer.quant_max
    )
    torch.testing.assert_close(converted.get_submodule(name).weight().dequantize(), expected)


def test_sensitivity_refuses(cnn, train, test):
    with pytest.raises(ValueError, match="training mode"):
        sensitivity(copy.deepcopy(cnn).train(), train, test)
    with pytest.raises(ValueError, match="no Conv2d or Linear"):
        sensitivity(nn.Sequential(nn.Flatten()).eval(), train, test)
    with pytest.raises(ValueError, match="at least one"):
        sensitivity(cnn, [], test)
    with pytest.raises(ValueError, match="holds no samples"):
        sensitivity(cnn, train, [])
    shuffled = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*train[0]), batch_size=32, shuffle=True
    )
    with pytest.raises(ValueError, match="another order"):
        sensitivity(cnn, train, shuffled, batches=1)
    dynamic = quantization.default_dynamic_qconfig
    with pytest.raises(ValueError, match="conv1 stayed float"):
        sensitivity(cnn, train, test, batches=1, qconfig=dynamic)


def test_layer_errors_explains_why_a_model_fails(cnn, train):
    quantized = eager(cnn, train[0][0]).module  # without the stubs of its QuantWrapper
    with pytest.raises(ValueError, match="the quantized model fails: a quantized layer received"):
        layer_errors(cnn, quantized, train[0])
    with pytest.raises(ValueError, match=r"the float model fails: .*\(RuntimeError"):
        model, x = nn.Sequential(nn.Linear(4, 2)).eval(), torch.rand(5, 4)
        layer_errors(nn.Sequential(nn.Linear(3, 2)).eval(), eager(model, x), x)


def test_sensitivity_refuses_what_cannot_be_traced(train, test):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(784, 10)

        def forward(self, x):
            return self.fc(x.flatten(1)) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="cannot trace"):
        sensitivity(Branch().eval(), train, test)
