import csv
import gzip
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from qlearn import data
from qlearn.data.image_files import to_rgb


def labels_of(part: data.Samples) -> list[int]:
    return part.labels.tolist()


def test_digits_are_real_images_in_a_fixed_stratified_split():
    first, again = data.digits(), data.digits()
    assert (len(first.train), len(first.test)) == (1437, 360)
    image, label = first.train[0]
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32
    assert isinstance(label, int)
    everything = torch.cat([first.train.inputs, first.test.inputs])
    assert everything.min() == 0 and 0.95 < everything.max() <= 1
    assert first.classes == tuple("0123456789")
    assert torch.equal(first.train.inputs, again.train.inputs)
    for digit in range(10):
        share = labels_of(first.test).count(digit) / labels_of(first.train).count(digit)
        assert share == pytest.approx(0.25, abs=0.02)


def test_digits_in_colour_repeat_the_grey_channel():
    grey, colour = data.digits().test[5], data.digits(channels=3).test[5]
    assert colour[0].shape == (3, 28, 28)
    assert all(torch.equal(channel, grey[0][0]) for channel in colour[0])
    with pytest.raises(ValueError, match="1 .* or 3"):
        data.digits(channels=4)


def test_characters_are_many_distorted_and_always_the_same():
    first, again = data.characters(), data.characters()
    assert (len(first.train), len(first.test), len(first.classes)) == (7200, 3600, 36)
    image, label = first.test[0]
    assert image.shape == (1, 28, 28) and image.dtype == torch.float32 and isinstance(label, int)
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert first.train.inputs.min() >= 0 and first.train.inputs.max() <= 1
    for part in (first.train, first.test):
        assert (part.labels.bincount() * 36 == len(part)).all(), "each class as often"
    # An I is narrower than a W in every font: the pictures show what the labels say.
    ink = first.train.inputs.flatten(1).sum(1)
    means = {name: ink[first.train.labels == i].mean() for i, name in enumerate(first.classes)}
    assert means["I"] < means["W"] and means["1"] < means["8"]


def test_train_and_test_share_no_sample():
    for dataset in (data.digits(), data.phrases(), data.characters()):
        train = {sample.numpy().tobytes() for sample in dataset.train.inputs}
        test = {sample.numpy().tobytes() for sample in dataset.test.inputs}
        # Phrases are cut to LENGTH characters, which may make two of them equal.
        assert len(train & test) <= 3


def test_phrases_are_left_padded_character_ids_of_15_languages():
    dataset = data.phrases()
    assert len(dataset.train) == pytest.approx(10_900, rel=0.02)
    assert len(dataset.test) == pytest.approx(2_725, rel=0.02)
    assert len(dataset.classes) == 15
    ids = dataset.train.inputs
    assert ids.dtype == torch.int64 and ids.shape[1] == data.LENGTH
    assert ids.max() < data.VOCABULARY
    assert (ids == 1).sum() < (ids > 1).sum() / 1000, "nearly every character has its own id"
    assert (ids[:, -1] != 0).all(), "padding is on the left"
    assert set(labels_of(dataset.test)) == set(range(15))


@pytest.mark.parametrize("make", [data.digits, data.phrases])
def test_who_changes_the_data_changes_only_the_own_copy(make):
    before = make().train.inputs.clone()
    make().train.inputs.zero_()
    assert before.count_nonzero() and torch.equal(make().train.inputs, before)


def test_phrases_are_the_same_in_another_process():
    code = "from qlearn import data; print(data.phrases().train.inputs.sum(0).tolist())"
    # The order of a set of strings depends on this variable.
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert other == f"{data.phrases().train.inputs.sum(0).tolist()}\n"


def test_encode_pads_cuts_and_normalizes():
    ids = data.encode("Übung")
    assert ids.shape == (data.LENGTH,) and (ids[:-5] == 0).all() and (ids[-5:] > 1).all()
    assert torch.equal(ids, data.encode("U\u0308bung  ")), "however the letter was typed"
    assert torch.equal(data.encode("abcdef", length=3), data.encode("abc", length=3))
    assert data.encode("語", length=1).tolist() == [1]
    assert data.encode("").tolist() == [0] * data.LENGTH


def test_documentation_is_windows_of_text_and_what_follows():
    dataset = data.documentation()
    ids, following = dataset.test[3]
    assert ids.shape == following.shape == (data.CONTEXT,) and ids.dtype == torch.int64
    assert torch.equal(ids[1:], following[:-1])
    held_out = data.decode_text(dataset.test.ids)
    assert len(held_out) > 40_000 and len(dataset.train) > 1_500
    assert len(held_out) > 2 * len(dataset.test.ids), "a piece has several characters"
    assert torch.equal(dataset.test[4][0][:1], following[-1:]), "test windows follow one another"
    text = data.decode_text(dataset.train.ids)
    assert "statement" in text and torch.equal(data.encode_text(text), dataset.train.ids)
    with pytest.raises(IndexError):
        dataset.test[len(dataset.test)]
    assert len(data.documentation(64).test) == pytest.approx(2 * len(dataset.test), abs=1)
    for context in (0, 10**6):
        with pytest.raises(ValueError, match="choose a length from 1 to"):
            data.documentation(context)


def test_no_paragraph_of_the_documentation_is_both_learned_and_held_out():
    dataset = data.documentation()
    train, test = (
        {p for p in data.decode_text(part.ids).split("\n\n") if len(p) > 40}
        for part in (dataset.train, dataset.test)
    )
    assert len(test) > 100 and not train & test


def test_encode_text_keeps_what_its_vocabulary_has():
    assert data.encode_text("").tolist() == []
    assert data.decode_text(data.encode_text("“naïve” – 5\n")) == '"nave" - 5\n'
    assert len(set(data.PIECES)) == len(data.PIECES) == 512


def test_loaders_shuffle_by_seed_and_keep_the_test_order():
    dataset = data.digits()
    orders = [
        torch.cat([labels for _, labels in data.loaders(dataset, seed=seed)[0]]).tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    train, test = data.loaders(dataset, batch_size=100)
    assert torch.equal(torch.cat([x for x, _ in test]), dataset.test.inputs)
    assert next(iter(train))[0].shape == (100, 1, 28, 28)
    with pytest.raises(ValueError, match="whole number from 1"):
        data.loaders(dataset, batch_size=0)


def test_a_pass_over_a_loader_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    for loader in data.loaders(data.digits()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


def test_loaders_drop_a_last_training_batch_of_one():
    train, test = data.loaders(data.digits(), batch_size=359)  # 1437 = 4 x 359 + 1; 360 = 359 + 1
    assert [len(labels) for _, labels in train] == [359] * 4
    assert [len(labels) for _, labels in test] == [359, 1]


@pytest.fixture
def small_folder(tmp_path):
    """Two classes of two digit images in train/ and one in test/."""
    digits = data.digits().train
    for index, image in enumerate(digits.inputs[:6]):
        part = "train" if index < 4 else "test"
        folder = tmp_path / "own" / part / ("cats", "dogs")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image[0] * 255).to(torch.uint8).numpy()
        Image.fromarray(pixels).resize((60, 40)).save(folder / f"{index}.png")
    return tmp_path / "own"


def test_image_folder_reads_real_photographs(photographs):
    dataset = data.image_folder(photographs, size=(24, 40))
    assert len(dataset.classes) == 10 and "airplane" in dataset.classes
    assert len(dataset.train) + len(dataset.test) == 5000
    image, label = dataset.train[0]
    assert image.shape == (3, 24, 40) and image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert dataset.classes[label] == "airplane"
    inputs, labels = next(iter(data.loaders(dataset)[0]))
    assert inputs.shape == (64, 3, 24, 40) and labels.dtype == torch.int64


def test_image_folder_turns_covers_and_crops(small_folder):
    dataset = data.image_folder(small_folder, size=20)
    assert dataset.classes == ("cats", "dogs")
    assert dataset.train[0][0].shape == (3, 20, 20)
    # A photograph that the camera noted as turned by 90 degrees: white below becomes white left.
    picture = Image.new("RGB", (20, 20))
    picture.paste((255, 255, 255), (0, 10, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(small_folder / "test" / "cats" / "turned.jpg", exif=exif)
    files = [path.name for path, _ in data.image_folder(small_folder, size=20).test.files]
    turned = data.image_folder(small_folder, size=20).test[files.index("turned.jpg")][0]
    assert turned[:, :, :8].mean() > 0.9 > 0.1 > turned[:, :, 12:].mean()


def test_image_folder_names_broken_images_and_skips_only_when_asked(small_folder, capsys):
    whole = next((small_folder / "train" / "cats").glob("*.png"))
    cut = whole.with_name("cut.png")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text = small_folder / "test" / "dogs" / "text.jpg"
    text.write_text("not an image")
    with pytest.raises(ValueError, match="2 images .*cut.png.*text.jpg.*skip_broken=True"):
        data.image_folder(small_folder, size=20)
    before = capsys.readouterr().out
    dataset = data.image_folder(small_folder, size=20, skip_broken=True)
    assert "Skipped" not in before and "2 images" in capsys.readouterr().out
    assert (len(dataset.train), len(dataset.test)) == (4, 2)


def test_image_folder_explains_a_wrong_layout(small_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere.*train/ and test/"):
        data.image_folder(tmp_path / "nowhere", size=20)
    with pytest.raises(FileNotFoundError, match="cats, dogs but no train/ and test/.*move them"):
        data.image_folder(small_folder / "train", size=20)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        data.image_folder(small_folder, size=0)
    (small_folder / "train" / "birds").mkdir()
    with pytest.raises(ValueError, match="different classes .birds"):
        data.image_folder(small_folder, size=20)
    (small_folder / "test" / "birds").mkdir()
    with pytest.raises(ValueError, match="birds holds nothing, and no readable image"):
        data.image_folder(small_folder, size=20)
    (small_folder / "test").rename(small_folder / "later")
    with pytest.raises(FileNotFoundError, match="no folder test/"):
        data.image_folder(small_folder, size=20)


def test_text_csv_reads_real_news_without_a_header(news_csv):
    dataset = data.text_csv(news_csv, text=1, label=0)
    assert dataset.classes == ("1", "2", "3", "4")
    # 27 titles come twice, 4 with two labels.
    assert len(dataset.train) + len(dataset.test) == 7600 - 35
    assert not {tuple(ids.tolist()) for ids, _ in dataset.train} & {
        tuple(ids.tolist()) for ids, _ in dataset.test
    }
    assert all(370 < labels_of(dataset.test).count(label) <= 380 for label in range(4))
    ids, label = dataset.train[0]
    assert ids.shape == (64,) and ids.dtype == torch.int64 and isinstance(label, int)
    assert ids.max() < data.VOCABULARY
    other = data.text_csv(news_csv, text=2, label=0, test_share=0.5, length=100, seed=1)
    assert 3700 < len(other.test) < 3800 and other.train[0][0].shape == (100,)


@pytest.fixture
def own_csv(tmp_path):
    def write(*rows: str):
        file = tmp_path / "own.csv"
        file.write_text("\n".join(("message,kind", *rows)), encoding="utf-8")
        return file

    return write


GOOD = ("hello,greeting", "good day,greeting", "goodbye,parting", "NA,parting")


def test_text_csv_reads_named_columns(own_csv):
    dataset = data.text_csv(own_csv(*GOOD), text="message", label="kind", test_share=0.5, length=8)
    assert dataset.classes == ("greeting", "parting")
    samples = [*dataset.train, *dataset.test]
    assert len(samples) == 4
    # "NA" is a text like any other, not a missing value.
    assert any(torch.equal(ids, data.encode("NA", 8)) and label == 1 for ids, label in samples)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (GOOD, ("body", "kind"), "no column 'body'; its columns are 'message', 'kind'"),
        (GOOD, (0, 7), "no column 7"),
        ((*GOOD, ",parting"), ("message", "kind"), "1 rows? of .* no text or no label"),
        ((*GOOD, "bye,"), ("message", "kind"), "no text or no label .*row 5 of the data"),
        (GOOD[:2], ("message", "kind"), "label 'greeting'; a classifier needs at least 2"),
        (GOOD[:3], ("message", "kind"), "'parting' .* only 1 row"),
        ((), ("message", "kind"), "holds no rows"),
        (("a,b,c,d", '"x'), ("message", "kind"), "cannot be read as CSV"),
    ],
)
def test_text_csv_explains_what_is_wrong(own_csv, rows, columns, message):
    text, label = columns
    with pytest.raises(ValueError, match=message):
        data.text_csv(own_csv(*rows), text=text, label=label)


def test_text_csv_explains_a_missing_file_and_a_wrong_share(own_csv, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.csv"):
        data.text_csv(tmp_path / "none.csv", text=0, label=1)
    with pytest.raises(ValueError, match="test_share is 1.5"):
        data.text_csv(own_csv(*GOOD), text="message", label="kind", test_share=1.5)
    with pytest.raises(ValueError, match="test_share"):
        data.text_csv(own_csv(*GOOD), text="message", label="kind", test_share=0.01)


def painted(folder, name, image, **options):
    """Save an image as a further one of a class, and return how image_folder sees it."""
    file = folder / "train" / "cats" / name
    image.save(file, **options)
    train = data.image_folder(folder, size=8).train
    return train[[path for path, _ in train.files].index(file)][0]


def ramp(dtype, top):
    """8x8 numbers from 0 to top: the middle of them is grey."""
    return Image.fromarray(np.linspace(0, top, 64).reshape(8, 8).astype(dtype))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("16.png", ramp(np.uint16, 65535)),
        ("16.tif", ramp(np.uint16, 65535)),
        ("16.pgm", ramp(np.uint16, 65535)),
        ("float.tif", ramp(np.float32, 1)),
        ("8.png", ramp(np.uint8, 255)),
        ("cmyk.tif", ramp(np.uint8, 255).convert("RGB").convert("CMYK")),
        ("palette.gif", ramp(np.uint8, 255).convert("P")),
    ],
)
def test_image_folder_scales_every_type_to_its_range(small_folder, name, image):
    seen = painted(small_folder, name, image)
    wanted = torch.linspace(0, 1, 64).reshape(8, 8)
    assert (seen - wanted).abs().max() < 0.02


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_image_folder_puts_transparency_on_white(small_folder, mode):
    drawing = Image.new("LA", (8, 8), (0, 0))
    drawing.paste((0, 255), (0, 0, 4, 8))
    seen = painted(small_folder, "drawing.png", drawing.convert(mode))
    assert seen[:, :, :4].max() == 0 and seen[:, :, 4:].min() == 1


def test_image_folder_puts_a_transparent_colour_on_white(small_folder):
    drawing = Image.new("P", (8, 8), 1)
    drawing.putpalette([0, 0, 0, 9, 9, 9])
    drawing.paste(0, (0, 0, 4, 8))
    for name in ("index.gif", "index.png"):
        seen = painted(small_folder, name, drawing, transparency=1)
        assert seen[:, :, :4].max() == 0 and seen[:, :, 4:].min() == 1
        (small_folder / "train" / "cats" / name).unlink()


def test_image_folder_turns_each_format_once(small_folder):
    picture = Image.new("RGB", (8, 8))
    picture.paste((255, 255, 255), (0, 4, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.tif", "turned.webp"):
        seen = painted(small_folder, name, picture, exif=exif)
        assert seen[:, :, :3].mean() > 0.9 > 0.1 > seen[:, :, 5:].mean(), name
        (small_folder / "train" / "cats" / name).unlink()


@pytest.mark.parametrize(
    ("name", "image", "reason"),
    [
        ("f.tif", ramp(np.float32, 812), "floats from 0 to 812: save it with 8 bits"),
        ("nan.tif", ramp(np.float32, np.nan), "floats from nan"),
        ("i.tif", ramp(np.int32, 10**6), "32-bit integers from 0 to 1e"),
        ("twelve.tif", ramp(np.uint16, 4095), "16-bit values end at 4095 of 65535"),
        ("ten.png", ramp(np.uint16, 1023), "16-bit values end at 1023 of 65535"),
        ("14.png", ramp(np.uint16, 16383), "16-bit values end at 16383 of 65535"),
    ],
)
def test_image_folder_refuses_values_of_unknown_range(small_folder, name, image, reason):
    with pytest.raises(ValueError, match=f"1 image .*{name}: .*{reason}.*skip_broken=True"):
        painted(small_folder, name, image)


def deep_png(channels, values, transparent=None):
    """A PNG of one row of 16-bit values, which Pillow does not write in colour."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(
        ">IIBBBBB", len(values) // channels, 1, 16, {1: 0, 3: 2}[channels], 0, 0, 0
    )
    row = b"\0" + np.array(values, ">u2").tobytes()
    clear = (
        b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent) * channels)
    )
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + clear
            + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("top", [1023, 4095, 16383, 65535])
def test_image_folder_knows_colours_of_fewer_bits_than_their_file(small_folder, top):
    file = small_folder / "train" / "cats" / "deep.png"
    file.write_bytes(deep_png(3, [top] * 12))
    if top < 65535:
        with pytest.raises(ValueError, match=f"deep.png: its 16-bit values end at {top} of 65535"):
            data.image_folder(small_folder, size=8)
    else:
        train = data.image_folder(small_folder, size=8).train
        assert train[[path for path, _ in train.files].index(file)][0].min() == 1


def test_image_folder_reads_white_in_16_bits_of_grey(small_folder):
    seen = painted(small_folder, "w.tif", ramp(np.uint16, 65535), tiffinfo={262: 0})
    assert seen[0, 0, 0] > 0.98 and seen[0, -1, -1] < 0.02
    file = small_folder / "train" / "cats" / "clear.png"
    for channels in (1, 3):
        values = [700] * 8 * channels + [40_000] * channels
        file.write_bytes(deep_png(channels, values, transparent=700))
        with Image.open(file) as image:
            assert np.asarray(to_rgb(image))[0].tolist() == [[255] * 3] * 8 + [[156] * 3]


def test_image_folder_reports_folders_that_it_does_not_read(small_folder, capsys):
    (small_folder / "train" / "cats" / "more").symlink_to(small_folder / "test" / "dogs")
    for folder in ("val", "@eaDir", "__MACOSX", "train/cats/@eaDir", "train/@eaDir"):
        (small_folder / folder).mkdir()
        Image.new("L", (4, 4), len(folder)).save(small_folder / folder / "1.png")
    assert len(data.image_folder(small_folder, size=8).train) == 4
    said = capsys.readouterr().out
    assert "1 linked folder" in said and "val/ beside train/ and test/" in said
    assert "@eaDir" not in said and "MACOSX" not in said


def test_image_folder_takes_accents_in_either_form(small_folder):
    for part, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        (small_folder / part / "cats").rename(small_folder / part / name)
    assert data.image_folder(small_folder, size=8).classes == ("caf\u00e9", "dogs")
    (small_folder / "test" / "caf\u00e9").mkdir()
    with pytest.raises(ValueError, match="one name, with its accents written in two ways"):
        data.image_folder(small_folder, size=8)


def test_image_folder_names_the_reason_and_the_way_out(small_folder, monkeypatch):
    for file in (small_folder / "train" / "cats").iterdir():
        file.unlink()
    for file in (small_folder / "test" / "cats").iterdir():
        (small_folder / "train" / "cats" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"\d .png \(in train/ and test/, so not in train\), and"):
        data.image_folder(small_folder, size=8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"it has too many pixels: save it smaller"):
        data.image_folder(small_folder, size=8)
    with pytest.raises(ValueError, match="is a file; unpack it first"):
        data.image_folder(file, size=8)
    (small_folder / "train").rename(small_folder / "Train")
    with pytest.raises(FileNotFoundError, match="holds Train/; rename it to train/"):
        data.image_folder(small_folder, size=8)


def test_image_folder_names_what_a_class_without_images_holds(small_folder):
    for file in (small_folder / "train" / "cats").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(ValueError, match=r"cats holds \d .heic, and no readable .* PNG or JPEG"):
        data.image_folder(small_folder, size=8)


def test_image_folder_says_in_a_line_what_it_skips(small_folder, capsys):
    cats = small_folder / "train" / "cats"
    for name in ("a.heic", "b.HEIC", "c.svg", ".hidden.png", "notes"):
        (cats / name).write_bytes(b"x")
    for folder in ("named.jpg", ".ipynb_checkpoints", "nested"):
        (cats / folder).mkdir()
        Image.new("L", (4, 4), len(folder)).save(cats / folder / "1.png")
    Image.new("L", (4, 4), 77).save(small_folder / "train" / "beside.png")
    frames = [Image.new("L", (4, 4), grey) for grey in (40, 90)]
    frames[0].save(cats / "moving.gif", save_all=True, append_images=frames[1:])
    dataset = data.image_folder(small_folder, size=8)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    for part in ("2 .heic, 1 .svg, 1 without a suffix", "1 .png beside", "first of 1 images"):
        assert part in printed
    assert len(dataset.train) == 4 + 3, "what is nested is used, what is hidden is not"


def test_image_folder_leaves_out_what_lies_in_two_places(small_folder, capsys):
    train, test = (
        {name: small_folder / part / name for name in ("cats", "dogs")}
        for part in ("train", "test")
    )
    leaked, mixed = Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 20)
    leaked.save(train["cats"] / "leaked.png")
    leaked.save(test["cats"] / "another_name.bmp")
    mixed.save(train["cats"] / "mixed.png")
    mixed.save(train["dogs"] / "mixed.png")
    dataset = data.image_folder(small_folder, size=8)
    assert (len(dataset.train), len(dataset.test)) == (4, 3)
    printed = capsys.readouterr().out
    assert "2 images in several classes" in printed and "1 images in train/ and test/" in printed


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 cut", b"<svg/>"])
def test_image_folder_names_a_file_that_is_no_image(small_folder, content):
    (small_folder / "test" / "dogs" / "odd.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 image .*odd.jpg: .+\) cannot be read"):
        data.image_folder(small_folder, size=8)


@pytest.mark.parametrize("size", ["64", 6.4, (64,), (1, 2, 3), (8, "8"), None])
def test_image_folder_takes_whole_numbers_as_size(small_folder, size):
    with pytest.raises(ValueError, match="give whole numbers of pixels"):
        data.image_folder(small_folder, size=size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,kind\nhi,there,a\nyou,all,b\n", "2 rows .* 2 columns .*line 2, has 3.*quotation"),
        ("text,kind\nhi,a\nyou\n", "1 rows .* line 3, has 1"),
        ('text,kind\n"hi,a\nyou,b\n', "from line 2 on: a quotation mark"),
        ('text,kind\n"hi,a\nyou,b\n"ho",a\n', "from line 2 on: a quotation mark"),
        ('text,kind\nx,b\n"hi,a\nyou,b\nho",a\n', "line 5 holds 'hi,a', .*row of its own"),
        ("text;kind\nhi, you;a\n", "separated by ';', give sep=';'"),
        ("text\tkind\nhi\ta\n", r"separated by '\\t', give sep='\\t'"),
        ("text\nhi\n", "no column 'kind'"),
        ("hi,a\nyou,b\n", "without a header line takes positions"),
        ("text,text,kind\na,b,c\n", "two columns 'text'"),
        ("text,kind\nпривет,a\nмир,a\nдруг,b\nдом,b\n", "100% of the characters .*Latin"),
        ("text,kind\nsame,a\nsame,b\nmore,a\nelse,a\n", "'b' .* only 0 rows"),
        ("text,kind\nhi,a\nhi,a\nyou,b\nyou,b\n", "only 1 row of its own"),
    ],
)
def test_text_csv_names_the_line_and_the_way_out(tmp_path, content, message):
    file = tmp_path / "own.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        data.text_csv(file, text="text", label="kind")


UMLAUTS = "text,kind\nschön,a\ngrün,a\nmüde,b\nhübsch,b\n"
CYRILLIC = "text,kind\nпривет,a\nмир,a\nдруг,b\nдом,b\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (UMLAUTS.encode("cp1252"), r'not UTF-8 \(line 2\).*encoding="cp1252"'),
        (CYRILLIC.encode("cp1251"), '"cp1251" or "koi8-r" for Cyrillic'),
        (UMLAUTS.encode("utf-16"), 'encoding="utf-16"'),
        (UMLAUTS.encode("utf-16-le"), "looks like UTF-16"),
        (b"PK\x03\x04\x00rest", "is a workbook or an archive; .*save it as CSV"),
        (b"%PDF-1.7\n\xe2\xe3", "is a PDF; .*save it as CSV"),
        (b"\x1f\x8b\x08\x00\x00", "compressed by gzip; rename it to end in .csv.gz"),
        (UMLAUTS.encode() + b"d\0n,a\n", "Line 6 of .* holds a zero byte"),
        (UMLAUTS.encode("utf-16-be"), 'encoding="utf-16-be"'),
        (UMLAUTS.encode("utf-32"), 'encoding="utf-32"'),
        (UMLAUTS.encode("utf-32-le"), 'encoding="utf-32-le"'),
        (b"\xff\x00\x00\x80\x00\x12\x00\x00", "Line 1 of .* zero byte, .*no CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is an image; give a file of texts"),
        (b'[\n {"text": "hi", "kind": "a"}]', "is JSON; read it with pandas"),
        (b'{"text": "hi", "kind": "a"}\n{"text"', "is JSON; read it with pandas"),
    ],
)
def test_text_csv_names_the_encoding(tmp_path, content, message):
    file = tmp_path / "own.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.text_csv(file, text="text", label="kind")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16", "latin-1"])
def test_text_csv_takes_an_encoding_and_a_separator(tmp_path, encoding):
    file = tmp_path / "own.csv"
    file.write_bytes(UMLAUTS.replace(",", ";").encode(encoding))
    options = {} if encoding == "utf-8-sig" else {"encoding": encoding}
    dataset = data.text_csv(file, text="text", label="kind", sep=";", test_share=0.5, **options)
    samples = [ids for ids, _ in (*dataset.train, *dataset.test)]
    assert any(torch.equal(ids, data.encode("schön", 64)) for ids in samples)
    for wrong, message in (({"encoding": "utf8x"}, "no encoding"), ({"sep": ";;"}, "one char")):
        with pytest.raises(ValueError, match=message):
            data.text_csv(file, text="text", label="kind", **wrong)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (UMLAUTS.encode(), "cp1252", "is not cp1252 but UTF-8: leave encoding= out"),
        (UMLAUTS.encode("utf-8-sig"), "latin-1", "is not latin-1 but UTF-8"),
        (UMLAUTS.replace("schön", "“schön”").encode("cp1252"), "latin-1", 'Line 2.*"cp1252"'),
        (UMLAUTS.encode("utf-16-be"), "utf-16", 'looks like UTF-16-BE; give encoding="utf-16-be"'),
        (UMLAUTS.encode("utf-32"), "utf-16", 'is not UTF-16 .*encoding="utf-32"'),
        (UMLAUTS.encode(), 5, "encoding is 5; give its name"),
    ],
)
def test_text_csv_refuses_an_encoding_that_takes_anything(tmp_path, content, encoding, message):
    file = tmp_path / "own.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.text_csv(file, text="text", label="kind", encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_text_csv_takes_the_mark_off_a_files_start(tmp_path, encoding):
    file = tmp_path / "own.csv"
    file.write_bytes(("\ufeff" + UMLAUTS).encode(encoding))
    options = {"encoding": encoding, "test_share": 0.5}
    assert data.text_csv(file, text="text", label="kind", **options).classes == ("a", "b")


def test_text_csv_reads_long_texts_and_numpys_positions_and_names_damage(tmp_path):
    file = tmp_path / "own.csv.gz"
    rows = "\n".join(f'"text {n}{" a" * 70_000}",{n % 2}' for n in range(4))
    file.write_bytes(gzip.compress(rows.encode()))
    limit = csv.field_size_limit()
    columns = {"text": np.int64(0), "label": np.int64(1)}
    assert data.text_csv(file, **columns, test_share=0.5).classes == ("0", "1")
    assert csv.field_size_limit() == limit
    content = bytearray(file.read_bytes())
    content[20:30] = b"\xff" * 10
    file.write_bytes(content)
    with pytest.raises(ValueError, match="own.csv.gz cannot be read as CSV: "):
        data.text_csv(file, **columns)
    with pytest.raises(FileNotFoundError, match="is a folder; give the path of the CSV"):
        data.text_csv(tmp_path, **columns)
    with pytest.raises(ValueError, match="is an address: download it first"):
        data.text_csv("https://example.org/a.csv", **columns)


@pytest.mark.parametrize(
    "options",
    [{"length": "64"}, {"length": 6.5}, {"length": None}, {"length": True}, {"length": 0},
     {"test_share": "0.2"}, {"test_share": None}, {"test_share": float("nan")}],
)  # fmt: skip
def test_text_csv_takes_numbers_only(own_csv, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; (choose|keep) a"):
        data.text_csv(own_csv(*GOOD), text="message", label="kind", **options)


@pytest.mark.parametrize(
    ("pair", "classes", "alike"),
    [
        (("3.1", "3.10"), ("3.1", "3.10"), True),
        (("007", "7"), ("007", "7"), True),
        (("12e1", "120"), ("120", "12e1"), True),
        (("1_0", "10"), ("10", "1_0"), True),
        (("1" * 40 + "5", "1" * 40 + "6"), ("1" * 40 + "5", "1" * 40 + "6"), False),
        (("1.0", "nan"), ("1", "nan"), False),
        (("-0.", "2.00"), ("0", "2"), False),
    ],
)
def test_text_csv_keeps_labels_as_they_are_written(tmp_path, capsys, pair, classes, alike):
    file = tmp_path / "own.csv"
    file.write_text("\n".join(f"text {n},{pair[n % 2]}" for n in range(16)))
    assert data.text_csv(file, text=0, label=1, test_share=0.5).classes == classes
    said = capsys.readouterr().out
    assert ("are two classes" in said) == alike
    assert ("'nan' is a class of 8 rows; remove them" in said) == ("nan" in pair)


def test_text_csv_strips_labels_and_leaves_out_what_comes_twice(tmp_path, capsys):
    file = tmp_path / "own.csv"
    rows = [
        "a, pos ",
        "b,pos",
        "c,neg",
        '"d, e"," neg "',
        "a,pos",
        "x,pos",
        "x,neg",
        ",,",
        "f,neg,",
    ]
    file.write_text("text , kind\n" + "\n".join(rows), encoding="utf-8")
    dataset = data.text_csv(file, text="text", label="kind", test_share=0.5)
    assert dataset.classes == ("neg", "pos")
    assert len(dataset.train) + len(dataset.test) == 5
    assert "1 rows whose text" in capsys.readouterr().out


def test_text_csv_sorts_numbers_as_numbers_and_notices_other_case(tmp_path, capsys):
    file = tmp_path / "own.csv"
    file.write_text("\n".join(f"text {n},{n // 2}{'.0' * (n % 2)}" for n in range(22)))
    dataset = data.text_csv(file, text=0, label=1, test_share=0.5)
    assert dataset.classes == tuple(map(str, range(11)))
    file.write_text("\n".join(f"text {n},{'Pp'[n % 2]}os" for n in range(8)))
    data.text_csv(file, text=0, label=1, test_share=0.5)
    assert "'Pos' and 'pos' are two classes" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["\u200bpos", "p\u00ados", "\uff50os"])
def test_text_csv_notices_labels_that_look_alike(tmp_path, capsys, other):
    """A space without width, a soft hyphen, a wide letter."""
    file = tmp_path / "own.csv"
    file.write_text("\n".join(f"text {n},{(other, 'pos')[n % 2]}" for n in range(8)), "utf-8")
    data.text_csv(file, text=0, label=1, test_share=0.5)
    assert f"{ascii(other)} are two classes" in capsys.readouterr().out


def test_text_csv_says_when_labels_are_measurements(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("\n".join(f"text {n},{n / 7}" for n in range(40)))
    with pytest.raises(ValueError, match="40 different values in 40 rows: .* sort numbers into"):
        data.text_csv(file, text=0, label=1)


def test_torchvision_set_names_what_exists_and_where_files_go(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no set 'minst'; choose from mnist, fashion_mnist"):
        data.torchvision_set("minst")

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(RuntimeError, match=r"could not be downloaded .*MNIST/raw"):
        data.torchvision_set("mnist", root=tmp_path)


def test_torchvision_set_wraps_torchvisions_own(tmp_path, monkeypatch):
    class Fake(Dataset):
        classes = ("plane", "car")

        def __init__(self, root, train, transform, download):
            assert download and root == tmp_path / "datasets"
            self.length, self.transform = (30, 10)[not train], transform

        def __len__(self):
            return self.length

        def __getitem__(self, index):
            return self.transform(Image.new("RGB", (32, 32), (255, 0, 0))), index % 2

    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    dataset = data.torchvision_set("cifar10")
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    assert dataset.classes == ("plane", "car")
    image, _ = dataset.train[0]
    assert type(image) is torch.Tensor and image.dtype == torch.float32
    assert image.shape == (3, 32, 32) and image.amax() == 1
