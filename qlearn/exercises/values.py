"""Tables and plain values that are handed in, as JSON; what cannot be, in a sentence."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qlearn.exercises.conditions import conditions_of
from qlearn.exercises.reading import MADE_WITH, VALUE
from qlearn.system.errors import name_error

# What cannot be handed in as it is, by the name of its class.
REMEDIES = {
    "Tensor": "hand in a model, or its tolist()",
    "ndarray": "hand in its tolist()",
    "Index": "hand in its tolist()",
    "Series": "hand in its tolist(), or give its rows texts as names",
    "set": "hand in a list of what is in it",
    "frozenset": "hand in a list of what is in it",
    "DataFrame": "hand it in under a name of its own",
}


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
            value = json.loads(thing.to_json(orient="split"))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"The table {name!r} cannot be written ({name_error(error)}): let its cells hold "
                "plain numbers and texts."
            ) from None
    else:
        value = _plain(thing, name)
    return json.dumps({VALUE: value, MADE_WITH: conditions_of(thing)})


def _plain(value: Any, place: str) -> Any:
    """Return what JSON can hold, or say where something stands that it cannot."""
    import pandas as pd

    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, pd.Series) and all(isinstance(key, str) for key in value.index):
        value = value.to_dict()  # a row of a table
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{place}[{key!r}]") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{place}[{number}]") for number, part in enumerate(value)]
    single = getattr(value, "ndim", None) == 0 or isinstance(value, Tensor) and value.numel() == 1
    if single and isinstance(value.item(), bool | int | float | str):  # of NumPy or PyTorch
        return value.item()
    kind = next((k.__name__ for k in type(value).__mro__ if k.__name__ in REMEDIES), "")
    remedy = REMEDIES.get(kind) or (
        "give a model with example_inputs, a DataFrame, or plain numbers, texts, lists and dicts"
    )
    raise ValueError(f"{place} is a {type(value).__name__}, which cannot be handed in: {remedy}.")
