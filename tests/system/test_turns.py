"""Processes that need the same base model at once, that are killed, and that have no room."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from forking import context
from torch import nn

from qlearn import data, doctor, pretrained
from qlearn.system import background, inventory, turns
from qlearn.system.cache import home

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


class Held(nn.Module):
    """Two classes from four numbers; while there is a file `hold`, it stays where it is."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("ballast", torch.zeros(100_000))

    def forward(self, x):
        until(lambda: not (home() / "hold").exists())
        return self.linear(x)


def few():
    """Ten batches; each call is a training, and is noted."""
    with (home() / "trainings").open("a") as log:
        print(torch.get_num_threads(), "thread", file=log)
    samples = data.Samples(torch.linspace(-1, 1, 2560).reshape(640, 4), torch.arange(640) % 2)
    return data.DataSet(samples, samples, ["even", "odd"])


TINY = {"mlp": pretrained.Recipe(Held, few, ((1, 1e-3),))}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "RECIPES", TINY)
    return tmp_path


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def started(work, folder, name):
    """A process that does some work, and the file that holds what it prints."""
    said = folder / f"{name}.txt"
    process = context.Process(target=_child, args=(work, folder, said))
    process.start()
    return process, said


def _child(work, folder, said):
    os.environ["QLEARN_HOME"] = str(folder)
    pretrained.RECIPES = TINY
    with said.open("w", buffering=1) as out, contextlib.redirect_stdout(out):
        work()


def lesson():
    torch.set_num_threads(1)  # more would wait for each other on a busy machine
    torch.save(pretrained.mlp().state_dict(), home() / f"of-{os.getpid()}")


def finished(process):
    process.join(300)
    return process.exitcode


def left(folder):
    """What is in the cache beside models and their locks, which stay."""
    return [p.name for p in (folder / "models").iterdir() if p.suffix not in {".pt", ".lock"}]


def note_of(file):
    return file.with_name(f"{file.name}.progress")


def trainings(folder):
    return len((folder / "trainings").read_text().splitlines())


def test_two_that_need_the_same_model_train_it_once(cache):
    (cache / "hold").touch()
    first, _ = started(lesson, cache, "first")
    file = pretrained.path("mlp")
    until(note_of(file).exists)
    second, said = started(lesson, cache, "second")
    until(lambda: said.exists() and "0/10 batches" in said.read_text())
    row = doctor._base_models()
    assert row.verdict == "ok" and row.found == "1 missing, mlp being made"
    (cache / "hold").unlink()
    assert finished(first) == finished(second) == 0
    assert trainings(cache) == 1 and not left(cache) and not turns.taken(file)
    assert "Another process is training mlp; this one waits for it." in said.read_text()
    assert all(len(line) <= 80 for line in said.read_text().replace("\n", "\r").split("\r"))
    kept = torch.load(file)
    for copy in cache.glob("of-*"):
        assert all(torch.equal(value, kept[key]) for key, value in torch.load(copy).items())


def killed_while_it_saves():
    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        until(lambda: (home() / "second.txt").exists() and "waits" in _text(home() / "second.txt"))
        os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes = half
    lesson()


def _text(path):
    return path.read_text()


@posix
@pytest.mark.parametrize("moment", ["training", "saving"])
def test_when_the_trainer_is_killed_the_one_who_waits_takes_over(cache, moment):
    if moment == "training":
        (cache / "hold").touch()
    first, _ = started(lesson if moment == "training" else killed_while_it_saves, cache, "first")
    file = pretrained.path("mlp")
    until(note_of(file).exists)
    second, said = started(lesson, cache, "second")
    until(lambda: said.exists() and "waits for it" in said.read_text())
    assert not file.exists()
    if moment == "training":
        first.kill()
        (cache / "hold").unlink()
    assert finished(first) == -signal.SIGKILL and finished(second) == 0
    assert trainings(cache) == 2
    assert "Training mlp once" in said.read_text()
    assert not note_of(file).exists()
    assert torch.load(file).keys() == Held().state_dict().keys()


def without_room(work):
    """Let this process write 100 kB to a file at most: the kernel refuses the rest, as if full."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    work()


def lesson_without_room():
    torch.set_num_threads(1)
    without_room(pretrained.mlp)


def beside_a_lab():
    """The background process; `lab` is a pipe in the place of the lab's end of its input."""
    torch.set_num_threads(2)
    background._stand_back = (
        int  # on a busy machine it would take minutes; tests/test_background.py has it
    )
    os.dup2(os.open(home() / "lab", os.O_RDONLY), 0)
    background.main()


def background_without_room():
    without_room(beside_a_lab)


@pytest.fixture
def lab(cache):
    """Opens the lab's end of the pipe; closing it is the end of the lab."""
    os.mkfifo(cache / "lab")
    return lambda: (cache / "lab").open("w")


SENTENCE = "mlp cannot be kept in {} (File too large) and will be trained again: free some disk"


@posix
def test_without_room_a_lesson_goes_on_and_says_what_to_do(cache):
    process, said = started(lesson_without_room, cache, "lesson")
    assert finished(process) == 0
    assert said.read_text().count(SENTENCE.format(cache / "models")) == 1
    assert not left(cache) and not list(cache.glob("models/*.pt"))


@posix
def test_without_room_the_background_says_it_in_one_sentence_and_ends(cache, lab):
    process, said = started(background_without_room, cache, "background")
    with lab():
        assert finished(process) == 0
    assert said.read_text().count(SENTENCE.format(cache / "models")) == 1
    assert "All base models are there" not in said.read_text()
    assert not left(cache) and not inventory.complete()


@posix
def test_the_background_makes_what_is_missing_on_one_thread(cache, lab):
    process, said = started(beside_a_lab, cache, "background")
    with lab():
        assert finished(process) == 0
    assert (cache / "trainings").read_text() == "1 thread\n"
    assert "made in the background: mlp." in said.read_text()
    assert "All base models are there." in said.read_text()
    assert inventory.complete() and background.start() is None


@posix
def test_the_background_ends_with_the_lab_and_leaves_nothing(cache, lab):
    (cache / "hold").touch()
    process, said = started(beside_a_lab, cache, "background")
    with lab():
        until(note_of(pretrained.path("mlp")).exists)
    assert finished(process) == 1
    assert not left(cache) and not list(cache.glob("models/*.pt"))
    assert not turns.taken(pretrained.path("mlp"))


def test_a_model_that_was_deleted_is_missed(cache):
    pretrained.prepare_all()
    assert inventory.complete()
    pretrained.path("mlp").unlink()
    assert not inventory.complete()
