"""The report behind ``make bench``: each technique on each model, and ResNet-18 across engines.

Everything in it is measured when it is made. Nothing here fails because a number disappoints: the
last table says which expectations hold on this machine.
"""

import contextlib
import datetime
import importlib.metadata
import itertools
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qlearn import data, models, pretrained
from qlearn.bench import techniques, workers
from qlearn.bench.engines import EAGER, ENGINES, export_all
from qlearn.bench.report import (
    DYNAMIC,
    FLOAT,
    INT8_INSTRUCTIONS,
    PTQ4,
    QAT4,
    STATIC,
    TITLES,
    engines_section,
    expectations_section,
    four_bits_section,
    techniques_section,
)
from qlearn.benchmarking import compare
from qlearn.training import fit

BATCHES = 10  # of 64 training samples, to calibrate with


@dataclass(frozen=True)
class Settings:
    """How much to measure; the quick settings try the report out, they do not measure well."""

    models: tuple[str, ...] = tuple(pretrained.RECIPES)
    engines: tuple[str, ...] = tuple(ENGINES)
    engine_model: str = "resnet18"
    engine_pixels: int = 224
    rounds: int = 20
    seconds: float = 0.3  # for each engine in each round
    seeds: tuple[int, ...] = (0, 1, 2)
    float_epochs: int = pretrained.RECIPES["depthwise_cnn"].stages[0][0]
    qat_epochs: int = 8


QUICK = Settings(
    models=("mlp", "depthwise_cnn"),
    engines=(EAGER, "ExecuTorch fp32", "PyTorch eager int8", "ONNX Runtime int8",
             "OpenVINO int8"),
    engine_model="small_cnn",
    engine_pixels=28,
    rounds=5,
    seconds=0.05,
    seeds=(0,),
    float_epochs=1,
    qat_epochs=1,
)  # fmt: skip


def main(output: Path | None, quick: bool = False) -> None:
    """Measure, print the report as Markdown, and write it to a file if one is named.

    Parameters
    ----------
    output
        Where to write; folders are made. None prints only.
    quick
        Small models, few rounds, one seed: tries the report out in under a minute.
    """
    settings = QUICK if quick else Settings()
    # Progress bars go to stderr, so that stdout is the report and nothing else.
    with contextlib.redirect_stdout(sys.stderr):
        tables = {name: technique_table(name, settings) for name in settings.models}
        engines, skipped = engine_table(settings)
        correct = [four_bit_run(seed, settings) for seed in settings.seeds]
    title = f"{TITLES[settings.engine_model]}, {settings.engine_pixels}×{settings.engine_pixels}"
    sections = (
        "# qlearn benchmark" + (" (quick trial: its numbers mean little)" if quick else ""),
        machine(),
        "## Each technique on each model",
        techniques_section(tables),
        f"## {title}, batch 1, across engines",
        engines_section(engines, skipped),
        "## DepthwiseCNN with weights of 4 bits per tensor",
        four_bits_section(dict(zip(settings.seeds, correct, strict=True))),
        "## What should hold",
        expectations_section(
            tables, engines if settings.engine_model == "resnet18" else None, correct
        ),
    )
    report = "\n\n".join(sections) + "\n"
    print(report)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report, encoding="utf-8")


def machine() -> str:
    """Return the machine, the versions and the date as Markdown."""
    capabilities = torch.cpu.get_capabilities()
    flags = [key for key in ("avx2", *INT8_INSTRUCTIONS) if capabilities.get(key)]
    names = ("torch", "torchvision", "torchao", "onnxruntime", "executorch", "openvino")
    lines = {
        "CPU": capabilities.get("cpu_name") or platform.processor() or "unknown",
        "cores": f"{os.cpu_count()}, {torch.get_num_threads()} threads used by each engine",
        "instructions": ", ".join(flags) or "none for int8",
        "versions": ", ".join(f"{name} {_version(name)}" for name in names),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    return "\n".join(f"- {key}: {value}" for key, value in lines.items())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _sets(name: str) -> tuple[DataLoader, DataLoader]:
    return data.loaders(pretrained.RECIPES[name].data())


def _inputs(loader: DataLoader, batches: int = BATCHES) -> list[Tensor]:
    return [inputs for inputs, _ in itertools.islice(loader, batches)]


def _base(name: str) -> nn.Module:
    return pretrained.resnet18("digits") if name == "resnet18" else getattr(pretrained, name)()


def technique_table(name: str, settings: Settings) -> pd.DataFrame:
    """Compare the quantized forms of one base model; a row each, as ``compare`` returns them."""
    train, test = _sets(name)
    model, calibration = _base(name), _inputs(train)
    forms = {
        FLOAT: model,
        DYNAMIC: techniques.dynamic_int8(model),
        STATIC: techniques.static_int8(model, calibration),
    }
    if name == "depthwise_cnn":
        forms[PTQ4] = techniques.four_bit_ptq(model, calibration)
        torch.manual_seed(0)
        forms[QAT4] = techniques.four_bit_qat(model, train, settings.qat_epochs)
    example = calibration[0][:1]
    if name == "resnet18":  # timed at the size it was made for, judged on the digits' own
        example = _resized(example, 224)
    return compare(forms, example, test=test)


def _resized(images: Tensor, pixels: int) -> Tensor:
    return nn.functional.interpolate(images, size=(pixels, pixels), mode="bilinear")


def engine_table(settings: Settings) -> tuple[pd.DataFrame, dict[str, str]]:
    """Time one model on every engine; also return why engines were left out."""
    name, pixels = settings.engine_model, settings.engine_pixels
    train, test = _sets(name)
    calibration = list(_resized(_inputs(train, 1)[0][:16], pixels).split(1))
    example = _resized(_inputs(test, 1)[0][:1], pixels)
    with tempfile.TemporaryDirectory() as folder:
        export_all(_base(name), example, calibration, Path(folder))
        return workers.measure(
            Path(folder),
            settings.engines,
            torch.get_num_threads(),
            rounds=settings.rounds,
            seconds=settings.seconds,
        )


def four_bit_run(seed: int, settings: Settings) -> pd.DataFrame:
    """Train a DepthwiseCNN and its 4-bit forms; say for each test sample which were right."""
    train, test = data.loaders(data.digits(), seed=seed)
    torch.manual_seed(seed)
    model = models.DepthwiseCNN()
    fit(model, train, epochs=settings.float_epochs)
    forms = {
        FLOAT: model,
        PTQ4: techniques.four_bit_ptq(model, _inputs(train)),
        QAT4: techniques.four_bit_qat(model, train, settings.qat_epochs),
    }
    with torch.inference_mode():
        correct = {
            form: torch.cat([model(inputs).argmax(1) == labels for inputs, labels in test])
            for form, model in forms.items()
        }
    return pd.DataFrame({form: values.numpy() for form, values in correct.items()})
