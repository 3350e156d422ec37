"""Tables and plain values that are handed in, as JSON; what cannot be, in a sentence."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qlearn.exercises.conditions import conditions_of
from qlearn.exercises.reading import MADE_WITH, VALUE

# What cannot be handed in as it is, by the name of its class.
REMEDIES = {
    "Tensor": "hand in a model, or its tolist()",
    "ndarray": "hand in its tolist()",
    "Index": "hand in its tolist()",
    "Series": "hand in its tolist(), or give its rows texts as names",
    "set": "hand in a list of what is in it",
    "frozenset": "hand in a list of what is in it",
    "DataFrame": "hand it in under a name of its own",
    **dict.fromkeys(("date", "time", "timedelta", "datetime64", "timedelta64", "Period", "Interval",
                     "Path", "dtype", "Enum"), "hand in a text, such as its str()"),
    **dict.fromkeys(("Decimal", "Fraction"), "hand in its float()"),
    **dict.fromkeys(("dict_keys", "dict_values", "range", "map", "filter", "zip", "generator",
                     "ExtensionArray"), "hand in a list of it, list(…)"),
    **dict.fromkeys(("function", "method", "builtin_function_or_method", "type"),
                    "call it with parentheses, and hand in what it returns"),
    "ellipsis": "put your answer in its place",
    "NAType": "hand in None",
    "bytes": "write it to a file, and hand in the path",
    "Module": "hand each model in under a name of its own, with example_inputs",
}  # fmt: skip
DIGITS = 4000  # of a whole number; Python reads no more than 4300


def as_json(name: str, thing: Any) -> str:
    """Return a table or a plain value as JSON, with the conditions under which it was made."""
    import pandas as pd

    if isinstance(thing, pd.DataFrame):
        if max(thing.index.nlevels, thing.columns.nlevels) > 1:
            raise ValueError(
                f"The rows or columns of the table {name!r} have names of several levels: "
                'reset_index() makes columns of rows, columns.map("_".join) one name of several.'
            )
    try:
        value = _table(thing, name) if isinstance(thing, pd.DataFrame) else _plain(thing, name)
    except RecursionError:
        raise ValueError(
            f"{name} contains itself, or is nested too deeply: hand in a flat list or dict."
        ) from None
    return json.dumps({VALUE: value, MADE_WITH: conditions_of(thing)})


def _table(table: Any, name: str) -> dict[str, list]:
    """Return columns, index and rows of a table; a missing value is None."""
    columns = [_cell(label, f"{name}.columns[{n}]") for n, label in enumerate(table.columns)]
    index = [_cell(label, f"{name}.index[{n}]") for n, label in enumerate(table.index)]
    # By columns, because a row of numbers and truth values would be of one type.
    by_column = [
        [_cell(value, f"{name}[{row!r}][{column!r}]")
         for row, value in zip(index, table.iloc[:, place], strict=True)]
        for place, column in enumerate(columns)
    ]  # fmt: skip
    data = [list(row) for row in zip(*by_column, strict=True)] if columns else [[] for _ in index]
    return {"columns": columns, "index": index, "data": data}


def _cell(value: Any, place: str) -> Any:
    """Return what JSON can hold of a cell or a label, None for what is missing."""
    import pandas as pd

    plain = None if value is pd.NA or value is pd.NaT else _plain(value, place)
    return None if plain != plain else plain  # NaN


def _plain(value: Any, place: str) -> Any:
    """Return what JSON can hold, or say where something stands that it cannot."""
    import pandas as pd

    if isinstance(value, int) and abs(value) >= 10**DIGITS:
        raise ValueError(f"{place} has more than {DIGITS} digits: hand in a float, or fewer.")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    row = isinstance(value, pd.Series) and all(isinstance(key, str) for key in value.index)
    if row or isinstance(value, Mapping):
        return _entries(value, place)
    if isinstance(value, list | tuple):
        return [_plain(part, f"{place}[{number}]") for number, part in enumerate(value)]
    single = getattr(value, "ndim", None) == 0 or isinstance(value, Tensor) and value.numel() == 1
    if (
        single
        and not getattr(value, "is_meta", False)
        and isinstance(value.item(), bool | int | float | str)
    ):  # of NumPy or PyTorch
        return value.item()
    kind = next((k.__name__ for k in type(value).__mro__ if k.__name__ in REMEDIES), "")
    remedy = REMEDIES.get(kind) or (
        "give a model with example_inputs, a DataFrame, or plain numbers, texts, lists and dicts"
    )
    named = type(value).__name__
    article = "an" if named[0] in "AEIOUaeiou" else "a"
    raise ValueError(f"{place} is {article} {named}, which cannot be handed in: {remedy}.")


def _entries(pairs: Any, place: str) -> dict[str, Any]:
    """Return a dict, or a row of a table, with texts as keys."""
    entries: dict[str, Any] = {}
    for key, part in pairs.items():
        if str(key) in entries:
            raise ValueError(
                f"{place} has two entries {str(key)!r}, as keys become texts: give each its own."
            )
        entries[str(key)] = _plain(part, f"{place}[{key!r}]")
    return entries
