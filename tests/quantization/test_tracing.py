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
    """Two Linear layers, and between them a statement as somebody wrote it."""

    def __init__(self, statement):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.head, self.relu = nn.Linear(16, 16), nn.Linear(16, 5), nn.ReLU(inplace=True)
        self.statement = statement

    def forward(self, x):
        y = self.a(input=x)
        self.statement(self, y)  # what it returns is not read
        return self.head(y)


class Negative(Written):
    """A product with a negative number, whose int8 kernel is wrong."""

    def forward(self, x):
        return self.head(self.a(x) * -3)


KEPT = {
    "function": lambda self, y: F.relu_(y),
    "option": lambda self, y: F.relu(y, inplace=True),
    "layer": lambda self, y: self.relu(y),
    "method": lambda self, y: y.mul_(3),
    "sum": lambda self, y: y.add_(y * 2),
    "nothing but a keyword": lambda self, y: None,
}
LOST = {
    "view": lambda self, y: y.view(-1).mul_(3),
    "part": lambda self, y: y[:, :8].mul_(3),
}


@pytest.fixture
def loader():
    torch.manual_seed(1)
    return [(torch.randn(64, 16), torch.arange(64) % 5)]


@pytest.mark.parametrize("name", KEPT)
def test_no_statement_is_lost(name, loader):
    model, x = Written(KEPT[name]).eval(), loader[0][0]
    assert qlearn.sqnr(model(x), fold(model)(x)) > 100
    assert qlearn.sqnr(model(x), schemes.static_fx(model, loader)(x)) > 25
    assert qlearn.sqnr(model(x), schemes.ALL["int8_qat"](model, loader)(x)) > 15


@pytest.mark.parametrize("name", LOST)
def test_a_change_that_would_be_lost_is_refused(name, loader):
    for scheme in ("int8_channel_fx", "int8_qat"):
        with pytest.raises(ValueError, match="a part or a view of a tensor in place"):
            schemes.ALL[scheme](Written(LOST[name]).eval(), loader)


@pytest.mark.parametrize("name", ["int8_channel_fx", "int8_qat"])
def test_a_wrong_kernel_of_pytorch_is_refused(name, loader):
    with pytest.raises(ValueError, match="has a wrong int8 form"):
        schemes.ALL[name](Negative(None).eval(), loader)


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
