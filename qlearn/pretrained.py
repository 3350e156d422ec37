"""Float base models, trained once with a fixed seed and kept in the cache folder."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qlearn import data, models
from qlearn.system import inventory
from qlearn.system.cache import home, save_atomically
from qlearn.system.turns import Counted, turn
from qlearn.training import evaluate, fit

if TYPE_CHECKING:
    from torchvision.models import ResNet

SEED = 0


@dataclass(frozen=True)
class Recipe:
    """How a base model is made.

    Attributes
    ----------
    model, data
        Builders of the untrained model and of its data set.
    stages
        Pairs of (epochs, learning rate), trained one after the other.
    batch
        Samples a step.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], data.DataSet]
    stages: tuple[tuple[int, float], ...]
    batch: int = 64


# In the order in which lessons need them, which is the order in which they are made.
RECIPES = {
    # The second stage settles it: at the first rate its accuracy jumps by points every epoch.
    "resnet18": Recipe(models.resnet18, lambda: data.digits(channels=3), ((5, 1e-3), (2, 1e-4))),
    "mlp": Recipe(models.MLP, data.digits, ((15, 1e-3),)),
    "depthwise_cnn": Recipe(models.DepthwiseCNN, data.digits, ((15, 1e-3),)),
    "phrase_lstm": Recipe(
        lambda: models.PhraseLSTM(data.VOCABULARY, len(data.LANGUAGES)), data.phrases, ((12, 2e-3),)
    ),
    "small_cnn": Recipe(models.SmallCNN, data.digits, ((8, 1e-3),)),
    "character_cnn": Recipe(
        lambda: models.DepthwiseCNN(classes=len(data.CHARACTERS)),
        data.characters,
        # At so high a rate channels die, as in MobileNets: one scale per tensor fails it.
        ((6, 3e-2), (2, 2e-3)),
    ),
    # Small batches: in so short a training the number of steps counts.
    "language_model": Recipe(
        lambda: models.SmallGPT(len(data.PIECES)), data.documentation, ((4, 2e-3), (1, 5e-4)), 16
    ),
}


def mlp() -> models.MLP:
    """Return the 784-256-128-10 MLP, trained on ``data.digits()``, in evaluation mode."""
    return _load("mlp")


def small_cnn() -> models.SmallCNN:
    """Return the small CNN, trained on ``data.digits()``, in evaluation mode."""
    return _load("small_cnn")


def depthwise_cnn() -> models.DepthwiseCNN:
    """Return the depthwise CNN, trained on ``data.digits()``, in evaluation mode."""
    return _load("depthwise_cnn")


def character_cnn() -> models.DepthwiseCNN:
    """Return the depthwise CNN, trained on ``data.characters()``, in evaluation mode.

    Some of its channels are dead, and have folded weights hundreds of times as large as the others.
    """
    return _load("character_cnn")


def phrase_lstm() -> models.PhraseLSTM:
    """Return the character LSTM, trained on ``data.phrases()``, in evaluation mode."""
    return _load("phrase_lstm")


def language_model() -> models.SmallGPT:
    """Return the small GPT, trained on ``data.documentation()``, in evaluation mode."""
    return _load("language_model")


def resnet18(weights: str | None = None) -> "ResNet":
    """Return a trained ResNet-18 in evaluation mode.

    Parameters
    ----------
    weights
        "imagenet": torchvision's, 1,000 classes, for normalized N×3×224×224 images.
        "digits": trained on ``data.digits(channels=3)``, 10 classes.
        None: the first when they can be had, else the second, with a notice.

    Raises
    ------
    ValueError
        If ``weights`` is none of these.
    RuntimeError
        If "imagenet" weights are asked for and cannot be had.

    References
    ----------
    torchvision.models.ResNet18_Weights.IMAGENET1K_V1.
    """
    if weights not in (None, "imagenet", "digits"):
        raise ValueError(f"weights is {weights!r}; choose 'imagenet', 'digits' or None.")
    if weights != "digits":
        try:
            return _imagenet()
        except RuntimeError as error:
            if weights == "imagenet":
                raise
            print(f"Notice: {error}\nThis ResNet-18 is trained on the embedded digits instead.")
    return _load("resnet18")


def _imagenet() -> "ResNet":
    """Return torchvision's ImageNet ResNet-18 from torch's cache, or download it."""
    from urllib.request import urlopen

    from torchvision.models import ResNet18_Weights
    from torchvision.models import resnet18 as build

    weights = ResNet18_Weights.IMAGENET1K_V1
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        if not kept.exists():
            # torch's own download waits for minutes where packets are dropped; this does not.
            urlopen(weights.url, timeout=5).close()
        return build(weights=weights).eval()
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"The ImageNet weights of ResNet-18 cannot be had ({error}); connect to the network, "
            f"or put {weights.url} at {kept}."
        ) from error


def prepare_all(force: bool = False, everything: bool = False) -> dict[str, str]:
    """Train every base model that is not in the cache yet.

    Parameters
    ----------
    force
        Train again what is there.
    everything
        Fetch ResNet-18's ImageNet weights too, which needs the network.

    Returns
    -------
    dict of str
        For each model "made" or "there", or "not kept" where it cannot be, which ends the attempt;
        for "imagenet", "unavailable" when it cannot be had.
    """
    states = {}
    for name in RECIPES:
        there = not force and _read(name) is not None
        if not there and not _make(name, force)[1]:
            return states | {name: "not kept"}
        states[name] = "there" if there else "made"
    inventory.record(map(path, RECIPES))
    if everything:
        try:
            _imagenet()
            states["imagenet"] = "there"
        except RuntimeError as error:
            print(f"Notice: {error}")
            states["imagenet"] = "unavailable"
    return states


def path(name: str) -> Path:
    """Return where the cache keeps a base model; the name changes with anything it is made by."""
    recipe = RECIPES[name]
    # A batch of 64 is not named: the models made before a recipe had one keep their files.
    stages = recipe.stages if recipe.batch == 64 else (recipe.stages, recipe.batch)
    made_by = (_build_empty(name), stages, SEED, torch.__version__, _torchvision_version())
    key = hashlib.sha256(repr(made_by).encode()).hexdigest()[:10]
    return home() / "models" / f"{name}-{key}.pt"


def _torchvision_version() -> str:
    """Return ``torchvision.__version__`` without importing it, which takes 2.5 s.

    The installed package's version lacks the label of its build (+cpu, +cu132), which is torch's.
    """
    return version("torchvision") + "".join(torch.__version__.partition("+")[1:])


def _build(name: str) -> nn.Module:
    """Return the untrained model, the same one every time; the caller's random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return RECIPES[name].model()


def _build_empty(name: str) -> nn.Module:
    """Return the model without its numbers: most of the time of building one is drawing them."""
    with torch.device("meta"):
        return RECIPES[name].model()


def _load(name: str) -> nn.Module:
    return _read(name) or _make(name)[0]


def _read(name: str) -> nn.Module | None:
    """Return the model from the cache, or None if it is absent or the file is damaged."""
    file = path(name)
    if not file.exists():
        return None
    model = _build_empty(name)
    try:
        model.load_state_dict(torch.load(file, weights_only=True), assign=True)
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, pickle.UnpicklingError):
        return None
    return model.eval()


def _make(name: str, force: bool = False) -> tuple[nn.Module, bool]:
    """Return the model, trained by this process or another one, and whether it is kept."""
    file = path(name)
    with turn(file, name):
        made = None if force else _read(name)  # by the process that had the turn before
        if made is not None:
            return made, True
        if not force and file.exists():
            print(f"Notice: {file} is damaged; {name} is trained again.")
        model = _train(name)
        try:
            save_atomically(model.state_dict(), file)
            return model, True
        except OSError as error:
            print(
                f"{name} cannot be kept in {file.parent} ({error.strerror}) and will be trained "
                "again: free some disk space, or set QLEARN_HOME to a folder on another disk."
            )
            return model, False


def _train(name: str) -> nn.Module:
    """Train a model as its recipe says."""
    recipe = RECIPES[name]
    print(f"Training {name} once; it is then kept in {home() / 'models'}.")
    model = _build(name)
    train, test = data.loaders(recipe.data(), recipe.batch, SEED)
    counted = Counted(train, sum(epochs for epochs, _ in recipe.stages), path(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for epochs, learning_rate in recipe.stages:
            fit(model, counted, epochs=epochs, learning_rate=learning_rate)
    print(f"Accuracy of {name} on the test set: {evaluate(model, test):.1%}")
    return model
