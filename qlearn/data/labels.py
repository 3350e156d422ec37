"""Labels of a CSV as the names of classes: which are one, and which only look so."""

import itertools
import re
import unicodedata
from collections import Counter
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

# What programs write for a missing value.
MISSING = ("nan", "none", "null", "n/a", "#n/a", "na")


def as_number(name: str) -> Decimal | None:
    """Return the exact value of a label, None if it is no finite number."""
    try:
        value = Decimal(name)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def name_labels(labels: list[str]) -> list[str]:
    """Return the class of each row; 1 and 1.0 are one, and any other two spellings are two."""
    labels = [_name_label(unicodedata.normalize("NFC", label)) for label in labels]
    alike = sorted(set(labels), key=lambda name: (_look(name), name))
    same = [pair for pair in itertools.pairwise(alike) if _look(pair[0]) == _look(pair[1])]
    if same:
        first, second = map(ascii, same[0])
        print(f"Notice: {first} and {second} are two classes; write them alike if not meant.")
    for name, count in Counter(labels).items():
        if name.casefold() in MISSING:
            print(f"Notice: {name!r} is a class of {count} rows; remove them if it means missing.")
    return labels


def _name_label(label: str) -> str:
    """Return a whole number without its decimal point, anything else as it was written.

    A version 3.10 is not 3.1, and a code 007 is not 7.
    """
    found = re.fullmatch(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?", label)
    return label if found is None else "0" if found[1] == "-0" else found[1]


def _look(name: str) -> str:
    """Return a label as it looks: without case, wide forms and characters that take no room.

    Of a number it is the value.
    """
    if (value := as_number(name)) is not None:
        every = Context(prec=len(name), Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])  # digit counts
        return str(value.normalize(every)) if value else "0"
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(character for character in folded if unicodedata.category(character) != "Cf")
