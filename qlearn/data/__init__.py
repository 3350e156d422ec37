"""Data sets: four embedded ones that need no network, your own, and the famous ones.

Every function returns a ``DataSet``: ``train``, ``test`` and the class names.
"""

from qlearn.data.characters import CHARACTERS, characters
from qlearn.data.common import DataSet, Samples, loaders
from qlearn.data.documentation import CONTEXT, PIECES, decode_text, documentation, encode_text
from qlearn.data.images import digits, image_folder, torchvision_set
from qlearn.data.text import LANGUAGES, LENGTH, VOCABULARY, encode, phrases, text_csv

__all__ = [
    "CHARACTERS",
    "CONTEXT",
    "LANGUAGES",
    "LENGTH",
    "PIECES",
    "VOCABULARY",
    "DataSet",
    "Samples",
    "characters",
    "decode_text",
    "digits",
    "documentation",
    "encode",
    "encode_text",
    "image_folder",
    "loaders",
    "phrases",
    "text_csv",
    "torchvision_set",
]
