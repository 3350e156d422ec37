"""Tables that were measured once and are too dear for a lesson; each names its machine."""

from pathlib import Path

import pandas as pd


def recorded(name: str) -> pd.DataFrame:
    """Return a recorded table, with ``attrs["machine"]``: where and with what it was measured.

    Parameters
    ----------
    name
        "camera" and "reader", for lesson 07: sweeps of its two models. "few_bits", for lesson 08:
        `low_bit_study`, five models in five orders. "compiled", for lesson 09: int8 models
        before and after ``torch.compile``.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    folder = Path(__file__).parent / "tables"
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
        raise ValueError(f"there is no recorded table {name!r}; there are: {known}.")
    with path.open(encoding="utf-8") as lines:
        machine = next(lines).removeprefix("#").strip()
        table = pd.read_csv(lines)
    table.attrs["machine"] = machine
    return table
