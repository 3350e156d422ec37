"""Texts as character ids: phrases from Babel's CLDR, and a CSV of your own."""

import functools
import unicodedata
from collections import Counter
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor

from qlearn.data.common import DataSet, split
from qlearn.data.csv_file import read_rows
from qlearn.data.labels import as_number, name_labels
from qlearn.system.cache import as_path

LENGTH = 32

LANGUAGES = (
    "cs", "de", "en", "es", "fi", "fr", "hu", "it", "lt", "nl", "pl", "pt", "sv", "tr", "vi",
)  # fmt: skip

# Blocks of Unicode, first and last code point. Fixed rather than collected from the texts, so that
# ids mean the same for every data set and every release of Babel.
_BLOCKS = (
    (0x0020, 0x007E),  # Basic Latin
    (0x00A1, 0x017F),  # Latin-1 Supplement and Latin Extended-A
    (0x01A0, 0x01A1),  # Vietnamese o with horn
    (0x01AF, 0x01B0),  # Vietnamese u with horn
    (0x0218, 0x021B),  # Romanian s and t with comma
    (0x1EA0, 0x1EF9),  # Vietnamese vowels
    (0x2013, 0x2014),  # dashes
    (0x2018, 0x201E),  # quotation marks
    (0x20AC, 0x20AC),  # euro
)
PADDING, UNKNOWN = 0, 1
ALPHABET = {
    chr(point): 2 + index
    for index, point in enumerate(p for first, last in _BLOCKS for p in range(first, last + 1))
}
VOCABULARY = 2 + len(ALPHABET)


def encode(text: str, length: int = LENGTH) -> Tensor:
    """Return a text's character ids, padded on the left.

    Parameters
    ----------
    text
        Any text; characters outside the Latin alphabets become id 1.
    length
        Characters kept, from the start of the text.

    Returns
    -------
    Tensor
        ``length`` ids, int64, less than ``VOCABULARY``; 0 is padding.
    """
    # One code point a letter, however the text was typed, and every white space a space.
    text = " ".join(unicodedata.normalize("NFC", text).split())[:length]
    ids = [ALPHABET.get(character, UNKNOWN) for character in text]
    return torch.tensor([PADDING] * (length - len(text)) + ids, dtype=torch.int64)


def phrases() -> DataSet:
    """Return names of languages, countries, currencies and scripts in 15 languages.

    The class is the language that a phrase is in. A phrase that is the same in several languages
    is left out, as is one of fewer than 4 characters.

    Returns
    -------
    DataSet
        ``LENGTH`` character ids, int64, padded on the left with 0; classes are language codes;
        80 % train and 20 % test, a fixed stratified split.

    References
    ----------
    Unicode CLDR (Unicode licence), as packaged by Babel.
    """
    return split(*_encoded_phrases(), LANGUAGES)


@functools.cache
def _encoded_phrases() -> tuple[Tensor, list[int]]:
    """Return all ids and their labels, made once a process; nobody else may change them."""
    from babel import Locale

    texts = {}
    for language in LANGUAGES:
        names = Locale(language)
        tables = (names.languages, names.territories, names.currencies, names.scripts)
        texts[language] = {phrase for table in tables for phrase in table.values()}
    times = Counter(phrase for found in texts.values() for phrase in found)
    # Sorted, because the order of a set changes from run to run.
    pairs = [
        (phrase, label)
        for label, language in enumerate(LANGUAGES)
        for phrase in sorted(texts[language])
        if times[phrase] == 1 and len(phrase) >= 4
    ]
    return torch.stack([encode(phrase) for phrase, _ in pairs]), [label for _, label in pairs]


def text_csv(
    path: str | Path,
    *,
    text: str | int,
    label: str | int,
    test_share: float = 0.2,
    length: int = 64,
    seed: int = 0,
    sep: str | None = None,
    encoding: str | None = None,
) -> DataSet:
    """Return your own texts from a CSV file (also ``.csv.gz``), as character ids.

    The alphabet is the one of ``phrases()``, so ``encode(text, length)`` and ``VOCABULARY`` fit.
    A text that comes twice is kept once, and one that comes with two labels is left out: no text
    is in both train and test. What was left out is printed.

    Parameters
    ----------
    path
        A CSV file.
    text, label
        Columns: both names, or, for a file without a header line, both positions from 0.
    test_share
        Share of every class that is held out for the test set, between 0 and 1.
    length
        Characters kept of each text.
    seed
        Fixes the split.
    sep
        What stands between columns; a comma when None.
    encoding
        Of the file, as Python names it ("cp1252", "utf-16" …); UTF-8 when None.

    Returns
    -------
    DataSet
        ``length`` character ids, int64, padded on the left with 0; classes are the labels without
        spaces around them, sorted, as numbers if all are numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a CSV of that encoding, a column is missing, a row has too many or too
        few, a text or label is empty, most characters are not Latin, or the classes cannot be
        split.
    """
    if not isinstance(test_share, Real) or not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share!r}; choose a share between 0 and 1, say 0.2.")
    if not isinstance(length, Integral) or isinstance(length, bool) or length < 1:
        raise ValueError(f"length is {length!r}; keep a whole number of characters, at least 1.")
    rows = read_rows(as_path(path), text, label, sep, encoding)
    names = name_labels([row[1] for row in rows])
    texts = [encode(row[0], length) for row in rows]
    _check_alphabet(path, texts)
    kept = _deduplicate(path, texts, names)
    labels = [names[row] for row in kept]
    left = Counter(labels)
    _check_classes(path, {name: left[name] for name in sorted(set(names))}, test_share)
    ids = torch.stack([texts[row] for row in kept])
    numbers = all(as_number(name) is not None for name in labels)
    classes = sorted(set(labels), key=lambda name: (as_number(name) if numbers else 0, name))
    return split(ids, [classes.index(name) for name in labels], classes, test_share, seed)


def _check_alphabet(path: str | Path, texts: list[Tensor]) -> None:
    """Refuse texts of another alphabet, which would all look the same, and count single ones."""
    ids = torch.stack(texts)
    strange, known = (ids == UNKNOWN).sum(1), (ids > UNKNOWN).sum(1)
    share = strange.sum() / (strange + known).sum()
    if share > 0.5:
        raise ValueError(
            f"{share:.0%} of the characters in the texts of {path} are outside the Latin alphabets "
            "of encode() and would all become id 1: transliterate the texts, or check encoding=."
        )
    if count := int((strange > known).sum()):
        print(f"Notice: {count} texts of {path} are mostly outside the Latin alphabets (id 1).")


def _deduplicate(path: str | Path, texts: list[Tensor], names: list[str]) -> list[int]:
    """Return the rows to keep, so that no text is in train and test, and print what is not."""
    rows: dict[tuple, list[int]] = {}
    for row, ids in enumerate(texts):
        rows.setdefault(tuple(ids.tolist()), []).append(row)
    clear = [same for same in rows.values() if len({names[row] for row in same}) == 1]
    kept = [same[0] for same in clear]
    repeated = sum(map(len, clear)) - len(kept)
    mixed = len(texts) - sum(map(len, clear))
    if repeated or mixed:
        print(
            f"Left out of {path}: {repeated} rows whose text (in the characters kept) came before, "
            f"{mixed} whose text has several labels."
        )
    return sorted(kept)


def _check_classes(path: str | Path, counts: dict[str, int], test_share: float) -> None:
    """Refuse what cannot be split into train and test."""
    if len(counts) < 2:
        raise ValueError(
            f"All rows of {path} have the label {next(iter(counts))!r}; a classifier needs at "
            "least 2 classes, so check the label column."
        )
    if len(counts) > max(20, sum(counts.values()) / 2):
        raise ValueError(
            f"The label column of {path} has {len(counts)} different values in "
            f"{sum(counts.values())} rows: a classifier needs a few classes, so check the column, "
            "or sort numbers into ranges first."
        )
    name, least = min(counts.items(), key=lambda item: item[1])
    if least < 2:
        raise ValueError(
            f"The class {name!r} of {path} has only {least} row{'s' * (least != 1)} of its "
            "own; it needs at least 2, one to train and one to test. (If it is the header "
            "line, name the columns.)"
        )
    rows = sum(counts.values())
    if min(test_share, 1 - test_share) * rows < len(counts):
        raise ValueError(
            f"test_share {test_share} of {rows} rows leaves fewer than one row for each of "
            f"{len(counts)} classes; add rows, or choose a share nearer to 0.5."
        )
