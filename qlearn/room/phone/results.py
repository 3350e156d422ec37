"""All phones' results: as a table, as a figure, and as a board that a notebook keeps fresh."""

import math
import re
import threading
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib.figure import Figure

from qlearn import plotting
from qlearn.plotting import COLOURS
from qlearn.room.phone.model_files import MODELS, PRECISIONS
from qlearn.room.phone.report_log import Reports, compute_speedup

_BROWSERS = (
    ("Edge", r"Edg[A-Za-z]*/(\d+)"),
    ("Samsung Internet", r"SamsungBrowser/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("Chrome", r"(?:HeadlessChrome|Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+)[\d.]* (?:Mobile/\S+ )?Safari"),
)
_SYSTEMS = (("Android", "Android"), ("iOS", "iPhone|iPad"), ("Windows", "Windows"),
            ("macOS", "Mac OS X"), ("Linux", "Linux|CrOS"))  # fmt: skip


def name_browser(user_agent: str) -> str:
    """Return the browser, its version and its system that a user agent names, in short."""
    found = ((name, re.search(pattern, user_agent)) for name, pattern in _BROWSERS)
    program = next((f"{name} {match[1]}" for name, match in found if match), "another browser")
    system = next((name for name, pattern in _SYSTEMS if re.search(pattern, user_agent)), None)
    return f"{program} on {system}" if system else program


def table(reports: list[dict[str, Any]]) -> pd.DataFrame:
    """Return reports as a table.

    Parameters
    ----------
    reports
        As ``PhoneLab.raw_reports`` returns them.

    Returns
    -------
    pandas.DataFrame
        A row for each report and model: ``phone`` (the nickname, or a number); ``model``;
        ``fp32_ms`` and ``int8_ms`` (median time of a call) with their quartiles ``fp32_q1_ms``,
        ``fp32_q3_ms``, ``int8_q1_ms``, ``int8_q3_ms``; ``speedup``, fp32 / int8;
        ``fp32_sqnr_db``, ``int8_sqnr_db`` (outputs against the host's of the same file; inf when
        equal) and ``fp32_top1``, ``int8_top1`` (share of inputs on which both name the same class);
        ``threads`` and ``isolated``; ``browser``, ``memory_gb``, ``cores`` (NaN when not told);
        ``received``.
    """
    rows = []
    for number, report in enumerate(reports, 1):
        for name in filter(report["models"].__contains__, MODELS):
            runs = report["models"][name]
            row = {"phone": report["nickname"] or f"phone {number}", "model": name}
            for precision, run in runs.items():
                decibels = math.inf if run["sqnr_db"] is None else float(run["sqnr_db"])
                row |= {f"{precision}_ms": run["median_ms"], f"{precision}_sqnr_db": decibels}
                row |= {f"{precision}_{end}": run[end] for end in ("q1_ms", "q3_ms")}
                row |= {f"{precision}_top1": run["top1"]}
            row |= {key: report[key] for key in ("threads", "isolated", "memory_gb", "cores")}
            row |= {"speedup": compute_speedup(runs), "browser": name_browser(report["user_agent"])}
            rows.append(row | {"received": pd.Timestamp(report["received"])})
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"memory_gb": float, "cores": float})


_COLUMNS = ["phone", "model", "fp32_ms", "fp32_q1_ms", "fp32_q3_ms", "int8_ms", "int8_q1_ms",
            "int8_q3_ms", "speedup", "fp32_sqnr_db", "int8_sqnr_db", "fp32_top1", "int8_top1",
            "threads", "isolated", "browser", "memory_gb", "cores", "received"]  # fmt: skip


def figure(results: pd.DataFrame) -> Figure:
    """Draw each phone's latencies: a panel a model, the fastest phone in int8 on top.

    The lines on the bars go from quartile to quartile.

    Parameters
    ----------
    results
        As ``table`` returns them, with one row at least.
    """
    models = [name for name in MODELS if name in set(results["model"])]
    most = results["model"].value_counts().max()
    # Not through pyplot, which must not be used by two threads at once.
    drawing = Figure(figsize=(7, (0.42 * most + 0.9) * len(models) + 0.2), layout="constrained")
    panels = drawing.subplots(len(models), squeeze=False)[:, 0]
    for axis, name in zip(panels, models, strict=True):
        rows = results[results["model"] == name].sort_values("int8_ms")
        positions = np.arange(len(rows))
        for precision, shift, colour in zip(PRECISIONS, (-0.2, 0.2), COLOURS, strict=False):
            q1, latency, q3 = (rows[f"{precision}_{end}"] for end in ("q1_ms", "ms", "q3_ms"))
            style = {"height": 0.38, "color": colour, "label": precision}
            axis.barh(positions + shift, latency, xerr=[latency - q1, q3 - latency], **style)
        # A nickname may hold dollar signs, between which Matplotlib would see mathematics.
        axis.set_yticks(positions, rows["phone"], parse_math=False)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_title(MODELS[name].title, loc="left")
        axis.set_xlabel("latency (ms)")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(PRECISIONS))
    return drawing


def render(results: pd.DataFrame) -> str:
    """Return the figure and the table as HTML, with alternative text."""
    if results.empty:
        return "<p>No phone has reported yet.</p>"
    phones = results["model"].value_counts().max()  # nicknames may be the same
    middle = results.groupby("model", sort=False)["speedup"].median()
    speedups = "; ".join(f"{MODELS[n].title}: median speedup {v:.2f}" for n, v in middle.items())
    alt = f"Bars: latency in fp32 and int8. Phones: {phones}. {speedups}."
    columns = ["phone", "model", "fp32_ms", "int8_ms", "speedup", "int8_top1", "threads",
               "browser"]  # fmt: skip
    as_html = results[columns].to_html(index=False, float_format="%.3g", border=0)
    return plotting.picture(figure(results), alt) + as_html


class Board:
    """The results in a notebook, drawn anew by a thread of its own after each ``refresh``."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._changed = threading.Event()
        self._handle = display(HTML(self._draw()), display_id=True)
        threading.Thread(target=self._follow, daemon=True).start()

    def refresh(self) -> None:
        """Have the board drawn anew soon; reports that come meanwhile share a drawing."""
        self._changed.set()

    def _draw(self) -> str:
        return render(table(self._reports.latest()))

    def _follow(self) -> None:
        while self._changed.wait():
            self._changed.clear()
            if self._handle is not None:  # None outside a notebook
                self._handle.update(HTML(self._draw()))
