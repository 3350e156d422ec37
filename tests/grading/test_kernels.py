"""Kernels that do not start, machines that fail, and what is kept and removed all the same."""

import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest
from hostile import EARNED, NOTHING, exercise, source
from hostile.files import FILES

from qlearn.grading import forked, kernels, roots, scratch
from qlearn.grading.kernels import started
from qlearn.grading.limits import Limits
from qlearn.grading.outputs import Kept
from qlearn.grading.records import Exercise, Submission
from qlearn.grading.sandbox import SandboxUnavailable, command_of, user
from qlearn.grading.scoring import score

MODULES = {name: FILES[name] for name in ("launcher_handed_in", "own_module_handed_in")}
HONEST = exercise.notebook(**{k.replace("-", "_"): code for k, code in exercise.HONEST.items()})
NUMBER = Exercise("number", source())


def graded(sandboxed=True, notebook=HONEST, files=()):
    work = Submission("ann", "number", notebook, dict(files))
    return score(work, NUMBER, Limits(seconds=60), sandboxed)


@pytest.fixture
def no_template(monkeypatch):
    """Every kernel imports anew."""

    def fails(limits):
        raise RuntimeError("no template here")

    monkeypatch.setattr(forked, "template", fails)


@pytest.mark.parametrize("name", MODULES)
def test_modules_beside_the_notebook_are_the_learners_and_no_part_of_a_new_kernel(
    bubblewrap, no_template, name
):
    attack = MODULES[name]
    with pytest.warns(RuntimeWarning, match="every kernel imports anew"):
        verdict = graded(True, attack.notebook, attack.files)
    assert verdict.points == EARNED and verdict.reason == ""
    verdict = graded(False, attack.notebook, attack.files)
    assert verdict.points == EARNED and verdict.reason == ""


def test_without_a_template_no_sandbox_is_left(bubblewrap, no_template, tmp_path, monkeypatch):
    """Neither the one that was held open, nor one whose kernel cannot be started."""
    before = len(psutil.Process().children(recursive=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with started(tmp_path, Limits(), sandboxed=True) as kernel:
            assert kernel.run("1", 60)

        def fails(self, *_, **__):
            raise ValueError("it cannot be asked")

        monkeypatch.setattr(forked.SandboxProvisioner, "launch_kernel", fails)
        with pytest.raises(ValueError, match="cannot be asked"):
            with started(tmp_path, Limits(), sandboxed=True):
                pass
    assert len(psutil.Process().children(recursive=True)) == before


def test_a_kernel_that_does_not_start_is_blamed_on_whose_it_is(bubblewrap, monkeypatch):
    def refuses(times):
        calls = iter(range(100))

        def await_kernel(*words):
            if next(calls) < times:
                raise SandboxUnavailable("it ended")
            return awaited(*words)

        monkeypatch.setattr(kernels, "await_kernel", await_kernel)

    awaited = kernels.await_kernel
    refuses(2)
    verdict = graded()
    assert verdict.points == NOTHING and "its kernel did not start: it ended" in verdict.reason
    refuses(100)
    with pytest.raises(SandboxUnavailable):
        graded()


def test_a_full_disk_of_the_worker_is_no_verdict(monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"), scratch.scratch({"a": b"1"}):
        pass


@pytest.mark.parametrize("name", ["x" * 300, "a/b"])
def test_a_name_that_cannot_be_given_is_refused(name):
    with pytest.raises(scratch.Refused, match="cannot be named"):
        with scratch.scratch({"a": b"1", name: b"1"}):
            pass


def test_folders_of_processes_that_are_no_more_are_removed_and_of_others_kept(temporary):
    code = "import sys; from qlearn.grading import roots\n"
    code += "with roots.folder() as f: (f / 'd').mkdir(); print(f, flush=True); sys.stdin.read()"
    made = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(temporary)}, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    dead, alive = (Path(one.stdout.readline().strip()) for one in made)
    made[0].kill(), made[0].wait()
    (temporary / "qr-link").symlink_to(alive)
    roots.remove_leftovers()
    assert not dead.parent.exists() and (alive / "d").is_dir()
    made[1].communicate()
    assert not alive.parent.exists()


def test_sandboxes_of_processes_that_are_no_more_are_ended_and_of_others_kept(
    bubblewrap, temporary
):
    dead, alive = temporary / "qr-dead" / "work", roots._root(os.getpid(), str(temporary))
    dead.mkdir(parents=True)
    sandboxes = []
    for folder in (dead, alive / "work"):
        folder.mkdir(exist_ok=True)
        words = command_of("sleep", "300", folder=str(folder), limits=Limits(), user=user())
        sandboxes.append(subprocess.Popen(words))
    roots._root.cache_clear()  # as another worker, which starts now
    roots.remove_leftovers()
    assert sandboxes[0].wait(30) == -signal.SIGKILL and not dead.parent.exists()
    assert sandboxes[1].poll() is None
    sandboxes[1].kill(), sandboxes[1].wait()


def test_a_longer_time_is_one_for_cells_too():
    limits = Limits.within(7200, 1000)
    assert limits.cell_seconds == 2400
    assert Limits.within(1800, 4000) == Limits()
    assert Limits.within(20, 4000).cell_seconds == 20


def _error(name, size):
    content = {"ename": name, "evalue": "v" * size, "traceback": ["t" * size]}
    return {"msg_type": "error", "content": content}


def test_errors_count_and_the_first_is_always_kept():
    kept = Kept(50_000)
    for number in range(100):
        kept.take(_error(f"E{number}", 10**6))
    assert kept.outputs[0]["ename"] == "E0" and len(repr(kept.outputs)) < 120_000
    full = Kept(10)
    full.take({"msg_type": "stream", "content": {"text": "x" * 100}})
    full.take(_error("E", 10))
    assert full.outputs[-1]["ename"] == "E" and full.outputs[-1]["traceback"] == ["t" * 10]


LONG = """
kernel = get_ipython().kernel
def send(body, kind):
    message = kernel.session.msg(kind, content={}, parent=kernel.get_parent())
    ident, mark, _, *parts = kernel.session.serialize(message, b"x")
    signed = [*parts[:3], body]
    kernel.iopub_socket.send_multipart([ident, mark, kernel.session.sign(signed), *signed])
send(b'{"name": "stdout", "text": [' + b"[]," * 10**7 + b"[]]}", "stream")
"""


def test_a_message_that_is_too_long_is_not_read_and_that_is_said(tmp_path):
    with started(tmp_path, Limits(), sandboxed=False) as kernel:
        before = psutil.Process().memory_info().rss
        (said,) = kernel.run(LONG, 60)
        assert psutil.Process().memory_info().rss - before < 300 * 10**6
        assert "was not kept" in said["text"]
        assert kernel.run("print('x' * 5_000_000)", 60)[0]["text"].endswith("was not kept.\n")
        failed = kernel.run("raise ValueError('x' * 5_000_000)", 60)
        assert failed[-1]["output_type"] == "error" and "too long" in failed[-1]["evalue"]
        assert kernel.run("print(1)", 60)[0]["text"] == "1\n"


def test_all_cells_of_a_notebook_share_what_is_kept(bubblewrap, tmp_path):
    limits = Limits(output_kb=100, notebook_kb=250)
    with started(tmp_path, limits, sandboxed=True) as kernel:
        sizes = [len(repr(kernel.run("print('x' * 10**5)", 60))) for _ in range(5)]
        failed = kernel.run("1 / 0", 60)
    assert sum(sizes) < 300_000 and failed[-1]["ename"] == "ZeroDivisionError"
