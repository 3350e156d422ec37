"""Fronts by their definition, and mixed precision by its promises."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qlearn import data, deciding, plotting


def table(rows):
    frame = pd.DataFrame(rows, columns=["latency_ms", "size_mb", "accuracy"], dtype=float)
    return frame.assign(spread_ms=0.1, standard_error=0.01).rename_axis("scheme")


def beats(one, other, cost):
    no_worse = one.accuracy >= other.accuracy and one[cost] <= other[cost]
    return no_worse and (one.accuracy > other.accuracy or one[cost] < other[cost])


numbers = st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan])


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8))
def test_a_row_is_on_a_front_when_no_other_beats_it(rows):
    marked = deciding.pareto(table(rows))
    for name, cost in plotting.FRONTS.items():
        for (_, row), front in zip(marked.iterrows(), marked[f"{name}_front"], strict=True):
            whole = not (math.isnan(row.accuracy) or math.isnan(row[cost]))
            beaten = any(beats(other, row, cost) for _, other in marked.iterrows())
            assert front == (whole and not beaten)


def test_pareto_says_what_is_missing():
    with pytest.raises(ValueError, match="lacks accuracy"):
        deciding.pareto(table([(1, 1, 1)]).drop(columns="accuracy"))


def test_the_figure_names_every_row_and_joins_the_front():
    marked = deciding.pareto(table([(1, 4, 0.9), (2, 2, 0.95), (3, 3, 0.8), (math.nan,) * 3]))
    marked.index = ["fast", "best", "beaten", "failed"]
    figure = plotting.pareto_fronts(marked)
    for axis in figure.axes:
        names = {text.get_text() for text in axis.texts}
        assert names == {"fast", "best", "beaten"}
    latency, size = (
        [line for line in axis.lines if len(line.get_xdata()) > 1] for axis in figure.axes
    )
    assert list(latency[-1].get_xdata()) == [1, 2]
    plotting.plt.close(figure)


def test_the_figure_greys_what_is_beaten_and_draws_the_uncertainty():
    marked = deciding.pareto(table([(1, 4, 0.9), (2, 2, 0.95), (3, 3, 0.8)]))
    marked.index = ["fast", "best", "beaten"]
    figure = plotting.pareto_fronts(marked)
    for axis, widths in zip(figure.axes, ([0.1] * 3, None), strict=True):
        points = {float(bar.lines[0].get_ydata()[0]): bar for bar in axis.containers}
        greys = {round(y): bar.lines[0].get_color() == "0.6" for y, bar in points.items()}
        assert greys[80] and not greys[95]
        heights = [np.ptp(bar.lines[2][-1].get_segments()[0][:, 1]) for bar in points.values()]
        np.testing.assert_allclose(heights, 2.0)  # one standard error up, one down, in points
        if widths:
            spans = [np.ptp(bar.lines[2][0].get_segments()[0][:, 0]) for bar in points.values()]
            np.testing.assert_allclose(spans, widths)
    plotting.plt.close(figure)


def test_a_table_without_numbers_has_no_figure():
    failed = deciding.pareto(table([(math.nan,) * 3]))
    with pytest.raises(ValueError, match="no row of the table has numbers"):
        plotting.pareto_fronts(failed)


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
    result = deciding.mixed_precision(model, data.DataSet(part, part, tuple("abcd")), 17)
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
        deciding.mixed_precision(model, data.DataSet(part, part, ("a", "b")), budget, bits=bits)
