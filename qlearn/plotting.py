"""The figures that more than one lesson draws, and how every figure is shown."""

import base64
import html
import io
import itertools
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette: told apart with every common form of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

plt.rcParams.update(
    {
        "figure.figsize": (7, 3.2),
        "figure.constrained_layout.use": True,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.25,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "font.size": 10,
    }
)

# The picture has a transparent background and dark ink. JupyterLab's dark theme inverts it; the
# rotation of the hue restores the colours (nearly), which the lesson's text names. The brightness
# gives each of them a contrast of 4.5 or more with the dark page.
_STYLE = """<style>
.qlearn-figure {margin: 0.5em 0}
.qlearn-figure img {max-width: 100%; height: auto}
body[data-jp-theme-light="false"] .qlearn-figure img {filter:
invert(0.92) hue-rotate(180deg) brightness(1.3)}
</style>"""


def show(figure: Figure, alt: str = "") -> None:
    """Display a figure with alternative text, once, and close it.

    Parameters
    ----------
    alt
        What the picture shows, for those who cannot see it: one or two sentences. A figure of
        `comparison` brings its own, made of its numbers.

    Raises
    ------
    ValueError
        If the alternative text is empty.
    """
    display(HTML(picture(figure, alt)))
    plt.close(figure)


def play(draw: Callable[..., Figure], alt: str, **sliders: tuple[float, float, float]) -> None:
    """Display a figure with a slider for each of its arguments.

    A page without widgets, such as one on GitHub, shows the figure as it begins.

    Parameters
    ----------
    draw
        Returns a new figure; its arguments are those of the sliders.
    alt
        What the picture shows, as for `show`.
    **sliders
        Lowest, first and highest value of an argument; it moves by whole numbers if these are.
    """
    import ipywidgets

    controls, page = {}, ipywidgets.HTML()
    for name, (low, first, high) in sliders.items():
        whole = isinstance(first, int)
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        step = 1 if whole else (high - low) / 40
        label = name.replace("_", " ")
        controls[name] = kind(first, min=low, max=high, step=step, description=label)

    places = []  # of the axes: to lay them out anew each time would take as long as to draw them

    def redraw(_: Any = None) -> None:
        with plt.rc_context({"figure.constrained_layout.use": not places}):
            figure = draw(**{name: control.value for name, control in controls.items()})
        for axis, place in zip(figure.axes, places, strict=bool(places)):
            axis.set_position(place)
        page.value = picture(figure, alt, dpi=96)
        places[:] = [axis.get_position() for axis in figure.axes]
        plt.close(figure)

    redraw()
    for control in controls.values():
        control.observe(redraw, "value")
    box = ipywidgets.VBox([*controls.values(), page])
    display(box._repr_mimebundle_() | {"text/html": page.value}, raw=True)


def picture(figure: Figure, alt: str, dpi: int = 192) -> str:
    """Return a figure as HTML for light and dark pages; it takes and refuses what `show` does."""
    if not isinstance(figure, Figure):
        raise ValueError(f"a {type(figure).__name__} is no figure: give one of Matplotlib's.")
    alt = alt.strip() or figure.get_label()
    if not alt:
        raise ValueError("A figure needs alternative text: say in a sentence what it shows.")
    buffer = io.BytesIO()
    fast = {"compress_level": 1}  # a third larger, and sooner under the hand that moves a slider
    figure.savefig(buffer, format="png", dpi=dpi, transparent=True, pil_kwargs=fast)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(figure.get_figwidth() * 96)
    return (
        f'{_STYLE}<figure class="qlearn-figure"><img width="{width}" '
        f'src="data:image/png;base64,{data}" alt="{html.escape(alt)}"></figure>'
    )


def comparison(table: pd.DataFrame) -> Figure:
    """Draw a table of `qlearn.compare`: size, latency and, where measured, accuracy.

    The lines on the bars of latency go from quartile to quartile; those on the points of accuracy
    are one standard error of the change against the first model. Another table is a ValueError.
    """
    missing = {"size_mb", "latency_ms", "q1_ms", "q3_ms"} - set(getattr(table, "columns", ()))
    if missing:
        raise ValueError(f"the table lacks {', '.join(sorted(missing))}: give one of compare().")
    panels = ["size (MB)", "latency (ms)"] + ["accuracy (%)"] * ("accuracy" in table)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels) + 1, 0.45 * len(table) + 1.2), sharey=True
    )
    rows = table.index.astype(str)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(table))]
    bars = axes[0].barh(rows, table["size_mb"], height=0.6, color=colours)
    axes[0].bar_label(bars, fmt="%.3g", padding=3)
    whiskers = _to_quartiles(table)
    bars = axes[1].barh(rows, table["latency_ms"], height=0.6, xerr=whiskers, color=colours)
    axes[1].bar_label(bars, fmt="%.3g", padding=3)
    if "accuracy" in table:
        # Points, not bars: 97 and 98 % need an axis that does not begin at zero.
        for row, colour in zip(table.itertuples(), colours, strict=True):
            error = 100 * row.standard_error
            axes[2].errorbar(100 * row.accuracy, str(row.Index), xerr=error, fmt="o", color=colour)
        low, high = 100 * table["accuracy"].min() - 2, 100 * table["accuracy"].max() + 2
        axes[2].set_xlim(max(0, low), min(100.5, high))
    for axis, label in zip(axes, panels, strict=True):
        axis.set_xlabel(label)
        axis.grid(axis="y", visible=False)
    for axis in axes[:2]:
        axis.margins(x=0.2)  # room for the numbers
    axes[0].invert_yaxis()
    figure.set_label(_numbers_in_words(table))
    return figure


def _to_quartiles(table: pd.DataFrame) -> np.ndarray:
    """Return the ways from each latency down to its first and up to its third quartile, 2×N."""
    return np.stack([table.latency_ms - table.q1_ms, table.q3_ms - table.latency_ms])


def _numbers_in_words(table: pd.DataFrame) -> str:
    units = [("size_mb", 1, "MB"), ("latency_ms", 1, "ms"), ("accuracy", 100, "%")]
    rows = [
        f"{name}: "
        + ", ".join(f"{row[key] * by:.3g} {unit}" for key, by, unit in units if key in row)
        for name, row in table.iterrows()
    ]
    return f"Bars of size and latency, points of accuracy where measured. {'; '.join(rows)}."


def pareto_fronts(table: pd.DataFrame) -> Figure:
    """Draw accuracy against latency and against size, with the front of each.

    Rows on a front are coloured, named and joined; the others are grey. The lines across a point
    go from quartile to quartile of its latency, and one standard error of the change of its
    accuracy to both sides.

    Parameters
    ----------
    table
        As `qlearn.pareto` returns it; rows without numbers are left out.

    Raises
    ------
    ValueError
        If no row has numbers.
    """
    if table["accuracy"].isna().all():
        raise ValueError("no row of the table has numbers: its reasons say why.")
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True)
    costs = (("latency", "latency_ms", "ms"), ("size", "size_mb", "MB"))
    for axis, (name, column, unit) in zip(axes, costs, strict=True):
        rows = table[table["accuracy"].notna()].sort_values([column, "accuracy"])
        # Accuracies are often equal: dominated names stand below, at alternating heights.
        heights = itertools.cycle(np.arange(0.40, 0.02, -0.05))
        for scheme, row in rows.iterrows():
            on_front = row[f"{name}_front"]
            point = (row[column], 100 * row["accuracy"])
            error = 100 * row["standard_error"]
            whiskers = _to_quartiles(rows.loc[[scheme]]) if name == "latency" else None
            colour = COLOURS[0] if on_front else "0.6"
            axis.errorbar(
                *point, error, whiskers, fmt="o", color=colour, markersize=5, elinewidth=1
            )
            if on_front:
                label = {"xytext": (0, 8), "textcoords": "offset points", "fontsize": 8}
            else:
                below = {"textcoords": axis.get_xaxis_transform(), "fontsize": 6, "color": "0.4"}
                line = {"arrowstyle": "-", "color": "0.85", "linewidth": 0.6}
                label = {"xytext": (row[column], next(heights)), "arrowprops": line, **below}
            axis.annotate(str(scheme), point, ha="center", **label)
        front = rows[rows[f"{name}_front"]]
        axis.step(front[column], 100 * front["accuracy"], where="post", color=COLOURS[0], alpha=0.6)
        axis.set(xscale="log", xlabel=f"{name} ({unit}, log scale)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(x=0.15)
    accuracy = 100 * table["accuracy"].dropna()
    low, high = accuracy.min(), min(100.5, accuracy.max() + 2)
    axes[0].set_ylim(low - max(4, high - low), high)
    axes[0].set_ylabel("accuracy (%)")
    return figure


def grid_histogram(
    values: torch.Tensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    ax: Axes | None = None,
    label: str = "value",
) -> Axes:
    """Draw a histogram of float values over the grid that an affine quantizer offers them.

    Parameters
    ----------
    values
        Of any shape.
    scale, zero_point, quant_min, quant_max
        The grid is ``scale * (q - zero_point)`` for integers ``q`` from minimum to maximum.
    ax
        New axes if not given.
    label
        Of the horizontal axis.
    """
    ax = ax or plt.subplots()[1]
    flat = values.detach().flatten().float().numpy()
    grid = scale * (np.arange(quant_min, quant_max + 1) - zero_point)
    ax.hist(flat, bins=100, color=COLOURS[0], alpha=0.8)
    ax.axvspan(grid[0], grid[-1], color=COLOURS[1], alpha=0.15, label="representable range")
    if len(grid) <= 64:  # one mark for each level, while they can be told apart
        # In the axes' own units of height, because a log scale has no zero.
        marks = {"transform": ax.get_xaxis_transform(), "color": "0.2", "markersize": 8}
        ax.plot(grid, np.full_like(grid, 0.03), "|", label="levels", **marks)
    ax.set(yscale="log", xlabel=label, ylabel="count (log scale)")
    ax.legend()
    return ax
