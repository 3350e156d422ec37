"""Tracing: what a model computes is what is quantized, however its forward is written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import qlearn
from qlearn import qconfigs, schemes
from qlearn.quantization.equalization import fold


class Written(nn.Module):
    """Two Linear layers, and a forward as somebody wrote it."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.head, self.relu = nn.Linear(16, 16), nn.Linear(16, 5), nn.ReLU(inplace=True)
        self.write = forward

    def forward(self, x):
        return self.head(self.write(self, x))


def in_place_function(self, x):
    y = self.a(x)
    F.relu_(y)
    return y


def in_place_option(self, x):
    y = self.a(x)
    F.relu(y, inplace=True)
    return y


def in_place_layer(self, x):
    y = self.a(x)
    self.relu(y)
    return y


def in_place_method(self, x):
    y = self.a(x)
    y.mul_(3)
    return y


def in_place_sum(self, x):
    y = self.a(x)
    z = y * 2
    z.add_(y)
    return z


def by_keyword(self, x):
    return self.a(input=x).relu()


def in_place_view(self, x):
    y = self.a(x)
    y.view(-1).mul_(3)
    return y


def in_place_part(self, x):
    y = self.a(x)
    y[:, :8].mul_(3)
    return y


def times_negative(self, x):
    return self.a(x) * -3


KEPT = (
    in_place_function, in_place_option, in_place_layer, in_place_method, in_place_sum, by_keyword,
)  # fmt: skip


@pytest.fixture
def loader():
    torch.manual_seed(1)
    return [(torch.randn(64, 16), torch.arange(64) % 5)]


@pytest.mark.parametrize("forward", KEPT, ids=lambda forward: forward.__name__)
def test_no_statement_is_lost(forward, loader):
    model, x = Written(forward).eval(), loader[0][0]
    assert qlearn.sqnr(model(x), fold(model)(x)) > 100
    assert qlearn.sqnr(model(x), schemes.static_fx(model, loader)(x)) > 25
    assert qlearn.sqnr(model(x), schemes.ALL["int8_qat"](model, loader)(x)) > 15


@pytest.mark.parametrize("forward", [in_place_view, in_place_part], ids=lambda f: f.__name__)
def test_a_change_that_would_be_lost_is_refused(forward, loader):
    for name in ("int8_channel_fx", "int8_qat"):
        with pytest.raises(ValueError, match="a part or a view of a tensor in place"):
            schemes.ALL[name](Written(forward).eval(), loader)


@pytest.mark.parametrize("name", ["int8_channel_fx", "int8_qat"])
def test_a_wrong_kernel_of_pytorch_is_refused(name, loader):
    with pytest.raises(ValueError, match="have a wrong|has a wrong int8 form"):
        schemes.ALL[name](Written(times_negative).eval(), loader)


class Positions(nn.Module):
    """A BatchNorm1d that gets sequences, N×8×8, and so normalizes positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(64, 5)
        self.norm.running_mean, self.norm.running_var = torch.randn(8), torch.rand(8) + 0.1

    def forward(self, x):
        return self.head(self.norm(self.fc(x)).flatten(1))


def test_a_batch_norm_of_positions_is_not_folded_in_silence():
    model, loader = Positions().eval(), [(torch.randn(16, 8, 8), torch.arange(16) % 5)]
    weight = qconfigs.weight_qconfig(4, False).weight
    for work in (
        lambda: schemes.static_fx(model, loader),
        lambda: schemes.ALL["int8_qat"](model, loader),
        lambda: qlearn.sensitivity(model, loader, loader),
        lambda: qlearn.correct_bias(model, weight, loader),
        lambda: qlearn.adaround(model, "fc", weight, loader),
    ):
        with pytest.raises(ValueError, match="a BatchNorm1d behind a Linear layer gets sequences"):
            work()


def test_a_weight_that_a_hook_computes_is_refused(loader):
    pruned = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    for work in (
        lambda: schemes.static_fx(pruned, loader),
        lambda: qlearn.equalize(pruned),
        lambda: qlearn.adaround(pruned, "0", qconfigs.weight_qconfig(4, False).weight, loader),
    ):
        with pytest.raises(ValueError, match=r"prune\.remove\(layer, 'weight'\)"):
            work()


@pytest.mark.parametrize("name", ["int8_dynamic", "gptq", "int4_weights_packed"])
def test_a_layer_at_several_places_is_quantized_at_each(name, loader):
    shared, x = nn.Linear(16, 16), loader[0][0]
    layers = [nn.Linear(16, 16), shared, nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(16, 5)]
    model = nn.Sequential(*layers).eval()
    made = schemes.ALL[name](model, loader)
    assert not [layer for layer in made.modules() if type(layer) is nn.Linear]
    assert made[1] is made[3] is made[5]
    assert qlearn.sqnr(model(x), made(x)) > 25


def test_samples_and_batches_calibrate_alike(loader):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    dataset = torch.utils.data.TensorDataset(*loader[0])
    tables = [qlearn.sensitivity(model, data, loader) for data in (loader, dataset, loader[0])]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
