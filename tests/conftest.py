"""Fixtures that several test files share."""

import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from qlearn import data, models, pretrained, training
from qlearn.system.deprecations import SILENCED

TESTS = Path(__file__).parent
# The files of which one process has most to do, so that no process is left with one at the end.
LONGEST = (
    "grading/test_same_grades.py",
    "exercises/test_ex2.py",
    "exercises/test_ex1.py",
    "grading/test_hostile.py",
    "exercises/test_ex3.py",
    "grading/test_kills.py",
    "exercises/test_ex5.py",
    "grading/test_guide.py",
    "exercises/test_ex4.py",
    "grading/test_faults.py",
    "notebooks/test_lessons.py",
    "benchmarks/test_bench.py",
)
SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared_file(name: str) -> Path:
    file = SHARED / name
    if not file.exists():
        pytest.skip(f"{file} is not on this machine")
    return file


@pytest.fixture(scope="session")
def news_csv() -> Path:
    """7,600 real news texts; columns by position: label, title, description."""
    return shared_file("ag_news_test.csv.gz")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 real colour photographs of 32x32 pixels in train/ and test/, ten classes."""
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(shared_file("cifar10_jpeg_5000.tar")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Silence in tests what qlearn silences for learners: pytest resets the filters."""
    for message, category in SILENCED:
        config.addinivalue_line("filterwarnings", f"ignore:{message}:{category.__name__}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    longest = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: longest.get(item.path, len(longest)))


class Scheduling(LoadFileScheduling):
    """A file's tests, which share fixtures, stay in one process; some go where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file.endswith("/test_lessons.py"):
            return nodeid
        if file.endswith("/test_same_grades.py"):
            return re.search(r"ex\d", nodeid)[0]  # the class of an exercise
        if file.endswith("/test_zoo.py"):
            return nodeid.partition("-")[0]  # a module: its data are made once
        return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Have `--dist loadfile` do so."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def needed(program: str, *names: str) -> str:
    """Path of a program that a user may lack: without it a test skips, and in CI it fails."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{program} is missing, and CI must not skip what needs it")
    if path is None:
        pytest.skip(f"{program} is not on this machine")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium."""
    return needed("Chromium", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def arm_tools() -> str:
    """The emulator of the Arm check; its cross-compiler is there too."""
    needed("An Arm cross-compiler", "aarch64-linux-gnu-g++")
    return needed("QEMU", "qemu-aarch64")


@pytest.fixture(scope="session")
def sshd() -> str:
    """The server of OpenSSH; its client is there too."""
    needed("ssh", "ssh")
    return needed("sshd", "sshd", "/usr/sbin/sshd")


@pytest.fixture(scope="session")
def base_models() -> None:
    """Every base model is in the cache, so that no lesson's time includes training one."""
    pretrained.prepare_all()


@pytest.fixture(scope="session")
def digit_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three batches of 64 training digits and their labels."""
    digits = data.digits().train
    images = torch.stack([digits[index][0] for index in range(192)])
    labels = torch.tensor([digits[index][1] for index in range(192)])
    return list(zip(images.split(64), labels.split(64), strict=True))


@pytest.fixture(scope="session")
def depthwise_cnn(digit_batches) -> models.DepthwiseCNN:
    """A depthwise CNN after a little training, so that its batch norms have met data."""
    torch.manual_seed(0)
    model = models.DepthwiseCNN()
    training.fit(model, digit_batches, epochs=2, learning_rate=3e-3)
    return model
