"""Images: scikit-learn's digits, a folder of your own, and torchvision's famous sets."""

import functools
import operator
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from qlearn.data.common import DataSet, split
from qlearn.data.image_files import (
    SUFFIXES,
    Parts,
    Photographs,
    check_images,
    count_suffixes,
    describe,
    find_copies,
    find_files,
    find_folders,
    report_skipped,
)
from qlearn.system.cache import as_path, home

# Name: torchvision's class, and where under the root its files go when copied by hand.
TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": ("KMNIST", "KMNIST/raw"),
    "cifar10": ("CIFAR10", "."),
    "cifar100": ("CIFAR100", "."),
}


def digits(channels: int = 1) -> DataSet:
    """Return scikit-learn's 1,797 handwritten digits, upsampled from 8×8 to 28×28 pixels.

    Parameters
    ----------
    channels
        1 for grey images; 3 repeats the grey channel, for models that take colour.

    Returns
    -------
    DataSet
        Images channels×28×28, float32 in [0, 1]; 80 % train and 20 % test, a fixed stratified
        split.

    Raises
    ------
    ValueError
        If ``channels`` is neither 1 nor 3.

    References
    ----------
    sklearn.datasets.load_digits: the test part of UCI's Optical Recognition of Handwritten Digits
    (Alpaydin and Kaynak 1998, CC BY 4.0).
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; digits come with 1 (grey) or 3 (repeated).")
    images, labels = _grey_digits()
    return split(images.repeat(1, channels, 1, 1), labels, [str(n) for n in range(10)])


@functools.cache
def _grey_digits() -> tuple[Tensor, Tensor]:
    """Return all images and their labels, read once a process; nobody else may change them."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.as_tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(small, size=28, mode="bilinear")
    return images, torch.as_tensor(raw.target)


def image_folder(
    path: str | Path, size: tuple[int, int] | int, skip_broken: bool = False
) -> DataSet:
    """Return your own images: ``path/train/CLASS/*.jpg`` and ``path/test/CLASS/*.jpg``.

    Every image is opened once here, and again, one at a time, when it is used. 16-bit images and
    floats in [0, 1] are scaled, transparency is put on white, and of several frames the first is
    taken. An image that lies in two classes is left out, as is one of ``train`` that is in
    ``test`` too. What was left out is printed.

    Parameters
    ----------
    path
        A folder with ``train`` and ``test``, each with one folder a class.
    size
        (height, width) in pixels, or one number for a square; images are scaled and cropped to it.
    skip_broken
        Leave out images that cannot be read, and print which, instead of raising.

    Returns
    -------
    DataSet
        RGB images 3×height×width, float32 in [0, 1]; classes are the folders' names, sorted.

    Raises
    ------
    FileNotFoundError
        If ``path``, ``train`` or ``test`` is missing.
    ValueError
        If a class has no images, train and test have different classes, or an image is broken.
    """
    path, size = as_path(path), _pair(size)
    classes = _classes(path)
    found = {
        part: [
            (file, label)
            for label, name in enumerate(classes)
            for file in find_files(find_folders(path / part)[name])
        ]
        for part in ("train", "test")
    }
    parts = _filter(found, _is_image)
    broken, digests, moving = check_images(file for pairs in parts.values() for file, _ in pairs)
    if broken and not skip_broken:
        raise ValueError(
            f"{describe(broken)} cannot be read; fix or remove what is broken, or leave it out "
            "with skip_broken=True."
        )
    parts = _filter(parts, lambda file: file not in broken)
    copies = find_copies(parts, digests)
    others = _filter(found, lambda file: not _is_image(file))
    report_skipped(path, others, broken, copies, moving)
    left_out = set().union(*copies.values())
    parts = _filter(parts, lambda file: file not in left_out)
    _check_filled(parts, found, path, classes, copies)
    return DataSet(Photographs(parts["train"], size), Photographs(parts["test"], size), classes)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.is_dir()


def _filter(parts: Parts, keep: Callable[[Path], bool]) -> Parts:
    return {part: [pair for pair in pairs if keep(pair[0])] for part, pairs in parts.items()}


def _pair(size: tuple[int, int] | int) -> tuple[int, int]:
    """Return height and width, or say that they are none."""
    try:
        pair = (size, size) if not isinstance(size, tuple | list) else tuple(size)
        height, width = (operator.index(side) for side in pair)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"size is {size!r}; give whole numbers of pixels, as 64 or (height, width)."
        ) from error
    if min(height, width) < 1:
        raise ValueError(f"size is {size}; height and width are at least 1 pixel.")
    return height, width


def _check_filled(
    parts: Parts,
    found: Parts,
    path: Path,
    classes: tuple[str, ...],
    copies: dict[str, set[Path]],
) -> None:
    for part, pairs in parts.items():
        held = {label for _, label in pairs}
        for label, name in enumerate(classes):
            if label not in held:
                files = [file for file, other in found[part] if other == label]
                reasons = [why for why, left in copies.items() if not left.isdisjoint(files)]
                kinds = f"{count_suffixes(files)} ({'; '.join(reasons)})".removesuffix(" ()")
                raise ValueError(
                    f"The class folder {path / part / name} holds {kinds or 'nothing'}, and no "
                    f"readable image of its own; save some as PNG or JPEG ({', '.join(SUFFIXES)} "
                    "are read), or remove the class from train and test."
                )


def _classes(path: Path) -> tuple[str, ...]:
    """Return the class names of an image folder, or say what is wrong with its layout."""
    if path.is_file():
        raise ValueError(
            f"{path} is a file; unpack it first, and give the folder that comes of it."
        )
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path.absolute()}; give one that holds train/ and test/."
        )
    found = find_folders(path).keys()
    for part in ("train", "test"):
        if other := next((name for name in found if name != part == name.lower()), None):
            raise FileNotFoundError(f"{path} holds {other}/; rename it to {part}/.")
    if not found & {"train", "test"} and found:
        raise FileNotFoundError(
            f"{path} holds {', '.join(sorted(found)[:4])} but no train/ and test/; if these are "
            "the classes, move them into train/ and put some images of each into test/."
        )
    for part in ("train", "test"):
        if part not in found:
            raise FileNotFoundError(
                f"{path} has no folder {part}/; add it, with one folder of images a class."
            )
    train, test = find_folders(path / "train").keys(), find_folders(path / "test").keys()
    if train != test:
        odd = ", ".join(sorted(train ^ test)[:4])
        raise ValueError(
            f"train/ and test/ in {path} hold different classes ({odd} only in one of them); give "
            "both the same folders."
        )
    if len(train) < 2:
        raise ValueError(
            f"{path / 'train'} holds {len(train)} class folders; a classifier needs at least 2."
        )
    return tuple(sorted(train))


def torchvision_set(name: str, root: str | Path | None = None) -> DataSet:
    """Return one of torchvision's sets, downloaded on first use.

    Parameters
    ----------
    name
        "mnist", "fashion_mnist", "kmnist", "cifar10" or "cifar100".
    root
        Folder of the files; default ``datasets`` in the cache folder (``QLEARN_HOME``).

    Returns
    -------
    DataSet
        Images C×H×W, float32 in [0, 1], and the set's own split.

    Raises
    ------
    ValueError
        If there is no set of that name.
    RuntimeError
        If the files are not there and cannot be downloaded.
    """
    if name not in TORCHVISION:
        raise ValueError(f"There is no set {name!r}; choose from {', '.join(TORCHVISION)}.")
    from torchvision import datasets
    from torchvision.transforms import v2

    kind, place = TORCHVISION[name]
    root = Path(root) if root else home() / "datasets"
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
    try:
        train, test = (
            getattr(datasets, kind)(root, train=train, transform=transform, download=True)
            for train in (True, False)
        )
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"{name} could not be downloaded ({error}); connect to the network, or copy its files "
            f"as published into {(root / place).absolute()}."
        ) from error
    return DataSet(train, test, tuple(train.classes))
