import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from qlearn import data


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


def test_train_and_test_share_no_sample():
    for dataset in (data.digits(), data.phrases()):
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
    with pytest.raises(ValueError, match="at least 1"):
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
    with pytest.raises(ValueError, match="birds holds no readable image"):
        data.image_folder(small_folder, size=20)
    (small_folder / "test").rename(small_folder / "later")
    with pytest.raises(FileNotFoundError, match="no folder test/"):
        data.image_folder(small_folder, size=20)


def test_text_csv_reads_real_news_without_a_header(news_csv):
    dataset = data.text_csv(news_csv, text=1, label=0)
    assert dataset.classes == ("1", "2", "3", "4")
    assert len(dataset.train) + len(dataset.test) == 7600
    assert [labels_of(dataset.test).count(label) for label in range(4)] == [380] * 4
    ids, label = dataset.train[0]
    assert ids.shape == (64,) and ids.dtype == torch.int64 and isinstance(label, int)
    assert ids.max() < data.VOCABULARY
    other = data.text_csv(news_csv, text=2, label=0, test_share=0.5, length=100, seed=1)
    assert len(other.test) == 3800 and other.train[0][0].shape == (100,)


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
