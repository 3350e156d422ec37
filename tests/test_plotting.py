"""Figures: shown once, with alternative text, and drawn from the table's numbers."""

import base64
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from qlearn import plotting


@pytest.fixture
def shown(monkeypatch):
    pages = []
    monkeypatch.setattr(plotting, "display", lambda page: pages.append(page.data))
    return pages


@pytest.fixture
def table():
    rows = {
        "fp32": [4.0, 2.0, 0.2, 0.97, 0.0],
        "int8": [1.0, 0.5, 0.1, 0.96, 0.003],
    }
    columns = ["size_mb", "latency_ms", "spread_ms", "accuracy", "standard_error"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def test_show_writes_a_picture_with_its_text_and_closes_the_figure(shown):
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    plotting.show(figure, 'a line that "rises" & ends')
    (page,) = shown
    assert 'alt="a line that &quot;rises&quot; &amp; ends"' in page
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert picture.startswith(b"\x89PNG")
    assert not plt.fignum_exists(figure.number)


def test_show_refuses_a_figure_without_text(shown):
    with pytest.raises(ValueError, match="alternative text"):
        plotting.show(plt.figure(), "  ")
    assert not shown


def test_comparison_draws_the_numbers_of_the_table(table):
    size, latency, accuracy = plotting.comparison(table).axes
    assert [bar.get_width() for bar in size.patches] == [4.0, 1.0]
    assert [bar.get_width() for bar in latency.patches] == [2.0, 0.5]
    assert [float(line.get_xdata()[0]) for line in accuracy.lines if line.get_marker() == "o"] == [
        97.0,
        96.0,
    ]
    assert [axis.get_xlabel() for axis in (size, latency, accuracy)] == [
        "size (MB)",
        "latency (ms)",
        "accuracy (%)",
    ]


def test_comparison_brings_a_text_of_its_numbers(shown, table):
    plotting.show(plotting.comparison(table))
    (page,) = shown
    assert "int8: 1 MB, 0.5 ms, 96 %" in re.search(r'alt="([^"]*)"', page)[1]


def test_comparison_without_accuracy_has_two_panels(table):
    assert len(plotting.comparison(table.drop(columns=["accuracy", "standard_error"])).axes) == 2


def test_grid_histogram_marks_the_levels_of_the_quantizer():
    axis = plotting.grid_histogram(torch.linspace(-1, 1, 100), 0.25, 0, -8, 7)
    levels = next(line for line in axis.lines if line.get_label() == "levels")
    assert levels.get_xdata().tolist() == [0.25 * q for q in range(-8, 8)]
    plt.close(axis.figure)
