"""The documentation that every CPython carries, in pieces of which a model guesses the next."""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qlearn.data.common import DataSet

# The vocabulary: 96 characters, and 416 frequent pieces of the training text, found by byte-pair
# encoding (Sennrich et al. 2016, arXiv 1508.07909). Both are fixed, so that ids mean the same in
# every release of Python.
_CHARACTERS = "\n" + "".join(map(chr, range(0x20, 0x7F)))
PIECES = (*_CHARACTERS, *json.loads(Path(__file__).with_name("pieces.json").read_text("utf-8")))
_LONGEST_FIRST = sorted(PIECES, key=len, reverse=True)
_PIECE = re.compile("|".join(map(re.escape, _LONGEST_FIRST)))
_IDS = {piece: index for index, piece in enumerate(PIECES)}
CONTEXT = 128  # pieces
TEST_SHARE = 8  # one paragraph in so many is held out
_TYPOGRAPHY = str.maketrans("“”‘’–—…", "\"\"''--.")


@dataclass(frozen=True)
class Windows(Dataset):
    """Stretches of a text, each with the same stretch one piece further on.

    Attributes
    ----------
    ids
        The text, int64.
    length
        Pieces of a stretch.
    stride
        Pieces from the start of one stretch to the start of the next.
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
    """Return the ids of a text's pieces, the longest that fit; unknown characters are left out.

    Returns
    -------
    Tensor
        int64, less than ``len(PIECES)``. `decode_text` is the way back.
    """
    found = _PIECE.findall(text.translate(_TYPOGRAPHY))
    return torch.tensor([_IDS[piece] for piece in found], dtype=torch.int64)


def decode_text(ids: Tensor) -> str:
    """Return the text of some ids, one dimension."""
    return "".join(PIECES[index] for index in ids)


def documentation(context: int = CONTEXT) -> DataSet:
    """Return the help topics of this Python: what ``help("for")`` prints, and the like.

    Paragraphs that stand in several topics are taken once. One in eight is held out, by a hash of
    its text: the same ones in every release of Python.

    Parameters
    ----------
    context
        Pieces of a sample; a piece has 2.5 characters on average.

    Returns
    -------
    DataSet
        Inputs: ``context`` ids of pieces, int64; labels: as many, the id that follows each.
        Training samples overlap by half, test samples (over 40,000 characters) do not. The classes
        are the 512 pieces.

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
    return DataSet(Windows(train, context, stride), Windows(test, context, context), PIECES)
