"""Images: scikit-learn's digits, a folder of your own, and torchvision's famous sets."""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from qlearn.data.common import DataSet, split
from qlearn.system.cache import home

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

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
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.as_tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(small, size=28, mode="bilinear")
    return split(images.repeat(1, channels, 1, 1), raw.target, [str(n) for n in raw.target_names])


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
            upright = ImageOps.exif_transpose(image).convert("RGB")
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        return functional.to_dtype(
            functional.pil_to_tensor(fitted), torch.float32, scale=True
        ), label


def image_folder(
    path: str | Path, size: tuple[int, int] | int, skip_broken: bool = False
) -> DataSet:
    """Return your own images: ``path/train/CLASS/*.jpg`` and ``path/test/CLASS/*.jpg``.

    Every image is opened once here, and again, one at a time, when it is used.

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
    path = Path(path)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if min(size) < 1:
        raise ValueError(f"size is {size}; height and width are at least 1 pixel.")
    classes = _classes(path)
    files = {
        part: [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((path / part / name).rglob("*"))
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        ]
        for part in ("train", "test")
    }
    broken = _broken([file for part in files.values() for file, _ in part])
    if broken and not skip_broken:
        raise ValueError(
            f"{_named(broken)} cannot be read; mend or remove what is broken, or leave it out "
            "with skip_broken=True."
        )
    if broken:
        print(f"Skipped: {_named(broken)} cannot be read.")
    good = {
        part: [pair for pair in pairs if pair[0] not in broken] for part, pairs in files.items()
    }
    for part, pairs in good.items():
        for label, name in enumerate(classes):
            if label not in {held for _, held in pairs}:
                raise ValueError(
                    f"The class folder {path / part / name} holds no readable image "
                    f"({', '.join(SUFFIXES)}); add some, or remove the class from train and test."
                )
    return DataSet(Photographs(good["train"], size), Photographs(good["test"], size), classes)


def _folders(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != "."}


def _classes(path: Path) -> tuple[str, ...]:
    """Return the class names of an image folder, or say what is wrong with its layout."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path.absolute()}; give one that holds train/ and test/."
        )
    found = _folders(path)
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
    train, test = _folders(path / "train"), _folders(path / "test")
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


def _broken(files: list[Path]) -> dict[Path, None]:
    """Return the files that do not decode to the end, in order."""
    from PIL import Image
    from tqdm import tqdm

    broken = {}
    # Decoding thousands of photographs takes a while: the bar appears when it takes over 2 s.
    for file in tqdm(files, desc="checking images", delay=2, ncols=80, file=sys.stdout):
        try:
            with Image.open(file) as image:
                image.load()
        # Pillow raises OSError for most damage, and these for some damaged headers.
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
            broken[file] = None
    return broken


def _named(files: dict[Path, None]) -> str:
    first = ", ".join(str(file) for file in list(files)[:3])
    more = ", …" if len(files) > 3 else ""
    return f"{len(files)} image{'s' if len(files) > 1 else ''} ({first}{more})"


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
