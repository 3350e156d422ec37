"""The documentation that every CPython carries, as characters of which a model guesses the next."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qlearn.data.common import DataSet

CHARACTERS = "\n" + "".join(map(chr, range(0x20, 0x7F)))  # fixed, so that ids mean the same always
CONTEXT = 128
TEST_SHARE = 8  # one paragraph in so many is held out
_TYPOGRAPHY = str.maketrans("“”‘’–—…", "\"\"''--.")


@dataclass(frozen=True)
class Windows(Dataset):
    """Stretches of a text, each with the same stretch one character further on.

    Attributes
    ----------
    ids
        The text, int64.
    length
        Characters of a stretch.
    stride
        Characters from the start of one stretch to the start of the next.
    """

    ids: Tensor
    length: int
    stride: int

    def __len__(self) -> int:
        """Return the number of whole stretches."""
        return max(0, (len(self.ids) - 1 - self.length) // self.stride + 1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return ``length`` ids, and for each of them the id that follows."""
        start = range(len(self))[index] * self.stride  # a range refuses what is outside
        piece = self.ids[start : start + self.length + 1]
        return piece[:-1], piece[1:]


def encode_text(text: str) -> Tensor:
    """Return a text's ids, int64, less than ``len(CHARACTERS)``; unknown characters are left out.

    ``"".join(CHARACTERS[i] for i in ids)`` is the way back.
    """
    places = map(CHARACTERS.find, text.translate(_TYPOGRAPHY))
    return torch.tensor([place for place in places if place >= 0], dtype=torch.int64)


def documentation(context: int = CONTEXT) -> DataSet:
    """Return the help topics of this Python: what ``help("for")`` prints, and 78 more pages.

    Paragraphs that stand in several topics are taken once. One in eight is held out, by a hash of
    its text: the same ones in every release of Python.

    Parameters
    ----------
    context
        Characters of a sample.

    Returns
    -------
    DataSet
        Inputs: ``context`` character ids, int64; labels: as many, the id that follows each.
        Training samples overlap by half, test samples (over 40,000 characters) do not. The classes
        are the 96 characters.

    Raises
    ------
    ValueError
        If ``context`` is less than 1 or longer than the held-out text.

    References
    ----------
    The Python Language Reference, in ``pydoc_data.topics`` (PSF License).
    """
    from pydoc_data.topics import topics

    pages = (topics[name].split("\n\n") for name in sorted(topics))
    paragraphs = dict.fromkeys(paragraph.strip("\n") for page in pages for paragraph in page)
    parts: tuple[list, list] = [], []
    for paragraph in paragraphs:
        parts[zlib.crc32(paragraph.encode()) % TEST_SHARE == 0].append(paragraph)
    train, test = (encode_text("\n\n".join(part)) for part in parts)
    if not 1 <= context < len(test):
        raise ValueError(f"context is {context}; choose a length from 1 to {len(test) - 1}.")
    stride = max(1, context // 2)
    return DataSet(
        Windows(train, context, stride), Windows(test, context, context), tuple(CHARACTERS)
    )
