"""The Markdown of ``make bench``: tables from measured DataFrames, and what should hold of them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from qlearn.bench.engines import EAGER

FLOAT, DYNAMIC, STATIC = "float", "dynamic int8", "static int8, per channel"
PTQ4, QAT4 = "4-bit PTQ, per tensor", "4-bit QAT, per tensor"
TITLES = {
    "mlp": "MLP",
    "small_cnn": "SmallCNN",
    "depthwise_cnn": "DepthwiseCNN",
    "phrase_lstm": "PhraseLSTM",
    "resnet18": "ResNet-18",
}
# Dot products of int8, without which int8 is smaller but hardly faster.
INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "dot", "i8mm")
RESAMPLES = 2000  # of the bootstrap over test samples


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
        f"Batch 1, PyTorch's {torch.backends.quantized.engine} engine; ms: median ± interquartile "
        "range. ResNet-18 is timed at 224×224 and judged at 28×28. Weights of 4 "
        "bits are stored in bytes. FX mode leaves an nn.LSTM in float, so PhraseLSTM's static row "
        "has only its classifier in int8."
    )
    return markdown(headers, rows) + "\n\n" + note


def engines_section(table: pd.DataFrame, skipped: Mapping[str, str]) -> str:
    """Return the table of engines, those left out at its end with the reason."""
    headers = ("engine", "MB", "ms", "times eager fp32 [95 %]", "times the fastest fp32 [95 %]",
               "SQNR dB")  # fmt: skip
    rows = [
        (
            name,
            f"{row.size_mb:.2f}",
            _milliseconds(row),
            f"{row.eager:.2f} [{row.eager_low:.2f}, {row.eager_high:.2f}]",
            f"{row.best:.2f} [{row.best_low:.2f}, {row.best_high:.2f}]",
            f"{row.sqnr_db:.1f}",
        )
        for name, row in table.iterrows()
    ]
    rows += [(name, reason, "", "", "", "") for name, reason in skipped.items()]
    note = (
        "One process an engine, timed in interleaved rounds; median ± interquartile range over "
        f"rounds. The fastest fp32 is {fastest(table, 'fp32')}. SQNR: of the output against eager "
        "fp32's."
    )
    return markdown(headers, rows) + "\n\n" + note


def _milliseconds(row: pd.Series) -> str:
    return f"{row.latency_ms:.3g} ± {row.spread_ms:.2g}"


def fastest(table: pd.DataFrame, precision: str) -> str:
    """Return the name of the engine with the lowest median at this precision."""
    return table.loc[table["precision"] == precision, "latency_ms"].idxmin()


def four_bits_section(runs: Mapping[int, pd.DataFrame]) -> str:
    """Return the accuracies of each seed's float, PTQ and QAT models, and their mean."""
    accuracies = {str(seed): correct.mean() for seed, correct in runs.items()}
    accuracies["mean"] = pd.DataFrame(accuracies).mean(axis=1)
    rows = [
        (seed, *(f"{100 * row[form]:.2f}" for form in (FLOAT, PTQ4, QAT4)))
        for seed, row in accuracies.items()
    ]
    note = "Accuracy in %; each seed trains its own float model, and QAT starts from that."
    return markdown(("seed", FLOAT, PTQ4, QAT4), rows) + "\n\n" + note


def recovery(runs: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Say how much accuracy 4-bit PTQ loses, and what share of it QAT wins back.

    Parameters
    ----------
    runs
        For each seed: one row a test sample, one column a form, True where it was right.

    Returns
    -------
    dict
        ``lost`` in [0, 1], mean over seeds, its ``standard_error`` (bootstrap over test samples,
        the same for all seeds), ``share`` (nan if nothing was lost) and its 95 % interval
        ``low`` … ``high``, nan unless PTQ loses in all but 2.5 % of the resamples.
    """
    right = sum(run[[FLOAT, PTQ4, QAT4]].to_numpy(dtype=float) for run in runs) / len(runs)
    samples = np.random.default_rng(0).integers(len(right), size=(RESAMPLES, len(right)))
    resampled = right[samples].mean(axis=1)
    result = {"standard_error": float(np.std(resampled[:, 0] - resampled[:, 1]))}
    lost, won = right[:, 0] - right[:, 1], right[:, 2] - right[:, 1]
    result["lost"] = float(lost.mean())
    result["share"] = float(won.mean() / lost.mean()) if lost.mean() > 0 else np.nan
    losses = resampled[:, 0] - resampled[:, 1]
    result["low"] = result["high"] = np.nan
    if np.percentile(losses, 2.5) > 0:
        kept = losses > 0
        shares = (resampled[kept, 2] - resampled[kept, 1]) / losses[kept]
        result["low"], result["high"] = map(float, np.percentile(shares, [2.5, 97.5]))
    return result


def expectations_section(
    tables: Mapping[str, pd.DataFrame],
    engines: pd.DataFrame | None,
    correct: Sequence[pd.DataFrame],
) -> str:
    """Hold the measured tables against what the course expects of a CPU with VNNI.

    Parameters
    ----------
    tables
        Model → ``compare`` table of its techniques.
    engines
        ResNet-18 on each engine; None if it was not measured.
    correct
        For each seed, what ``recovery`` takes.
    """
    rows = [_size(tables), *_speeds(engines), _accuracy(tables), _recovered(correct)]
    return markdown(("expectation", "measured", "verdict"), rows)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def _size(tables: Mapping[str, pd.DataFrame]) -> tuple[str, str, str]:
    expected = "ResNet-18 static int8 is at least 3.9 times smaller"
    if "resnet18" not in tables:
        return expected, "not measured", "–"
    ratio = tables["resnet18"].loc[STATIC, "size_ratio"]
    return expected, f"{ratio:.2f}", _verdict(ratio >= 3.9)


def _speeds(engines: pd.DataFrame | None) -> Iterable[tuple[str, str, str]]:
    """Compare the fastest int8 engine with the fastest fp32 engine, and with eager fp32."""
    expected = "ResNet-18's fastest int8 path is at least {} times as fast as {}"
    if engines is None:
        for least, other in ((3, "the fastest fp32 path"), (4.5, EAGER)):
            yield expected.format(least, other), "not measured", "–"
        return
    capabilities = torch.cpu.get_capabilities()
    possible = any(capabilities.get(name) for name in INT8_INSTRUCTIONS)
    name, base = fastest(engines, "int8"), fastest(engines, "fp32")
    row = engines.loc[name]
    for column, least, other in (
        ("best", 3, "the fastest fp32 path"),
        ("eager", 4.5, EAGER),
    ):
        measured = f"{row[column]:.2f} [{row[column + '_low']:.2f}, {row[column + '_high']:.2f}]"
        measured += f" ({name} against {base if column == 'best' else EAGER})"
        verdict = _verdict(row[column] >= least) if possible else "not expected here: no VNNI"
        yield expected.format(least, other), measured, verdict


def _accuracy(tables: Mapping[str, pd.DataFrame]) -> tuple[str, str, str]:
    changes = {name: table.loc[STATIC, "accuracy_change"] for name, table in tables.items()}
    worst = min(changes, key=changes.get)
    error = tables[worst].loc[STATIC, "standard_error"]
    return (
        "8-bit static PTQ loses at most 0.3 points, on every model",
        f"{100 * changes[worst]:+.2f} ± {100 * error:.2f} (the worst: {TITLES[worst]})",
        _verdict(changes[worst] >= -0.003),
    )


def _recovered(correct: Sequence[pd.DataFrame]) -> tuple[str, str, str]:
    found = recovery(correct)
    expected = f"4-bit QAT recovers at least 80 % of what 4-bit PTQ lost (seeds: {len(correct)})"
    lost = f"PTQ lost {100 * found['lost']:.2f} ± {100 * found['standard_error']:.2f} points"
    if np.isnan(found["low"]):
        return expected, lost, "undecided: too little was lost to divide by"
    measured = f"{100 * found['share']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"
    return expected, f"{measured}; {lost}", _verdict(found["share"] >= 0.8)
