"""The report of `qlearn device`: kept as JSON, in words, and as a table beside the phone lab's."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from qlearn.system.cache import as_path, write_whole


def write(report: dict[str, Any], path: str | Path) -> None:
    """Keep a report as JSON."""
    with write_whole(Path(path)) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1, allow_nan=False), encoding="utf-8")


def read(path: str | Path) -> pd.DataFrame:
    """Read the report that ``qlearn device fp32.pte int8.pte --output`` has written.

    Returns
    -------
    pandas.DataFrame
        A row for each file after the first, in the terms of the phone lab's reports: ``phone``
        (the device's name), ``model`` (the file), ``fp32_ms`` and ``int8_ms`` (medians of the first
        file and of this one), ``speedup`` with ``speedup_low`` and ``speedup_high``, ``threads``,
        ``cores``.

    Raises
    ------
    ValueError
        If the file is no such report, or it reports outputs that do not agree: there are no times.
    """
    ratio = ("speedup", "speedup_low", "speedup_high")
    try:
        report = json.loads(as_path(path).read_text(encoding="utf-8"))
        if report["agrees"]:
            first, *others = report["files"]
            return pd.DataFrame(
                {"phone": report["device"], "model": file["name"]}
                | {"fp32_ms": float(first["median_ms"]), "int8_ms": float(file["median_ms"])}
                | {key: float(file[key]) for key in ratio}
                | {"threads": report["threads"], "cores": report["cores"]}
                for file in others
            )
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no file {path}: qlearn device fp32.pte int8.pte --output {path} writes it."
        ) from None
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no report of qlearn device --output: measure again.") from None
    raise ValueError(f"{path} has no times: outputs on the device differ from this machine's.")


def describe(report: dict[str, Any]) -> str:
    """Return a report in words, a line for each file."""
    first, *_ = report["files"]
    lines = [
        f"{report['device']}, {report['system']}, {report['cores'] or 'unknown'} cores; "
        f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    ]
    for file in report["files"]:
        decibels = "equal" if file["sqnr_db"] is None else f"{file['sqnr_db']:.1f} dB"
        line = f"{file['name']}: {file['size_mb']:.3f} MB, outputs "
        line += decibels if file["agrees"] else "DIFFER from this machine's"
        if report["agrees"]:
            line += f", median {file['median_ms']:.3g} ms"
            line += f" (quartiles {file['q1_ms']:.3g} to {file['q3_ms']:.3g})"
        if report["agrees"] and file is not first:
            line += f", {file['speedup']:.2f} times as fast as {first['name']}"
            line += f" ({file['speedup_low']:.2f} to {file['speedup_high']:.2f})"
        lines.append(line)
    if not report["agrees"]:
        lines.append("No times are given: they are worth nothing while outputs differ.")
    for when in ("before", "after"):
        clocks, celsius = report[when]["clocks_mhz"], report[when]["celsius"]
        clock = (
            f"clocks {min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else "clocks not told"
        )
        warmth = "temperature not told" if celsius is None else f"{celsius:.0f} °C"
        lines.append(f"{when}: {clock}, {warmth}")
    return "\n".join(lines)
