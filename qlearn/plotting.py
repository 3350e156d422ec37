"""The figures that more than one lesson draws, and how every figure is shown."""

import base64
import html
import io
import itertools

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

# The costs that `qlearn.pareto` marks a front of, and their columns.
FRONTS = {"latency": "latency_ms", "size": "size_mb"}
UNITS = {"latency_ms": "ms", "size_mb": "MB"}

# The picture has a transparent ground and dark ink. JupyterLab's dark theme inverts it; the turn
# of the hue gives back the colours (nearly), so that the text of the lesson stays true.
_STYLE = """<style>
.qlearn-figure {margin: 0.5em 0}
.qlearn-figure img {max-width: 100%; height: auto}
body[data-jp-theme-light="false"] .qlearn-figure img {filter: invert(0.92) hue-rotate(180deg)}
</style>"""


def show(figure: Figure, alt: str) -> None:
    """Display a figure with alternative text, once, and close it.

    Parameters
    ----------
    figure
        A Matplotlib figure.
    alt
        What the picture shows, for those who cannot see it: one or two sentences.

    Raises
    ------
    ValueError
        If the alternative text is empty.
    """
    display(HTML(picture(figure, alt)))
    plt.close(figure)


def picture(figure: Figure, alt: str) -> str:
    """Return a figure as HTML with alternative text, for light and dark pages.

    Parameters
    ----------
    figure, alt
        As `show` takes them.

    Raises
    ------
    ValueError
        If the alternative text is empty.
    """
    if not alt.strip():
        raise ValueError("A figure needs alternative text: say in a sentence what it shows.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=192, transparent=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(figure.get_figwidth() * 96)
    return (
        f'{_STYLE}<figure class="qlearn-figure"><img width="{width}" '
        f'src="data:image/png;base64,{data}" alt="{html.escape(alt)}"></figure>'
    )


def comparison(table: pd.DataFrame) -> Figure:
    """Draw a table of `qlearn.compare`: size, latency and, where measured, accuracy.

    The lines on the bars of latency are the interquartile range; those on the points of accuracy
    are one standard error of the change against the first model.

    Parameters
    ----------
    table
        One row a model, as `qlearn.compare` returns it.
    """
    panels = ["size (MB)", "latency (ms)"] + ["accuracy (%)"] * ("accuracy" in table)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels) + 1, 0.45 * len(table) + 1.2), sharey=True
    )
    rows = table.index.astype(str)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(table))]
    bars = axes[0].barh(rows, table["size_mb"], height=0.6, color=colours)
    axes[0].bar_label(bars, fmt="%.3g", padding=3)
    spread = table["spread_ms"] / 2
    bars = axes[1].barh(rows, table["latency_ms"], height=0.6, xerr=spread, color=colours)
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
    return figure


def pareto_fronts(table: pd.DataFrame) -> Figure:
    """Draw accuracy against latency and against size, with the front of each.

    Rows on a front are coloured, named and joined; the others are grey. The lines across a point
    are the interquartile range of its latency, and one standard error of the change of its
    accuracy against the float model.

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
    for axis, (name, column) in zip(axes, FRONTS.items(), strict=True):
        rows = table[table["accuracy"].notna()].sort_values([column, "accuracy"])
        # Accuracies are often equal: dominated names hang below, at heights that take turns.
        heights = itertools.cycle(np.arange(0.40, 0.02, -0.05))
        for scheme, row in rows.iterrows():
            on_front = row[f"{name}_front"]
            place = (row[column], 100 * row["accuracy"])
            error = 100 * row["standard_error"]
            spread = row["spread_ms"] / 2 if name == "latency" else None
            colour = COLOURS[0] if on_front else "0.6"
            axis.errorbar(*place, error, spread, fmt="o", color=colour, markersize=5, elinewidth=1)
            if on_front:
                where = {"xytext": (0, 8), "textcoords": "offset points", "fontsize": 8}
            else:
                below = {"textcoords": axis.get_xaxis_transform(), "fontsize": 6, "color": "0.4"}
                line = {"arrowstyle": "-", "color": "0.85", "linewidth": 0.6}
                where = {"xytext": (row[column], next(heights)), "arrowprops": line, **below}
            axis.annotate(str(scheme), place, ha="center", **where)
        front = rows[rows[f"{name}_front"]]
        axis.step(front[column], 100 * front["accuracy"], where="post", color=COLOURS[0], alpha=0.6)
        axis.set(xscale="log", xlabel=f"{name} ({UNITS[column]}, log scale)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(x=0.15)
    accuracy = 100 * table["accuracy"].dropna()
    low, high = accuracy.min(), min(100.5, accuracy.max() + 2)
    axes[0].set_ylim(low - max(4, high - low), high)
    axes[0].set_ylabel("accuracy (%)")
    return figure


def layer_bars(table: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw one horizontal bar a layer, in the order of the table.

    Parameters
    ----------
    table
        With a column ``layer`` and the column to draw.
    column
        The name of the column.
    label
        The label of the axis, with its unit.
    """
    figure, axis = plt.subplots(figsize=(7, 0.26 * len(table) + 1))
    axis.barh(table["layer"], table[column], height=0.7)
    axis.set_xlabel(label)
    axis.set_ylabel("layer")
    axis.grid(axis="y", visible=False)
    axis.margins(y=0.01)
    axis.invert_yaxis()
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
        Float tensor of any shape.
    scale, zero_point
        Of the quantizer; the grid is ``scale * (q - zero_point)``.
    quant_min, quant_max
        The smallest and largest integer ``q``.
    ax
        Axes to draw on; new ones if not given.
    label
        The label of the horizontal axis.
    """
    if ax is None:
        _, ax = plt.subplots()
    flat = values.detach().flatten().float().numpy()
    grid = scale * (np.arange(quant_min, quant_max + 1) - zero_point)
    ax.hist(flat, bins=100, color=COLOURS[0], alpha=0.8)
    ax.axvspan(grid[0], grid[-1], color=COLOURS[1], alpha=0.15, label="representable range")
    # One mark a level, while there is room for the eye to tell them apart.
    if len(grid) <= 64:
        # At a height of the axes, because a log scale has no zero.
        ax.plot(
            grid,
            np.full_like(grid, 0.03),
            "|",
            color="0.2",
            markersize=8,
            label="levels",
            transform=ax.get_xaxis_transform(),
        )
    ax.set_yscale("log")
    ax.set_xlabel(label)
    ax.set_ylabel("count (log scale)")
    ax.legend()
    return ax
