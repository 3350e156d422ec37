"""The browser's row of ``make bench``: the phone lab's page in this machine's Chromium."""

import importlib.util
import math
import shutil
import tempfile
from pathlib import Path

import pandas as pd

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str | None:
    """Return what the browser's row lacks on this machine, in a sentence; None if nothing."""
    if _chromium() is None:
        return "Chromium is not on this machine."
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: uv pip install --editable '.[test]'."
    from qlearn.room.phone.runtime import fetch_runtime

    try:
        fetch_runtime()
    except RuntimeError as error:  # neither in the cache nor to be had by npm
        return str(error)
    return None


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def browser_table(name: str, rounds: int) -> tuple[pd.DataFrame, str]:
    """Time a model of the phone lab in headless Chromium.

    Parameters
    ----------
    name
        Key of ``qlearn.phone.MODELS``.
    rounds
        Number of rounds, in each of which the page times each precision once.

    Returns
    -------
    table : DataFrame
        One row a precision: ``size_mb``; ``own_size``, as a share of fp32's; ``latency_ms``
        (median over rounds), with the quartiles ``q1_ms`` and ``q3_ms``; ``own``, how many times as
        fast as fp32; ``sqnr_db`` and ``top1`` of the outputs against the host's of the same file.
    about : str
        The browser and its threads, in a sentence.

    Raises
    ------
    RuntimeError
        If the page ends with a problem.
    """
    from qlearn import phone
    from qlearn.benchmarking import MEGABYTE
    from qlearn.room.phone.model_files import write_bundles
    from qlearn.room.phone.results import name_browser

    with tempfile.TemporaryDirectory() as folder:
        with phone.serve([name], reports=Path(folder) / "reports.jsonl", rounds=rounds) as lab:
            report = phone.run_in_chromium(lab, _chromium())
    runs, files = report["models"][name], write_bundles([name])[name]
    sizes = {p: (files / f"{p}.onnx").stat().st_size / MEGABYTE for p in runs}
    rows = {
        precision: {
            "size_mb": sizes[precision],
            "own_size": sizes[precision] / sizes["fp32"],
            "latency_ms": run["median_ms"],
            "q1_ms": run["q1_ms"],
            "q3_ms": run["q3_ms"],
            "own": runs["fp32"]["median_ms"] / run["median_ms"],
            "sqnr_db": math.inf if run["sqnr_db"] is None else run["sqnr_db"],
            "top1": run["top1"],
        }
        for precision, run in runs.items()
    }
    about = f"{name_browser(report['user_agent'])}, threads: {report['threads']}."
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("precision"), about
