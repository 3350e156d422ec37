"""What the course expects of a CPU with VNNI, held against what ``make bench`` measured."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from engines import EAGER
from report import (
    INT8_INSTRUCTIONS,
    STATIC,
    TITLES,
    fastest,
    markdown,
    ratio,
)

LARGEST = 0.26  # of an int8 file, as a share of its fp32 file
FORMATS = {"ExecuTorch": "ExecuTorch", "ONNX": "ONNX Runtime", "TorchScript": "TorchScript"}

Row = tuple[str, str, str]


def expectations_section(
    tables: Mapping[str, pd.DataFrame],
    engines: Mapping[str, pd.DataFrame],
    browser: pd.DataFrame | None,
) -> str:
    """Hold the measured tables against what the course expects of a CPU with VNNI.

    Parameters
    ----------
    tables
        Model → ``compare`` table of its techniques.
    engines
        Model → its table of engines, as ``workers.measure`` returns it.
    browser
        ResNet-18 in the browser, one row a precision; None if it was not measured.

    Returns
    -------
    str
        A Markdown table; what was not measured has a row that says so.
    """
    resnet = engines.get("resnet18")
    rows = [
        _size(tables.get("resnet18")),
        *_fastest(resnet),
        _executorch(resnet),
        _browser(browser),
        *(_files(name, engines.get(name)) for name in ("resnet18", "mobilenet_v2")),
        _accuracy(tables),
    ]
    return markdown(("expectation", "measured", "verdict"), rows)


def _unmeasured(expected: str) -> Row:
    return expected, "not measured", "–"


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def _speed_verdict(holds: bool) -> str:
    """Judge a speed, which can be expected only where int8 has instructions of its own."""
    capabilities = torch.cpu.get_capabilities()
    possible = any(capabilities.get(name) for name in INT8_INSTRUCTIONS)
    return _verdict(holds) if possible else "not expected here: no VNNI"


def _size(table: pd.DataFrame | None) -> Row:
    expected = "ResNet-18 static int8 is at least 3.9 times smaller"
    if table is None:
        return _unmeasured(expected)
    measured = table.loc[STATIC, "size_ratio"]
    return expected, f"{measured:.2f}", _verdict(measured >= 3.9)


def _fastest(engines: pd.DataFrame | None) -> Iterable[Row]:
    """Compare the fastest int8 engine with the fastest fp32 engine, and with eager fp32."""
    for column, least, other in (("best", 3, "the fastest fp32 path"), ("eager", 4.5, EAGER)):
        expected = f"ResNet-18's fastest int8 path is at least {least} times as fast as {other}"
        if engines is None or not (engines["precision"] == "int8").any():
            yield _unmeasured(expected)
            continue
        name, base = fastest(engines, "int8"), fastest(engines, "fp32")
        row = engines.loc[name]
        against = base if column == "best" else EAGER
        measured = f"{ratio(row, column)} ({name} against {against})"
        yield expected, measured, _speed_verdict(row[column] >= least)


def _executorch(engines: pd.DataFrame | None) -> Row:
    expected = "ResNet-18 in ExecuTorch: int8 is at least 3 times as fast as its own fp32"
    if engines is None or "ExecuTorch int8" not in engines.index:
        return _unmeasured(expected)
    row = engines.loc["ExecuTorch int8"]
    return expected, ratio(row, "own"), _speed_verdict(row["own"] >= 3)


def _browser(table: pd.DataFrame | None) -> Row:
    expected = "ResNet-18 in the browser: int8 is at least 2 times as fast as its own fp32"
    if table is None:
        return _unmeasured(expected)
    measured = table.loc["int8", "own"]
    return expected, f"{measured:.2f}", _speed_verdict(measured >= 2)


def _files(name: str, engines: pd.DataFrame | None) -> Row:
    expected = f"{TITLES[name]}: int8 files are at most {LARGEST} of their fp32 files"
    if engines is None:
        return _unmeasured(expected)
    engines_of = {form: f"{engine} int8" for form, engine in FORMATS.items()}
    shares = {
        form: engines.loc[engine, "own_size"]
        for form, engine in engines_of.items()
        if engine in engines.index and not np.isnan(engines.loc[engine, "own_size"])
    }
    if not shares:
        return _unmeasured(expected)
    measured = ", ".join(f"{form} {share:.3f}" for form, share in shares.items())
    return expected, measured, _verdict(max(shares.values()) <= LARGEST)


def _accuracy(tables: Mapping[str, pd.DataFrame]) -> Row:
    expected = "8-bit static PTQ loses at most 0.3 points, on every model"
    if not tables:
        return _unmeasured(expected)
    changes = {name: table.loc[STATIC, "accuracy_change"] for name, table in tables.items()}
    worst = min(changes, key=changes.get)
    error = tables[worst].loc[STATIC, "standard_error"]
    measured = f"{100 * changes[worst]:+.2f} ± {100 * error:.2f} (the worst: {TITLES[worst]})"
    return expected, measured, _verdict(changes[worst] >= -0.003)
