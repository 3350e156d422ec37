"""Mixed precision by its promises."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from qlearn import data
from qlearn.quantization.mixed_precision import mixed_precision


@pytest.fixture(scope="module", params=[8, 32])
def mixed(request):
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
    budget = {8: 6, 32: 17}[request.param]
    result = mixed_precision(
        model, data.DataSet(part, part, tuple("abcd")), budget, wide=request.param
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return result, request.param, budget


def test_the_curve_goes_from_all_narrow_to_all_wide(mixed):
    (_, curve, _), wide, _ = mixed
    assert list(curve["wide_layers"]) == [0, 1, 2, 3]
    assert curve["bits"].iloc[0] == 4 and curve["bits"].iloc[-1] == wide
    assert all(a < b for a, b in itertools.pairwise(curve["bits"]))
    assert np.isinf(curve["sqnr_db"].iloc[-1]) == (wide == 32)
    assert curve["sqnr_db"].iloc[-1] > curve["sqnr_db"].iloc[0] + 3
    assert sorted(curve["layer"]) == ["", "0", "2", "4"]


def test_the_layer_with_the_outlier_is_the_first_to_be_widened(mixed):
    curve = mixed[0].curve
    assert curve["layer"].iloc[1] == "2"
    assert curve["sqnr_db"].iloc[1] > curve["sqnr_db"].iloc[0] + 1


def test_the_chosen_model_is_the_best_within_the_budget(mixed):
    (model, curve, _), wide, budget = mixed
    (chosen,) = curve.index[curve["chosen"]]
    assert chosen == curve[curve["bits"] <= budget]["sqnr_db"].idxmax()
    widened = set(curve["layer"][1 : chosen + 1])
    assert widened and widened != {"0", "2", "4"}
    for name in ("0", "2", "4"):
        layer = model.get_submodule(name)
        if name in widened and wide == 32:
            assert not hasattr(layer, "scale")
            continue
        # A layer uses the levels of its own width, up to the last of them.
        assert layer.weight().int_repr().abs().max() == (127 if name in widened else 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 3}, "fewer than the 4"),
        ({"budget": 32, "bits": 9}, "from 2 to 8"),
        ({"budget": 5, "wide": 4}, "more than 4 and at most 8"),
    ],
)
def test_a_budget_or_bits_that_nothing_meets_are_refused(options, message):
    part = data.Samples(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=message):
        mixed_precision(model, data.DataSet(part, part, ("a", "b")), **options)


def test_layers_that_the_budget_does_not_count_stay_wide():
    torch.manual_seed(0)
    layers = (nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    model = nn.Sequential(*layers).eval()
    part = data.Samples(torch.randn(64, 2, 8), torch.arange(64) % 5)
    found = mixed_precision(model, data.DataSet(part, part, tuple("abcde")), 8, bits=2)
    assert found.curve["sqnr_db"].iloc[-1] > 25
