"""An int8 program of XNNPACK computes what its graph does, also where layers are shared."""

import pytest
import torch
from torch import nn

from qlearn import export, schemes, sqnr
from qlearn.quantization.pt2e import quantize_for_xnnpack, require_agreement

DATA = torch.rand(64, 16, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """One layer on inputs of two scales: one bias, and two steps to hold it in."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.b(self.a((3 * self.a(x)).relu()).relu())


@pytest.fixture
def twice():
    torch.manual_seed(0)
    return Twice().eval()


def test_a_layer_that_is_called_twice_has_a_bias_for_each_call(twice, tmp_path):
    made = export.executorch(twice, DATA, tmp_path / "twice.pte", [DATA])
    assert made.sqnr_db > 30
    program = schemes.pt2e(twice, [DATA])
    assert sqnr(twice(DATA), program(DATA)) > 30


def test_each_call_of_a_shared_layer_gets_its_own_copy(twice):
    graph = torch.export.export(twice, (DATA,)).module()
    quantize_for_xnnpack(graph, [DATA])
    copies = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    assert len(set(copies)) >= 6, "three calls, each with a weight and a bias"
    assert torch.equal(graph(DATA), twice(DATA)) or sqnr(twice(DATA), graph(DATA)) > 25


def test_a_program_that_computes_something_else_is_refused(twice, tmp_path, monkeypatch):
    graph = torch.export.export(twice, (DATA,)).module()
    require_agreement(graph, twice, [DATA])
    with pytest.raises(ValueError, match="dB from those of the int8 graph"):
        require_agreement(graph, lambda x: twice(x) * 1.2, [DATA])
    for module in ("quantization.pt2e", "export.executorch_file"):
        monkeypatch.setattr(f"qlearn.{module}.give_own_weights", lambda graph: graph)
    with pytest.raises(ValueError, match="dB from those of the int8 graph"):
        export.executorch(twice, DATA, tmp_path / "shared.pte", [DATA])
    assert not list(tmp_path.iterdir())


class Transposes(nn.Module):
    """An autoencoder's weight and its transpose."""

    def __init__(self):
        super().__init__()
        self.down, self.fc = nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x):
        up = (2 * self.down.weight).t()
        return self.fc(nn.functional.linear(self.down(x).relu(), up))


@pytest.mark.parametrize("calibration", [None, [torch.rand(32, 8)]])
def test_a_weight_that_is_computed_is_stored_for_the_file(tmp_path, calibration):
    """XNNPACK would read beyond it, and end the process."""
    torch.manual_seed(0)
    model, inputs = Transposes().eval(), torch.rand(32, 8)
    made = export.executorch(model, inputs, tmp_path / "model.pte", calibration)
    assert made.sqnr_db > (20 if calibration else 100)
