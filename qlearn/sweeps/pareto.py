"""Pareto fronts of accuracy against latency and size."""

import numpy as np
import pandas as pd

COSTS = {"latency": "latency_ms", "size": "size_mb"}  # and their columns


def pareto(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the rows that no other row beats in both accuracy and cost.

    A row is beaten, or dominated, when another is at least as accurate and costs at most as much,
    and is better in one of the two. The rule takes the numbers as they stand: a row within the
    error of measurement of the front is off it all the same.

    Parameters
    ----------
    table
        With ``accuracy``, ``latency_ms`` and ``size_mb``, as `compare` and `sweep` return it. Rows
        without numbers are on no front.

    Returns
    -------
    pandas.DataFrame
        The table with two more columns of bool: ``latency_front`` and ``size_front``.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    missing = {"accuracy", *COSTS.values()} - set(getattr(table, "columns", ()))
    if missing:
        raise ValueError(
            f"the table lacks {', '.join(sorted(missing))}: compare() with a test set."
        )
    accuracy = table["accuracy"].to_numpy(float)
    marked = table.copy()
    for name, column in COSTS.items():
        cost = table[column].to_numpy(float)
        marked[f"{name}_front"] = [
            bool(np.isfinite(a) and np.isfinite(c))
            and not np.any((accuracy >= a) & (cost <= c) & ((accuracy > a) | (cost < c)))
            for a, c in zip(accuracy, cost, strict=True)
        ]
    return marked
