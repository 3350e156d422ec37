import os
import time
from pathlib import Path

import pytest
import torch
import torchvision

from qlearn import data, models, pretrained
from qlearn.benchmarking import compare
from qlearn.quantization import schemes
from qlearn.quantization.equalization import equalize
from qlearn.system.cache import home, save_atomically
from qlearn.training import evaluate


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """An empty cache and a single recipe that trains for a second."""
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    recipes = {"mlp": pretrained.Recipe(models.MLP, data.digits, ((1, 1e-3),))}
    monkeypatch.setattr(pretrained, "RECIPES", recipes)
    return tmp_path


def files(folder):
    """What is in the cache beside the locks, which stay, and the list of what is there."""
    names = {path.name for path in (folder / "models").iterdir()}
    return sorted(name for name in names if not name.endswith((".lock", ".txt")))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("mlp", 0.95),
        ("small_cnn", 0.96),
        ("depthwise_cnn", 0.96),
        ("character_cnn", 0.9),
        ("phrase_lstm", 0.72),
        ("resnet18", 0.97),
        ("language_model", 0.22),  # of 512 pieces
    ],
)
def test_base_models_are_accurate_on_data_they_have_not_seen(name, least):
    model = pretrained.resnet18("digits") if name == "resnet18" else getattr(pretrained, name)()
    _, test = data.loaders(pretrained.RECIPES[name].data())
    assert not model.training
    assert evaluate(model, test) >= least


def test_the_character_model_tells_schemes_apart_beyond_two_standard_errors():
    """What the embedded digits cannot: lessons 03, 04, 07 and 08 compare on it."""
    model, characters = pretrained.character_cnn(), data.characters()
    train, test = data.loaders(characters)
    arms = {
        "8 bits, per channel": schemes.static_fx(model, train),
        "8 bits, per tensor": schemes.static_fx(model, train, per_channel=False),
        "4 bits, per channel": schemes.static_fx(model, train, bits=4),
        "equalized": schemes.static_fx(equalize(model), train, per_channel=False),
        "float": model,
    }
    # Changes are over the first, paired by image.
    table = compare(arms, characters.test.inputs[:1], test, seconds=0.01)
    change, accuracy = table["accuracy_change"], table["accuracy"]
    for worse in ("8 bits, per tensor", "4 bits, per channel"):
        assert change[worse] < -2 * table.at[worse, "standard_error"], worse
    assert 0.9 <= accuracy["float"] <= 0.97
    assert accuracy["8 bits, per tensor"] < 0.6, "dead channels"
    assert min(accuracy["8 bits, per channel"], accuracy["equalized"]) > accuracy["float"] - 0.03


def test_a_file_is_named_by_the_torchvision_that_is_there():
    assert pretrained._torchvision_version() == torchvision.__version__


def test_a_learners_own_phrases_get_their_languages():
    """Most of them: which ones depends on the CPU that has trained the model."""
    model = pretrained.phrase_lstm()
    texts = {
        "Vereinigtes Königreich": "de",
        "Deutschland": "de",
        "the United States of America": "en",
        "Yhdistyneet kuningaskunnat": "fi",
        "Amerikan yhdysvallat": "fi",
        "Egyesült Államok": "hu",
        "Stany Zjednoczone": "pl",
        "Kuzey Adası": "tr",
        "Amerika Birleşik Devletleri": "tr",
    }
    ids = torch.stack([data.encode(text) for text in texts])
    guessed = [data.LANGUAGES[index] for index in model(ids).argmax(1)]
    assert sum(guess == truth for guess, truth in zip(guessed, texts.values(), strict=True)) >= 6


def test_a_model_is_trained_once_and_the_same_every_time(quick, capsys):
    first = pretrained.mlp()
    assert "Training mlp once" in capsys.readouterr().out
    kept = pretrained.mlp()
    assert capsys.readouterr().out == ""
    assert pretrained.prepare_all() == {"mlp": "there"}
    assert pretrained.prepare_all(force=True) == {"mlp": "made"}
    again = pretrained.mlp()
    x = data.digits().test.inputs
    assert not kept.training and torch.equal(first(x), kept(x)) and torch.equal(first(x), again(x))
    assert files(quick) == [pretrained.path("mlp").name]


def test_the_callers_random_state_is_not_disturbed(quick):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrained.mlp()
    pretrained.mlp()
    assert torch.equal(torch.rand(3), expected)


def test_another_recipe_is_another_file(quick, monkeypatch):
    before = pretrained.path("mlp")
    monkeypatch.setitem(
        pretrained.RECIPES, "mlp", pretrained.Recipe(models.MLP, data.digits, ((2, 1e-3),))
    )
    assert pretrained.path("mlp") != before
    assert pretrained.path("mlp") == pretrained.path("mlp")
    assert before.parent == quick / "models"


@pytest.mark.parametrize("content", [b"", b"not a model", "half"])
def test_a_damaged_file_is_noticed_and_replaced(quick, capsys, content):
    pretrained.mlp()
    file = pretrained.path("mlp")
    file.write_bytes(file.read_bytes()[:5000] if content == "half" else content)
    assert pretrained.mlp() is not None
    assert "is damaged; mlp is trained again" in capsys.readouterr().out
    pretrained.mlp()
    assert "Notice" not in capsys.readouterr().out


def test_an_interruption_leaves_nothing_half_written(quick, monkeypatch):
    def interrupted(path, content):
        with path.open("wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrained.mlp()
    assert files(quick) == []


def test_what_a_crash_left_is_removed_but_not_what_is_being_written(tmp_path):
    stale, fresh = tmp_path / ".making-a", tmp_path / ".making-b"
    for folder in (stale, fresh):
        folder.mkdir()
        (folder / "c.pt").write_bytes(b"half")
    os.utime(stale, (time.time() - 48 * 3600,) * 2)
    save_atomically({"weight": torch.ones(2)}, tmp_path / "c.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-b", "c.pt"]
    assert torch.equal(torch.load(tmp_path / "c.pt")["weight"], torch.ones(2))


def test_home_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("QLEARN_HOME")
    assert home().name.lower() == "qlearn"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))


def test_resnet18_offline_says_so_and_gives_the_digits_one(offline, capsys):
    model = pretrained.resnet18()
    assert "ImageNet weights of ResNet-18 cannot be had (no network)" in capsys.readouterr().out
    assert model.fc.out_features == 10
    with pytest.raises(RuntimeError, match="connect to the network, or put https://"):
        pretrained.resnet18("imagenet")
    with pytest.raises(ValueError, match="choose 'imagenet', 'digits' or None"):
        pretrained.resnet18("cifar")


def test_resnet18_takes_imagenet_weights_from_torchs_cache(offline, tmp_path, capsys):
    from torchvision.models import ResNet18_Weights

    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    state = models.resnet18(classes=1000).state_dict()
    torch.save(state, checkpoints / ResNet18_Weights.IMAGENET1K_V1.url.split("/")[-1])
    model = pretrained.resnet18()
    assert model.fc.out_features == 1000 and not model.training
    assert capsys.readouterr().out == ""


def test_prepare_everything_reports_weights_that_cannot_be_had(quick, offline, capsys):
    assert pretrained.prepare_all(everything=True) == {"mlp": "made", "imagenet": "unavailable"}
    assert "Notice: The ImageNet weights" in capsys.readouterr().out
