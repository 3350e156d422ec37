"""Pareto fronts by their definition, and the figure that shows them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlearn import plotting
from qlearn.sweeps.pareto import COSTS, pareto


def table(rows):
    frame = pd.DataFrame(rows, columns=["latency_ms", "size_mb", "accuracy"], dtype=float)
    return frame.assign(
        q1_ms=frame.latency_ms - 0.05, q3_ms=frame.latency_ms + 0.1, standard_error=0.01
    ).rename_axis("scheme")


def beats(one, other, cost):
    no_worse = one.accuracy >= other.accuracy and one[cost] <= other[cost]
    return no_worse and (one.accuracy > other.accuracy or one[cost] < other[cost])


numbers = st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan])


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8))
def test_a_row_is_on_a_front_when_no_other_beats_it(rows):
    marked = pareto(table(rows))
    for name, cost in COSTS.items():
        for (_, row), front in zip(marked.iterrows(), marked[f"{name}_front"], strict=True):
            whole = not (math.isnan(row.accuracy) or math.isnan(row[cost]))
            beaten = any(beats(other, row, cost) for _, other in marked.iterrows())
            assert front == (whole and not beaten)


def test_pareto_says_what_is_missing():
    with pytest.raises(ValueError, match="lacks accuracy"):
        pareto(table([(1, 1, 1)]).drop(columns="accuracy"))


def test_the_figure_names_every_row_and_joins_the_front():
    marked = pareto(table([(1, 4, 0.9), (2, 2, 0.95), (3, 3, 0.8), (math.nan,) * 3]))
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
    marked = pareto(table([(1, 4, 0.9), (2, 2, 0.95), (3, 3, 0.8)]))
    marked.index = ["fast", "best", "beaten"]
    figure = plotting.pareto_fronts(marked)
    quartiles = [[0.95, 1.1], [1.95, 2.1], [2.95, 3.1]]
    for axis, ends in zip(figure.axes, (quartiles, None), strict=True):
        points = {float(bar.lines[0].get_ydata()[0]): bar for bar in axis.containers}
        greys = {round(y): bar.lines[0].get_color() == "0.6" for y, bar in points.items()}
        assert greys[80] and not greys[95]
        heights = [np.ptp(bar.lines[2][-1].get_segments()[0][:, 1]) for bar in points.values()]
        np.testing.assert_allclose(heights, 2.0)  # one standard error up, one down, in points
        if ends:
            lines = [bar.lines[2][0].get_segments()[0][:, 0] for bar in points.values()]
            np.testing.assert_allclose(sorted(map(list, lines)), ends)
    plotting.plt.close(figure)


def test_a_table_without_numbers_has_no_figure():
    failed = pareto(table([(math.nan,) * 3]))
    with pytest.raises(ValueError, match="no row of the table has numbers"):
        plotting.pareto_fronts(failed)
