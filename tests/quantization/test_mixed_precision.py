"""Mixed precision by its promises."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from qlearn import data
from qlearn.quantization.mixed_precision import mixed_precision


@pytest.fixture(scope="module")
def mixed():
    """A perceptron of three layers, the middle one with an outlier that spoils its grid."""
    torch.manual_seed(0)
    inputs = torch.randn(200, 16)
    layers = [nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)]
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        model[2].weight[0, 0] = 20
        labels = model(inputs).argmax(1)
    part = data.Samples(inputs, labels)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = mixed_precision(model, data.DataSet(part, part, tuple("abcd")), 17)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return result


def test_the_curve_goes_from_all_quantized_to_all_float(mixed):
    curve = mixed.curve
    assert list(curve["float_layers"]) == [0, 1, 2, 3]
    assert curve["bits"].iloc[0] == 4 and curve["bits"].iloc[-1] == 32
    assert all(a < b for a, b in itertools.pairwise(curve["bits"]))
    assert curve["accuracy"].iloc[-1] == 1 and np.isinf(curve["sqnr_db"].iloc[-1])
    assert sorted(curve["layer"]) == ["", "0", "2", "4"]


def test_the_layer_with_the_outlier_is_the_first_to_be_kept(mixed):
    assert mixed.curve["layer"].iloc[1] == "2"
    assert mixed.curve["sqnr_db"].iloc[1] > mixed.curve["sqnr_db"].iloc[0] + 1


def test_the_chosen_model_is_the_best_within_the_budget(mixed):
    within = mixed.curve[mixed.curve["bits"] <= 17]
    (chosen,) = mixed.curve.index[mixed.curve["chosen"]]
    assert chosen == within["sqnr_db"].idxmax()
    modules = dict(mixed.model.named_modules())
    quantized = {name for name in ("0", "2", "4") if hasattr(modules[name], "scale")}
    (chosen,) = mixed.curve["float_layers"][mixed.curve["chosen"]]
    assert quantized == {"0", "2", "4"} - set(mixed.curve["layer"][: chosen + 1])


@pytest.mark.parametrize(
    ("budget", "bits", "message"), [(3, 4, "fewer than the 4"), (32, 9, "from 2 to 8")]
)
def test_a_budget_or_bits_that_nothing_meets_are_refused(budget, bits, message):
    part = data.Samples(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=message):
        mixed_precision(model, data.DataSet(part, part, ("a", "b")), budget, bits=bits)
