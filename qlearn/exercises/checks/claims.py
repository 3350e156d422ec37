"""Assertions about numbers and tables that were handed in: claims, until they are measured."""

import math
import zipfile
from collections.abc import Sequence
from numbers import Real
from typing import Any

from qlearn.exercises import Answer


def smaller_than(answer: Answer, megabytes: float, ratio: float = 1.0) -> None:
    """Assert that the file is at most ``ratio`` times ``megabytes``.

    Parameters
    ----------
    megabytes
        What it is compared with, in MB (10**6 bytes), measured the same way.
    ratio
        At most so many times that.
    """
    twice = _stored_twice(answer)
    reason = (
        f" {twice:.2g} MB stand in it twice, as in the file of a frozen module: save the scripted "
        "one."
    )
    assert answer.size_mb <= ratio * megabytes, (
        f"{answer.name!r} has {answer.size_mb:.3g} MB, {answer.size_mb / megabytes:.2f} times the "
        f"{megabytes:.3g} MB that it is compared with; at most {ratio:.2f} times is asked for."
        f"{reason if twice else ''}"
    )


def _stored_twice(answer: Answer) -> float:
    """Return the MB that a file of the lite interpreter holds more than once."""
    if answer.path.suffix != ".ptl":
        return 0.0
    with zipfile.ZipFile(answer.path) as archive:
        parts = [(part.file_size, part.CRC) for part in archive.infolist() if part.file_size > 1000]
    return (sum(size for size, _ in parts) - sum(size for size, _ in set(parts))) / 10**6


def number(what: str, value: Any) -> float:
    """Return a number that was handed in; it is refused in a sentence when it is none.

    Parameters
    ----------
    what
        What it is the number of, for the sentence.
    """
    plain = isinstance(value, Real) and not isinstance(value, bool)
    assert plain and math.isfinite(value), (
        f"{what} must be a finite number, and {str(value)[:60]!r} is none: hand in a number, no "
        "text and no missing value."
    )
    return float(value)


def claim_close(what: str, claimed: Any, measured: float, tolerance: float) -> None:
    """Assert that a number that was handed in is what is measured here.

    Parameters
    ----------
    what
        What it is the number of, for the sentence.
    """
    claimed = number(what, claimed)
    assert abs(claimed - measured) <= tolerance, (
        f"{what} was given as {claimed:.4g}; measured from the artifact it is {measured:.4g}."
    )


def table_has(answer: Answer, columns: Sequence[str], rows: Sequence[str] = ()) -> Any:
    """Return a table that has the columns and rows that are asked for.

    Parameters
    ----------
    answer
        A DataFrame that was handed in.
    columns, rows
        Labels that must be there, once each; others may be too.
    """
    import pandas as pd

    table = answer.load()
    assert isinstance(table, pd.DataFrame), (
        f"The answer {answer.name!r} is no table: hand in a DataFrame."
    )
    for what, wanted, there in (("column", columns, table.columns), ("row", rows, table.index)):
        for label in wanted:
            assert label in there, (
                f"The table {answer.name!r} lacks the {what} {label!r}; it has "
                f"{', '.join(map(str, there)) or 'none'}."
            )
            assert sum(there == label) == 1, (
                f"The table {answer.name!r} has the {what} {label!r} more than once."
            )
    return table


def numbers_in(answer: Answer, columns: Sequence[str], rows: Sequence[str] = ()) -> Any:
    """Return a table as `table_has` does, with finite numbers in these columns of these rows.

    Parameters
    ----------
    answer
        A DataFrame that was handed in.
    columns, rows
        Labels that must be there; all rows when none is named.
    """
    table = table_has(answer, columns, rows)
    chosen = table.loc[list(rows) if rows else table.index, list(columns)]
    checked = [
        [number(f"{column} of {label!r} in {answer.name!r}", value)
         for column, value in zip(columns, row, strict=True)]
        for label, row in zip(chosen.index, chosen.itertuples(index=False), strict=True)
    ]  # fmt: skip
    return type(chosen)(checked, index=chosen.index, columns=list(columns))


def dict_has(answer: Answer, keys: Sequence[str]) -> dict[str, Any]:
    """Return a dict that has the keys that are asked for."""
    value = answer.load()
    assert isinstance(value, dict), (
        f"The answer {answer.name!r} is a {answer.kind}: hand in a dict"
        f"{' with ' if keys else ''}{', '.join(keys)}."
    )
    missing = [key for key in keys if key not in value]
    assert not missing, (
        f"The dict {answer.name!r} lacks {missing[0]!r}; it has {', '.join(value) or 'nothing'}."
    )
    return value
