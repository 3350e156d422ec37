"""Texts as character ids: phrases from Babel's CLDR, and a CSV of your own."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.data.common import DataSet, split

if TYPE_CHECKING:
    from pandas import Series

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
_IDS = {
    chr(point): 2 + index
    for index, point in enumerate(p for first, last in _BLOCKS for p in range(first, last + 1))
}
VOCABULARY = 2 + len(_IDS)


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
    ids = [PADDING] * (length - len(text)) + [_IDS.get(character, UNKNOWN) for character in text]
    return torch.tensor(ids, dtype=torch.int64)


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
    ids = torch.stack([encode(phrase) for phrase, _ in pairs])
    return split(ids, [label for _, label in pairs], LANGUAGES)


def text_csv(
    path: str | Path,
    *,
    text: str | int,
    label: str | int,
    test_share: float = 0.2,
    length: int = 64,
    seed: int = 0,
) -> DataSet:
    """Return your own texts from a CSV file (also ``.csv.gz``), as character ids.

    The alphabet is the one of ``phrases()``, so ``encode(text, length)`` and ``VOCABULARY`` fit.

    Parameters
    ----------
    path
        A UTF-8 CSV file.
    text, label
        Columns: both names, or, for a file without a header line, both positions from 0.
    test_share
        Share of every class that is held out for the test set, between 0 and 1.
    length
        Characters kept of each text.
    seed
        Fixes the split.

    Returns
    -------
    DataSet
        ``length`` character ids, int64, padded on the left with 0; classes are the labels, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a CSV, a column is missing, a text or label is empty, or the classes
        cannot be split.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; choose a share between 0 and 1, say 0.2.")
    texts, labels = _read(Path(path), text, label)
    classes = sorted(labels.unique())
    counts = labels.value_counts()
    if len(classes) < 2:
        raise ValueError(
            f"All rows of {path} have the label {classes[0]!r}; a classifier needs at least 2 "
            "classes, so check the label column."
        )
    if counts.min() < 2:
        raise ValueError(
            f"The class {counts.idxmin()!r} of {path} has only 1 row; it needs at least 2, one to "
            "train and one to test."
        )
    if min(test_share, 1 - test_share) * len(labels) < len(classes):
        raise ValueError(
            f"test_share {test_share} of {len(labels)} rows leaves fewer than one row for each of "
            f"{len(classes)} classes; add rows, or choose a share nearer to 0.5."
        )
    ids = torch.stack([encode(entry, length) for entry in texts])
    index = {name: number for number, name in enumerate(classes)}
    return split(ids, labels.map(index).tolist(), [str(c) for c in classes], test_share, seed)


def _read(path: Path, text: str | int, label: str | int) -> tuple["Series", "Series"]:
    """Return the CSV's texts and labels, none of them empty, or say what is wrong."""
    import pandas

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.absolute()}; check the path of the CSV.")
    positions = isinstance(text, int) and isinstance(label, int)
    try:
        # keep_default_na: "NA" and "None" are texts like any other; only an empty field is empty.
        rows = pandas.read_csv(path, header=None if positions else 0, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {str(error).strip()}.") from error
    for column in (text, label):
        if column not in rows.columns:
            raise ValueError(
                f"{path} has no column {column!r}; its columns are "
                f"{', '.join(repr(name) for name in rows.columns)}."
            )
    if rows.empty:
        raise ValueError(f"{path} holds no rows; give it some texts and labels.")
    filled = rows[[text, label]].astype(str).apply(lambda column: column.str.strip())
    empty = rows.index[(filled == "").any(axis=1)]
    if len(empty):
        raise ValueError(
            f"{len(empty)} rows of {path} have no text or no label (the first is row "
            f"{empty[0] + 1} of the data); fill them in or remove them."
        )
    return filled[text], rows[label]
