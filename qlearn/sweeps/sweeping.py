"""Run through schemes: each has a process of its own, and a row whatever becomes of it."""

import sys
import time
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from qlearn.calibration import require_eval
from qlearn.data import DataSet, loaders
from qlearn.data.batches import as_labels, batches_of
from qlearn.data.common import require_data_set
from qlearn.quantization.schemes import ALL, Scheme
from qlearn.sweeps.row_process import require_sendable, run_row
from qlearn.sweeps.rows import digest_of, keep_row, kept_row, path_of
from qlearn.system.errors import explained, require_positive, require_whole
from qlearn.system.machine_load import NotedTable
from qlearn.training import require_logits, require_numbers

COLUMNS = [
    *("size_mb", "size_ratio", "latency_ms", "q1_ms", "q3_ms", "speedup", "speedup_low"),
    *("speedup_high", "accuracy", "accuracy_change", "standard_error", "agreement"),
    *("float_ms", "make_s", "reason"),  # the widest column is last
]


def sweep(
    model: nn.Module,
    schemes: Iterable[str] | Mapping[str, Scheme],
    data: DataSet,
    *,
    batch: int = 1,
    limit: float | None = None,
    force: bool = False,
) -> pd.DataFrame:
    """Make a model by each scheme and compare it with the float one.

    Each row is made and measured in a process of its own, beside the float model, in interleaved
    rounds. A scheme that fails, is not supported or ends its process is a row without numbers and
    with a reason. Rows are kept in the cache, by the content of the model and the data, the text
    of the scheme, of what it refers to and of the model's methods, the versions, the machine, the
    quantized engine and the threads: asked for again, they are read. What cannot be told apart in
    this way (a model on a GPU, say) is measured every time.

    Parameters
    ----------
    model
        A float model in eval mode, from a batch of inputs to N×classes logits, or
        N×classes×positions for a text. It may be of a class defined in a notebook.
    schemes
        Names of ``qlearn.schemes.ALL``, or a mapping from names to functions of your own, each
        of (model, training loader).
    data
        Samples to calibrate and train with, and to measure accuracy on.
    batch
        Samples in the batch that is timed.
    limit
        Seconds after which no further row is begun: what is in the cache is read all the same,
        the others say that they were not measured. No limit when None.
    force
        Measure again what is in the cache: a row may have met a busy machine.

    Returns
    -------
    pandas.DataFrame
        The columns of `compare`, where ``speedup`` and the like are against the float model of
        the same process; ``float_ms``, the latency of that; ``make_s``, the seconds that the
        scheme took to make the model; and ``reason``, empty where there are numbers.
        ``latency_ms`` and its quartiles are scaled to the median of ``float_ms``, because rows
        are measured at different times. A note under the table names the rows that were measured
        on a busy machine; they are kept all the same, until ``force`` measures them again.

    Raises
    ------
    ValueError
        If a name is unknown, the model is in training mode, fails or cannot be sent to another
        process, the data are no set, the limit is no number, or the test set has fewer samples
        than the batch.
    """
    chosen = _chosen(schemes)
    require_eval(model, "the model")
    require_data_set(data)
    samples = len(data.test)
    if limit:  # 0 reads what is kept
        require_positive("limit", limit)
    require_whole("batch", batch)
    if batch > samples:
        raise ValueError(f"batch is {batch}; it has to be from 1 to {samples}, the test samples.")
    inputs, labels = next(batches_of(loaders(data, batch)[1], model))
    with explained("the model fails"), torch.no_grad():
        require_numbers(require_logits(model(inputs), as_labels(labels, inputs)))
    require_sendable(model)
    content = digest_of(model, data, batch)
    rows, begun = {}, time.monotonic()
    bar = tqdm(chosen.items(), desc="sweep", unit="scheme", file=sys.stdout, ncols=80)
    task = (model, data, batch, torch.get_num_threads(), torch.backends.quantized.engine)
    for name, scheme in bar:
        bar.set_postfix_str(name)
        path = path_of(content, scheme)
        row = None if force or path is None else kept_row(path)
        if row is None and limit is not None and time.monotonic() - begun >= limit:
            row = {"reason": f"not measured: the limit of {limit:g} s was reached"}
        elif row is None:
            row, lasting = run_row(task, scheme)
            if lasting and path is not None:
                keep_row(row, path)
        rows[name] = row
    table = NotedTable.from_dict(rows, orient="index").reindex(columns=COLUMNS)
    # One scale for all latencies: at another time, the machine was slower or faster.
    scale = table["float_ms"].median() / table["float_ms"]
    for column in ("latency_ms", "q1_ms", "q3_ms"):
        table[column] *= scale
    table.attrs = {"note": _note_on([name for name, row in rows.items() if row.get("busy")])}
    return table.rename_axis("scheme")


def _note_on(busy: list[str]) -> str:
    """Say which rows were measured on a busy machine; "" when none was."""
    if not busy:
        return ""
    return (
        f"Note: the machine was busy when {', '.join(busy)} {'was' if len(busy) == 1 else 'were'} "
        "measured: the latency is longer than the model needs, and the speedup holds as far as "
        "its interval allows. With force=True a quiet machine measures all rows again."
    )


def _chosen(schemes: Iterable[str] | Mapping[str, Scheme]) -> dict[str, Scheme]:
    if not isinstance(schemes, Mapping):
        names = [schemes] if isinstance(schemes, str) else list(schemes)
        if unknown := [name for name in names if name not in ALL]:
            raise ValueError(f"there is no scheme {unknown[0]!r}; there are: {', '.join(ALL)}.")
        schemes = {name: ALL[name] for name in names}
    if not schemes:
        raise ValueError(f"schemes is empty; there are: {', '.join(ALL)}.")
    return dict(schemes)
