"""A larger and harder set of images: characters, drawn from the fonts that Matplotlib ships."""

import string
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from qlearn.data.common import DataSet, Samples

CHARACTERS = string.digits + string.ascii_uppercase
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol",
    "STIXGeneralItalic", "cmr10",
)  # fmt: skip
TRAIN, TEST = 200, 100  # images of each character
SIZE = 28
GLYPH = 56  # pixels of a square that holds a character before it is distorted


def characters() -> DataSet:
    """Return 10,800 images of digits and capital letters that are hard to tell apart.

    Each is a character of one of twelve fonts, turned by up to 20°, scaled, sheared, shifted, paler
    or darker, with noise on it: always the same ones. Of a 0 and an O, or a 1 and an I, little is
    left to tell them apart, so that a model stays below 100 % and a change of a point can be seen.

    Returns
    -------
    DataSet
        Images 1×28×28, float32 in [0, 1], of 36 classes; 7,200 train and 3,600 test images, as many
        of each class.

    References
    ----------
    The fonts are DejaVu, STIX and Computer Modern, as they come with Matplotlib.
    """
    glyphs = _draw()
    train, test = (_distort(glyphs, each, seed) for seed, each in enumerate((TRAIN, TEST)))
    return DataSet(train, test, tuple(CHARACTERS))


def _draw() -> Tensor:
    """Return each character in each font, fonts×characters×56×56 in [0, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder, drawn = Path(matplotlib.get_data_path()) / "fonts" / "ttf", []
    for name in FONTS:
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 40)
        for character in CHARACTERS:
            square, middle = Image.new("L", (GLYPH, GLYPH)), (GLYPH // 2, GLYPH // 2)
            ImageDraw.Draw(square).text(middle, character, fill=255, font=font, anchor="mm")
            drawn.append(torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8))
    return torch.stack(drawn).view(len(FONTS), len(CHARACTERS), GLYPH, GLYPH) / 255


def _distort(glyphs: Tensor, each: int, seed: int) -> Samples:
    """Return so many images of each character, no two alike."""
    generator, number = torch.Generator().manual_seed(seed), each * len(CHARACTERS)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(number, generator=generator)

    labels = torch.arange(len(CHARACTERS)).repeat(each)
    font = torch.randint(len(FONTS), (number,), generator=generator)
    angle, scale, shear = between(-0.35, 0.35), between(0.75, 1.25), between(-0.3, 0.3)
    # From a pixel of the image to the place in the glyph that it shows.
    first = torch.stack([angle.cos() / scale, shear - angle.sin() / scale, between(-0.15, 0.15)], 1)
    second = torch.stack([angle.sin() / scale, angle.cos() / scale, between(-0.15, 0.15)], 1)
    shape = (number, 1, SIZE, SIZE)
    places = affine_grid(torch.stack([first, second], 1), shape, align_corners=False)
    images = grid_sample(glyphs[font, labels].unsqueeze(1), places, align_corners=False)
    contrast, noise = between(0.4, 1.0).view(-1, 1, 1, 1), between(0.05, 0.25).view(-1, 1, 1, 1)
    images = images * contrast + noise * torch.randn(shape, generator=generator)
    return Samples(images.clamp(0, 1), labels)
