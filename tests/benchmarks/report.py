"""The Markdown of ``make bench``: tables from measured DataFrames, in a file that grows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from qlearn.system.cache import write_whole

FLOAT, DYNAMIC, STATIC = "float", "dynamic int8", "static int8, per channel"
TITLES = {
    "mlp": "MLP",
    "small_cnn": "SmallCNN",
    "depthwise_cnn": "DepthwiseCNN",
    "phrase_lstm": "PhraseLSTM",
    "resnet18": "ResNet-18",
    "mobilenet_v2": "MobileNetV2",
}
# How a model that is no base model of the course was made.
ORIGINS = {
    "mobilenet_v2": (
        "MobileNetV2 is trained for 200 steps on the digits at 64×64, so that int8 has something "
        "to represent; at 224×224 it is no judge of digits, so compare engines by SQNR. Its int8 "
        "forms have weights per channel and are calibrated on 16 training images."
    )
}
# Dot products of int8, without which int8 is smaller but hardly faster.
INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "dot", "i8mm")


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def techniques_section(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return one table of all models' ``compare`` tables."""
    headers = ("model", "technique", "MB", "times smaller", "ms", "times faster [95 %]",
               "accuracy %", "change, points ± standard error")  # fmt: skip
    rows = [
        (
            TITLES[name],
            form,
            f"{row.size_mb:.3f}",
            f"{row.size_ratio:.2f}",
            _milliseconds(row),
            f"{row.speedup:.2f} [{row.speedup_low:.2f}, {row.speedup_high:.2f}]",
            f"{100 * row.accuracy:.1f}",
            f"{100 * row.accuracy_change:+.2f} ± {100 * row.standard_error:.2f}",
        )
        for name, table in tables.items()
        for form, row in table.iterrows()
    ]
    note = (
        f"Batch 1, PyTorch's {torch.backends.quantized.engine} engine; ms: median and quartiles. "
        "ResNet-18 is timed at 224×224 and judged at 28×28. FX mode leaves an nn.LSTM in "
        "float, so PhraseLSTM's static row has only its classifier in int8."
    )
    return markdown(headers, rows) + "\n\n" + note


def engines_section(name: str, table: pd.DataFrame, skipped: Mapping[str, str]) -> str:
    """Return a model's table of engines, those left out at its end with the reason."""
    headers = ("engine", "MB", "of its fp32's", "ms", "times its own fp32 [95 %]",
               "times eager fp32 [95 %]", "times the fastest fp32 [95 %]", "SQNR dB",
               "top-1 alike %")  # fmt: skip
    rows = [
        (
            engine,
            f"{row.size_mb:.2f}",
            number(row.own_size, ".3f"),
            _milliseconds(row),
            *(ratio(row, column) for column in ("own", "eager", "best")),
            f"{row.sqnr_db:.1f}",
            f"{100 * row.top1:.0f}",
        )
        for engine, row in table.iterrows()
    ]
    rows += [(engine, reason, *[""] * 7) for engine, reason in skipped.items()]
    note = (
        "One process an engine, timed in interleaved rounds; median and quartiles over "
        f"rounds. The fastest fp32 is {fastest(table, 'fp32')}. SQNR and top-1: of the outputs "
        f"against eager fp32's. {ORIGINS.get(name, '')}"
    ).rstrip()
    return markdown(headers, rows) + "\n\n" + note


def browser_section(table: pd.DataFrame, about: str) -> str:
    """Return the table of what the phone lab's page measured in this machine's Chromium."""
    headers = ("precision", "MB", "of its fp32's", "ms", "times its own fp32",
               "SQNR dB against the host", "top-1 alike %")  # fmt: skip
    rows = [
        (
            precision,
            f"{row.size_mb:.2f}",
            f"{row.own_size:.3f}",
            _milliseconds(row),
            f"{row.own:.2f}",
            f"{row.sqnr_db:.1f}",
            f"{100 * row.top1:.0f}",
        )
        for precision, row in table.iterrows()
    ]
    note = (
        f"{about} The page times both precisions in turns; SQNR and top-1: of the outputs against "
        "ONNX Runtime's on this machine, of the same file."
    )
    return markdown(headers, rows) + "\n\n" + note


def number(value: float, form: str) -> str:
    """Return a number in a format, a dash if it is nan."""
    return "–" if pd.isna(value) else format(value, form)


def ratio(row: pd.Series, column: str) -> str:
    """Return a ratio with its interval, a dash if there is none."""
    if pd.isna(row[column]):
        return "–"
    return f"{row[column]:.2f} [{row[column + '_low']:.2f}, {row[column + '_high']:.2f}]"


def _milliseconds(row: pd.Series) -> str:
    return f"{row.latency_ms:.3g} [{row.q1_ms:.3g}, {row.q3_ms:.3g}]"


def fastest(table: pd.DataFrame, precision: str) -> str:
    """Return the name of the engine with the lowest median at this precision."""
    return table.loc[table["precision"] == precision, "latency_ms"].idxmin()


class Report:
    """A Markdown file that is whole after every measurement, and says what is still missing.

    Parameters
    ----------
    opening
        What comes before the first section.
    headings
        Of the sections, in order.
    output
        The file to write, again after each change; folders are made. None writes none.
    """

    def __init__(self, opening: str, headings: Sequence[str], output: Path | None) -> None:
        self._opening, self._output = opening, output
        self._sections = dict.fromkeys(headings, "")
        self._unfinished = set(self._sections)
        self.failures: dict[str, list[str]] = {heading: [] for heading in self._sections}

    def fill(self, heading: str, text: str) -> None:
        """Replace the text of a section."""
        self._sections[heading] = text
        self._write()

    def finish(self, heading: str) -> None:
        """Say that nothing more will be measured for a section."""
        self._unfinished.discard(heading)
        self._write()

    def __str__(self) -> str:
        """Return the report as far as it is."""
        parts = [self._opening]
        for heading, text in self._sections.items():
            parts += [f"## {heading}", *filter(None, [text]), *self.failures[heading]]
            if heading in self._unfinished:
                parts.append("*Not finished: the measurement is running, or was stopped.*")
        return "\n\n".join(parts) + "\n"

    def _write(self) -> None:
        if self._output is not None:
            with write_whole(self._output) as unfinished:
                unfinished.write_text(str(self), encoding="utf-8")
