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
    assert answer.size_mb <= ratio * megabytes, (
        f"{answer.name!r} has {answer.size_mb:.3g} MB, {answer.size_mb / megabytes:.2f} times the "
        f"{megabytes:.3g} MB that it is compared with; at most {ratio:.2f} times is asked for."
        f"{_needless(answer)}"
    )


def _needless(answer: Answer) -> str:
    """Say what an archive holds that its model does not need; "" when it is nothing much."""
    if answer.path.suffix not in (".ptl", ".pt2"):
        return ""
    with zipfile.ZipFile(answer.path) as archive:
        parts = [part for part in archive.infolist() if part.file_size > 1000]
    if answer.path.suffix == ".ptl":
        once = {(part.file_size, part.CRC) for part in parts}
        twice = sum(part.file_size for part in parts) - sum(size for size, _ in once)
        advice = "stand in it twice, as in the file of a frozen module: save the scripted one."
        return f" {twice / 10**6:.2g} MB {advice}" if twice else ""
    examples = sum(part.file_size for part in parts if "/sample_inputs/" in part.filename)
    advice = "of it are its example inputs: set program.example_inputs = None before you save it."
    return f" {examples / 10**6:.2g} MB {advice}" if examples else ""


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
    percent = 0 < measured <= 1 < claimed and abs(claimed / 100 - measured) <= tolerance
    assert abs(claimed - measured) <= tolerance, (
        f"{what} was given as {claimed:.4g}; computed here it is {measured:.4g}"
        f"{': hand in a share of 1, no percentage' * percent}."
    )


def table_has(answer: Answer, columns: Sequence[str], rows: Sequence[Any] = ()) -> Any:
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
            assert label in there, _lack(answer, what, label, there.tolist())
            assert sum(there == label) == 1, _repeated(answer, what, label)
    return table


def no_rows_but(answer: Answer, rows: Sequence[str]) -> None:
    """Assert that a table has no row beside those for which something was handed in."""
    others = [label for label in answer.load().index if label not in rows]
    assert not others, (
        f"The table {answer.name!r} has a row {str(others[0])[:60]!r}, for which nothing is handed "
        f"in: leave it out, so that its rows are {', '.join(rows)}."
    )


def _lack(answer: Answer, what: str, label: Any, there: list[Any]) -> str:
    shown = ", ".join(map(repr, there[:8])) or "none"
    as_text = not isinstance(label, str) and _as_text(label) in map(_as_text, there)
    return (
        f"The table {answer.name!r} lacks the {what} {label!r}; it has {shown}"
        f"{', …' * (len(there) > 8)}{': a number is a text there, hand in numbers' * as_text}."
    )


def _as_text(label: Any) -> str:
    return " ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _repeated(answer: Answer, what: str, label: Any) -> str:
    return (
        f"The table {answer.name!r} has the {what} {label!r} more than once: hand in one of each."
    )


def numbers_in(
    answer: Answer,
    columns: Sequence[str],
    rows: Sequence[Any] = (),
    infinite: Sequence[str] = (),
    keys: Sequence[str] = (),
) -> Any:
    """Return a table as `table_has` does, with finite numbers in these columns of these rows.

    Parameters
    ----------
    answer
        A DataFrame that was handed in.
    columns, rows
        Labels that must be there; all rows when none is named.
    infinite
        More columns, in which a number may be infinite, as one that is missing counts.
    keys
        Columns that name the rows together; ``rows`` are tuples then.
    """
    columns = [*columns, *infinite]
    table = table_has(answer, [*keys, *columns], () if keys else rows)
    if keys:
        table = _named_by(answer, table, keys, rows)
    repeated = table.index[table.index.duplicated()]
    assert rows or not len(repeated), _repeated(answer, "row", repeated[0])
    chosen = table.loc[list(rows) or table.index, columns]
    checked = [
        [math.inf if column in infinite and _is_missing(value)
         else number(f"{column} of {label!r} in {answer.name!r}", value)
         for column, value in zip(columns, row, strict=True)]
        for label, row in zip(chosen.index, chosen.itertuples(index=False), strict=True)
    ]  # fmt: skip
    return type(chosen)(checked, index=chosen.index, columns=columns)


def _named_by(answer: Answer, table: Any, keys: Sequence[str], rows: Sequence[tuple]) -> Any:
    """Return a table whose rows are named by some of its columns; of several alike the first."""
    for key in keys:
        for value in table[key]:
            assert isinstance(value, str | Real), (
                f"The column {key!r} of {answer.name!r} holds {str(value)[:60]!r}: hand in a "
                "number or a text in each of its rows."
            )
    table = table.drop_duplicates(list(keys)).set_index(list(keys))
    for row in rows:
        assert row in table.index, _lack(answer, "row", row, table.index.tolist())
    return table


def _is_missing(value: Any) -> bool:
    return value is None or isinstance(value, Real) and (math.isnan(value) or value == math.inf)


def text_in(answer: Answer) -> str:
    """Return a text that was handed in."""
    value = answer.load()
    assert isinstance(value, str), (
        f"The answer {answer.name!r} is {answer.article_and_kind}: hand in a text, such as "
        "table.at[row, column] of a table."
    )
    return value


def dict_has(answer: Answer, keys: Sequence[str]) -> dict[str, Any]:
    """Return a dict that has the keys that are asked for."""
    value = answer.load()
    assert isinstance(value, dict), (
        f"The answer {answer.name!r} is {answer.article_and_kind}: hand in a dict"
        f"{' with ' if keys else ''}{', '.join(keys)}."
    )
    missing = [key for key in keys if key not in value]
    assert not missing, (
        f"The dict {answer.name!r} lacks {missing[0]!r}; it has {', '.join(value) or 'nothing'}."
    )
    return value
