"""The commands: what they print, and the exit code that scripts rely on."""

import errno
import importlib.metadata
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from typer.testing import CliRunner

from qlearn import doctor, pretrained
from qlearn.cli import app
from qlearn.system import lab


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, words)


def finding(subject):
    (found,) = [f for f in doctor.examine() if f.subject == subject]
    return found


def test_doctor_finds_that_this_machine_can_run_the_course(run):
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "The course can run." in result.output
    for subject in ("Python", "torch", "quantized engines", "CPU", "threads", "free memory"):
        assert subject in result.output
    for subject in ("cache", "base models", "Jupyter kernel", "Chromium", "bubblewrap"):
        assert subject in result.output


def test_doctor_fails_on_a_wrong_version_and_says_what_to_do(run, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "2.9.0" if name == "torch" else real(name)
    )
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL: torch. Run `make setup`" in result.output
    assert "The course cannot run yet." in result.output


def test_doctor_fails_on_a_missing_package(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    missing = finding("onnx")
    assert missing.verdict == "FAIL" and missing.found == "missing"


def test_doctor_fails_on_an_old_python(monkeypatch):
    version = namedtuple("version", "major minor micro")(3, 10, 1)
    monkeypatch.setattr(doctor.sys, "version_info", version)
    assert finding("Python").verdict == "FAIL" and "3.10.1" in finding("Python").found


def test_doctor_fails_without_a_kernel_of_this_environment(monkeypatch):
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    other = KernelSpec(argv=["/elsewhere/bin/python", "-m", "ipykernel_launcher"])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda self, name: other)
    assert finding("Jupyter kernel").verdict == "FAIL"


def test_doctor_fails_where_the_cache_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path / "file" / "cache"))
    assert finding("cache").verdict == "FAIL"
    assert "QLEARN_HOME" in finding("cache").remedy


def test_doctor_notes_missing_base_models(monkeypatch, tmp_path):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    assert finding("base models").verdict == "note"
    assert finding("base models").found == f"{len(pretrained.RECIPES)} missing"


def test_doctor_notes_programs_that_a_learner_can_do_without(run, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    result = run("doctor")
    assert result.exit_code == 0
    assert "note: Chromium. Only for browser tests" in result.output
    assert "note: bubblewrap. Only for grading" in result.output


def test_doctor_notes_a_cpu_without_integer_dot_products(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert finding("CPU").verdict == "note" and finding("CPU").found == "AVX2"


def test_prepare_does_nothing_the_second_time(run, base_models, monkeypatch):
    monkeypatch.setattr(pretrained, "fit", lambda *a, **k: pytest.fail("trained again"))
    result = run("prepare")
    assert result.exit_code == 0, result.output
    assert result.output.count("there") == len(pretrained.RECIPES)


def test_lab_without_the_lessons_says_so_in_a_sentence(run, monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "COURSE", tmp_path)
    result = run("lab")
    assert result.exit_code == 1
    assert f"The lessons are not in {tmp_path}" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lab", "--port", "99999"], "65535"),
        (["room", "--log", "/"], "is a directory"),
        (["phone", "--reports", "/"], "is a directory"),
    ],
)
def test_a_wrong_option_gets_a_sentence(run, words, sentence):
    result = run(*words)
    assert result.exit_code == 2 and sentence in result.output


def test_doctor_cuts_no_word_on_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert "…" not in run("doctor").output


def test_doctor_says_in_a_sentence_that_there_is_no_room(run, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor, "show", fail)
    result = run("doctor")
    assert result.exit_code == 1 and "(No space left on device): make room" in result.output


def test_importing_qlearn_costs_little_more_than_torch():
    code = (
        "import sys, torch; before = set(sys.modules); import qlearn; "
        "print(*(set(sys.modules) - before))"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert modules and all(name.startswith("qlearn") for name in modules), modules
