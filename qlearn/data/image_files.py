"""Image files of any kind as RGB pixels, or why one cannot be used."""

import hashlib
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".tif", ".tiff",
    ".webp", ".avif",
)  # fmt: skip

# Folders that a disk station and a Mac add to a copy or an archive.
ADDED = ("@eaDir", "__MACOSX")

# Of train and test: the files, each with its label.
Parts = dict[str, list[tuple[Path, int]]]


class Photographs(Dataset):
    """Image files read one at a time, so that a folder larger than memory can be used.

    An image is turned as its camera noted, scaled to cover ``size`` and cropped at the centre.
    """

    def __init__(self, files: list[tuple[Path, int]], size: tuple[int, int]) -> None:
        self.files = files
        self.size = size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image, 3×height×width float32 in [0, 1], and its label."""
        from PIL import Image, ImageOps
        from torchvision.transforms.v2 import functional

        path, label = self.files[index]
        height, width = self.size
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(to_rgb(image))
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        return functional.to_dtype(
            functional.pil_to_tensor(fitted), torch.float32, scale=True
        ), label


def to_rgb(image: "Image") -> "Image":
    """Return the first frame in 8-bit RGB: scaled to the range of its type, composited on white.

    Raises
    ------
    ValueError
        If the range of its values is not known.
    """
    from PIL import Image

    deep = ";16" in str(image.tile)  # bits of a channel in the file; known before it is read only
    image.load()  # which turns a TIFF already
    turn = image.getexif().get(0x0112)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale(image)
    elif deep:  # of which Pillow has taken the high bytes
        if high := max(top for _, top in image.convert("RGB").getextrema()):
            _check_bits(256 * high + 255)
        if clear := image.info.get("transparency"):
            image.info["transparency"] = tuple(value // 256 for value in clear)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    rgb = image.convert("RGB")
    # Compositing loses the camera's note of how to turn the image.
    if turn:
        rgb.getexif()[0x0112] = turn
    return rgb


def _scale(image: "Image") -> "Image":
    """Return an image of 16-bit integers, or of floats in [0, 1], in 8 bits."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.float64)
    low, high = values.min(), values.max()
    # Pillow also reads 16-bit PNG and PGM files as 32-bit integers.
    sixteen = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    top = 65535 if sixteen else 1
    if not (0 <= low <= high <= top) or (image.mode == "I" and not sixteen):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise ValueError(f"its values are {kind} from {low:g} to {high:g}: save it with 8 bits")
    if sixteen and high:
        _check_bits(high)
    scaled = values * (255 / top)
    if image.format == "TIFF" and sixteen and image.tag_v2.get(262) == 0:  # it says: white is zero
        scaled = 255 - scaled
    if "transparency" in image.info:
        scaled[values == image.info["transparency"]] = 255
    return Image.fromarray(scaled.round().astype(numpy.uint8))


def _check_bits(high: float) -> None:
    """Refuse 10 to 14 bits, which scanners store in files of 16 that do not say so."""
    if high < 2**14:
        raise ValueError(f"its 16-bit values end at {high:g} of 65535: save it with 8 bits")


def check_images(files: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, bytes], int]:
    """Open every file; return why some cannot be used, what the others hold, and how many move.

    Returns
    -------
    tuple
        File → reason; file → a digest of its pixels; the number of files of several frames.
    """
    from PIL import Image, ImageOps
    from tqdm import tqdm

    broken, digests, moving = {}, {}, 0
    # Decoding thousands of photographs takes a while: the bar appears when it takes over 2 s.
    for file in tqdm(list(files), desc="checking images", delay=2, ncols=80, file=sys.stdout):
        try:
            with Image.open(file) as image:
                moving += getattr(image, "n_frames", 1) > 1
                rgb = ImageOps.exif_transpose(to_rgb(image))
                content = str(rgb.size).encode() + rgb.tobytes()
                digests[file] = hashlib.blake2b(content, digest_size=16).digest()
        # Pillow raises OSError for most damage, and the others for some damaged headers.
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            MemoryError,
            Image.DecompressionBombError,
        ) as error:
            broken[file] = _reason(file, error)
    return broken, digests, moving


def _reason(file: Path, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if file.exists() and file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "Pillow does not know what is in it"
    if isinstance(error, Image.DecompressionBombError):
        return "it has too many pixels: save it smaller"
    return str(error).split(" (")[0].rstrip(".")


def describe(files: dict[Path, str]) -> str:
    """Return the number of files, and the first three with their reasons."""
    first = "; ".join(f"{file}: {reason}" for file, reason in list(files.items())[:3])
    more = "; …" if len(files) > 3 else ""
    return f"{len(files)} image{'s' if len(files) > 1 else ''} ({first}{more})"


def find_files(folder: Path) -> list[Path]:
    """Return the files and linked folders under a folder, sorted, without what is hidden."""
    return sorted(
        file
        for file in folder.rglob("*")
        if (not file.is_dir() or file.is_symlink())
        and not any(map(is_hidden, file.relative_to(folder).parts))
    )


def find_folders(path: Path) -> dict[str, Path]:
    """Return the folders in a folder by name; a Mac writes é as two characters, others as one."""
    found = [entry for entry in path.iterdir() if entry.is_dir() and not is_hidden(entry.name)]
    named = {unicodedata.normalize("NFC", entry.name): entry for entry in found}
    if len(named) < len(found):
        raise ValueError(
            f"Two folders in {path} have one name, with its accents written in two ways: move what "
            "is in one into the other."
        )
    return named


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of this name is none of the owner's images."""
    return name.startswith(".") or name in ADDED


def count_suffixes(files: Iterable[Path]) -> str:
    """Return how many files there are of each kind, as "2 .heic, 1 .txt"."""
    kinds = Counter(
        "linked folder" if file.is_dir() else file.suffix.lower() or "without a suffix"
        for file in files
    )
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def find_copies(parts: Parts, digests: dict[Path, bytes]) -> dict[str, set[Path]]:
    """Return what to leave out: images in two classes, and those in train that are in test too."""
    labels: dict[bytes, set[int]] = {}
    for file, label in (pair for pairs in parts.values() for pair in pairs):
        labels.setdefault(digests[file], set()).add(label)
    held = {digests[file] for file, _ in parts["test"]}
    mixed = {
        file for pairs in parts.values() for file, _ in pairs if len(labels[digests[file]]) > 1
    }
    leaked = {file for file, _ in parts["train"] if digests[file] in held} - mixed
    return {"in several classes": mixed, "in train/ and test/, so not in train": leaked}


def report_skipped(
    path: Path, others: Parts, broken: dict[Path, str], copies: dict[str, set[Path]], moving: int
) -> None:
    """Print in a line what of a folder is not used."""
    kinds = count_suffixes(file for pairs in others.values() for file, _ in pairs)
    beside = count_suffixes(
        entry
        for folder in (path, path / "train", path / "test")
        for entry in folder.iterdir()
        if entry.is_file() and not is_hidden(entry.name)
    )
    folders = sorted(
        f"{entry.name}/" for entry in path.iterdir()
        if entry.is_dir() and not is_hidden(entry.name) and entry.name not in others
    )  # fmt: skip
    notes = [
        f"{kinds} (save as PNG or JPEG what is to be used)" if kinds else "",
        f"{beside} beside the class folders" if beside else "",
        f"{', '.join(folders[:4])} beside train/ and test/" if folders else "",
        f"{describe(broken)} cannot be read" if broken else "",
        *(f"{len(files)} images {where}" for where, files in copies.items() if files),
        f"all frames but the first of {moving} images" if moving else "",
    ]
    if any(notes):
        print(f"Skipped in {path}: {'; '.join(filter(None, notes))}.")
