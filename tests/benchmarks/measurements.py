"""The measurements of ``make bench``: on which models and inputs, how often, how long."""

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import workers
from engines import EAGER, ENGINES, export_all
from report import DYNAMIC, FLOAT, STATIC
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qlearn import data, pretrained, schemes
from qlearn.benchmarking import compare

STEPS = 200  # of MobileNetV2's training


@dataclass(frozen=True)
class Settings:
    """How much to measure; the quick settings try the report out, they do not measure well."""

    models: tuple[str, ...] = tuple(pretrained.RECIPES)
    engines: tuple[str, ...] = tuple(ENGINES)
    # Model → height and width of its input.
    engine_models: Mapping[str, int] = field(
        default_factory=lambda: {"resnet18": 224, "mobilenet_v2": 224}
    )
    browser_model: str = "resnet18"
    browser_rounds: int = 20
    rounds: int = 20
    seconds: float = 0.3  # for each engine in each round


QUICK = Settings(
    models=("mlp", "depthwise_cnn"),
    engines=(EAGER, "ExecuTorch fp32", "ExecuTorch int8", "ONNX Runtime int8", "OpenVINO int8"),
    engine_models={"small_cnn": 28},
    browser_model="small_cnn",
    browser_rounds=3,
    rounds=5,
    seconds=0.05,
)  # fmt: skip


def _sets(name: str) -> tuple[DataLoader, DataLoader]:
    return data.loaders(pretrained.RECIPES[name].data())


def _inputs(loader: DataLoader, batches: int = schemes.CALIBRATION_BATCHES) -> list[Tensor]:
    return [inputs for inputs, _ in itertools.islice(loader, batches)]


def _base(name: str) -> nn.Module:
    return pretrained.resnet18("digits") if name == "resnet18" else getattr(pretrained, name)()


def technique_table(name: str, settings: Settings) -> pd.DataFrame:
    """Compare the quantized forms of one base model; a row each, as ``compare`` returns them."""
    train, test = _sets(name)
    model, calibration = _base(name), _inputs(train)
    forms = {
        FLOAT: model,
        DYNAMIC: schemes.int8_dynamic(model, train),
        STATIC: schemes.static_fx(model, calibration),
    }
    example = calibration[0][:1]
    if name == "resnet18":  # timed at the size it was made for, judged on the digits' own
        example = _resized(example, 224)
    return compare(forms, example, test=test)


def _resized(images: Tensor, pixels: int) -> Tensor:
    return nn.functional.interpolate(images, size=(pixels, pixels), mode="bilinear")


def engine_table(name: str, pixels: int, settings: Settings) -> tuple[pd.DataFrame, dict[str, str]]:
    """Time one model on every engine; also return why engines were left out."""
    mobile = name == "mobilenet_v2"
    train, test = _sets("resnet18" if mobile else name)
    model = mobilenet_v2() if mobile else _base(name)
    calibration = list(_resized(_inputs(train, 1)[0][:16], pixels).split(1))
    examples = list(_resized(_inputs(test, 1)[0][:16], pixels).split(1))
    with tempfile.TemporaryDirectory() as folder:
        failures = export_all(model, examples, calibration, Path(folder))
        files = {engine: ENGINES[engine].file for engine in settings.engines}
        table, skipped = workers.measure(
            Path(folder),
            [engine for engine, file in files.items() if file not in failures],
            torch.get_num_threads(),
            rounds=settings.rounds,
            seconds=settings.seconds,
        )
    return table, skipped | {e: failures[file] for e, file in files.items() if file in failures}


def mobilenet_v2(steps: int = STEPS) -> nn.Module:
    """Return torchvision's MobileNetV2 after some steps of training on the digits at 64×64.

    With random weights, rounding errors grow from layer to layer until int8 computes noise (below
    1 dB), and batch-norm statistics of 224×224 images alone do not change that. 200 steps at
    64×64 do, in a twelfth of the time that steps at 224×224 would take.
    """
    import torchvision

    train, _ = data.loaders(pretrained.RECIPES["resnet18"].data(), batch_size=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.mobilenet_v2(num_classes=10).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        batches = itertools.chain.from_iterable(itertools.repeat(train))
        for images, labels in itertools.islice(batches, steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(_resized(images, 64)), labels).backward()
            optimizer.step()
    return model.eval()
