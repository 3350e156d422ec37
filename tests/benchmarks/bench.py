"""`make bench`: each technique on each model, and models across engines.

Everything in it is measured when it is made. Nothing here fails because a number disappoints: the
last table says which expectations hold on this machine.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from browser import browser_table, missing
from expectations import expectations_section
from measurements import (
    QUICK,
    Settings,
    engine_table,
    technique_table,
)
from report import (
    INT8_INSTRUCTIONS,
    TITLES,
    Report,
    browser_section,
    engines_section,
    techniques_section,
)

from qlearn.system.errors import explain


@dataclass
class Results:
    """What has been measured so far; the parameters of ``expectations_section``."""

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    engines: dict[str, pd.DataFrame] = field(default_factory=dict)
    browser: pd.DataFrame | None = None


@dataclass(frozen=True)
class Step:
    """One measurement: what it is, and the Markdown of its whole section once it is made."""

    heading: str
    what: str
    measure: Callable[[], str]


def write_report(output: Path | None, quick: bool = False) -> None:
    """Measure, print the report as Markdown, and write it to a file if one is named.

    The file is written after each measurement, so one that fails, or is interrupted, costs nothing
    that was measured before it.

    Parameters
    ----------
    output
        Where to write; folders are made. None prints only.
    quick
        Small models, few rounds: tries the report out.

    Raises
    ------
    SystemExit
        At the end, if something could not be measured.
    """
    steps = _steps(QUICK if quick else Settings())
    title = "# qlearn benchmark" + (" (quick trial: its numbers mean little)" if quick else "")
    headings = list(dict.fromkeys(step.heading for step in steps))
    report = Report(f"{title}\n\n{machine()}", headings, output)
    # Progress bars go to stderr, so that stdout is the report and nothing else.
    with contextlib.redirect_stdout(sys.stderr):
        failures = run(steps, report)
    print(report)
    if failures:
        raise SystemExit("Some of it could not be measured: the report says what.")


def run(steps: Sequence[Step], report: Report) -> int:
    """Make each measurement, write it into the report, and return how many failed."""
    failures = 0
    for number, step in enumerate(steps, 1):
        try:
            report.fill(step.heading, step.measure())
        except Exception as error:  # it must not cost the others
            traceback.print_exc()
            failures += 1
            reason = f"{step.what} could not be measured: {explain(error)}"
            report.failures[step.heading].append(reason)
        if step.heading not in (later.heading for later in steps[number:]):
            report.finish(step.heading)
    return failures


def _steps(settings: Settings) -> list[Step]:
    results = Results()

    def techniques_of(name: str) -> str:
        results.tables[name] = technique_table(name, settings)
        return techniques_section(results.tables)

    def engines_of(name: str, pixels: int) -> str:
        results.engines[name], skipped = engine_table(name, pixels, settings)
        return engines_section(name, results.engines[name], skipped)

    def in_browser() -> str:
        if (reason := missing()) is not None:
            return f"Not measured: {reason}"
        table, about = browser_table(settings.browser_model, settings.browser_rounds)
        results.browser = table if settings.browser_model == "resnet18" else None
        return browser_section(table, about)

    def expectations() -> str:
        return expectations_section(results.tables, results.engines, results.browser)

    steps = [
        Step("Each technique on each model", TITLES[name], partial(techniques_of, name))
        for name in settings.models
    ]
    for name, pixels in settings.engine_models.items():
        heading = f"{TITLES[name]}, {pixels}×{pixels}, batch 1, across engines"
        steps.append(Step(heading, TITLES[name], partial(engines_of, name, pixels)))
    title = TITLES[settings.browser_model]
    steps.append(Step(f"{title} in the browser", "It", in_browser))
    return [*steps, Step("What should hold", "It", expectations)]


def machine() -> str:
    """Return the machine, the versions and the date as Markdown."""
    capabilities = torch.cpu.get_capabilities()
    flags = [key for key in ("avx2", *INT8_INSTRUCTIONS) if capabilities.get(key)]
    names = ("torch", "torchvision", "torchao", "onnxruntime", "executorch", "openvino")
    lines = {
        "CPU": capabilities.get("cpu_name") or platform.processor() or "unknown",
        "cores": f"{os.cpu_count()}, {torch.get_num_threads()} threads used by each engine",
        "instructions": ", ".join(flags) or "none for int8",
        "versions": ", ".join(f"{name} {_version(name)}" for name in names),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    return "\n".join(f"- {key}: {value}" for key, value in lines.items())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write the report here")
    parser.add_argument("--quick", action="store_true", help="small models, few rounds: a trial")
    chosen = parser.parse_args()
    write_report(chosen.output, chosen.quick)


if __name__ == "__main__":
    main()
