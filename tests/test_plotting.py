"""Figures: shown once, with alternative text, and drawn from the table's numbers."""

import base64
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from qlearn import plotting


@pytest.fixture
def shown(monkeypatch):
    pages = []
    monkeypatch.setattr(plotting, "display", lambda page: pages.append(page.data))
    return pages


@pytest.fixture
def table():
    rows = {
        "fp32": [4.0, 2.0, 1.9, 2.4, 0.97, 0.0],
        "int8": [1.0, 0.5, 0.45, 0.55, 0.96, 0.003],
    }
    columns = ["size_mb", "latency_ms", "q1_ms", "q3_ms", "accuracy", "standard_error"]
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
    whiskers = latency.collections[0].get_segments()
    assert [line[:, 0].tolist() for line in whiskers] == [[1.9, 2.4], [0.45, 0.55]], "quartiles"
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


@pytest.mark.parametrize("colour", [*plotting.COLOURS, "0.5"])
def test_colours_keep_a_contrast_of_4_5_on_the_dark_page(colour):
    """The style's filter, as browsers compute it, on JupyterLab's dark page (#111111)."""
    inverted, brightness = map(
        float, re.search(r"invert\((.+?)\).*brightness\((.+?)\)", plotting._STYLE).groups()
    )
    grey = np.array([0.2126, 0.7152, 0.0722])
    turned = 2 * np.array([0.213, 0.715, 0.072]) - np.eye(3)  # a hue turned by 180 degrees
    ink = inverted - (2 * inverted - 1) * np.array(to_rgb(colour))
    ink = np.clip(brightness * np.clip(turned @ ink, 0, 1), 0, 1)

    def luminance(rgb):
        return grey @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)

    assert (luminance(ink) + 0.05) / (luminance(np.full(3, 0x11 / 255)) + 0.05) >= 4.5


def test_a_figure_to_play_with_follows_its_sliders_and_has_a_picture_without_them(monkeypatch):
    from ipywidgets.widgets.widget import _instances

    bundles, drawn, others = [], [], plt.get_fignums()
    monkeypatch.setattr(plotting, "display", lambda data, raw: bundles.append(data))

    def draw(**values):
        drawn.append(values)
        return plt.subplots()[0]

    plotting.play(draw, "a figure & more", bits=(2, 4, 8), end=(0.0, 1.0, 2.0))
    (bundle,) = bundles
    assert 'alt="a figure &amp; more"' in bundle["text/html"]
    model = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    bits, end, _ = _instances[model].children
    bits.value, end.value = 8, 0.5
    assert drawn == [{"bits": 4, "end": 1.0}, {"bits": 8, "end": 1.0}, {"bits": 8, "end": 0.5}]
    assert plt.get_fignums() == others
