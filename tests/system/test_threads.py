"""How threads wait: set in time in whatever starts Python, unless the learner has chosen."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from qlearn import doctor
from qlearn.system import threads

SEEN = "print({name: os.environ.get(name) for name in threads.SETTINGS}, threads.in_time)"
PLAIN = {name: value for name, value in os.environ.items() if name not in threads.CHOSEN}


def python(code, **variables):
    """What a new process without our settings prints."""
    command = [sys.executable, "-c", f"import os\n{code}"]
    done = subprocess.run(command, env=PLAIN | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_sets_them_before_pytorch_loads():
    assert python(f"from qlearn.system import threads\n{SEEN}") == f"{threads.SETTINGS} True"


def test_pytorch_that_was_there_first_is_noticed():
    seen = python(f"import torch\nfrom qlearn.system import threads\n{SEEN}")
    assert seen == f"{threads.SETTINGS} False", "its children still get them"


@pytest.mark.parametrize("name", threads.CHOSEN)
def test_who_has_chosen_is_left_alone(name):
    environment = {name: "7"}
    threads.set_waiting(environment)
    assert environment == {name: "7"}
    code = f"from qlearn.system import threads\nprint(os.environ[{name!r}])"
    assert python(code, **{name: "7"}) == "7"


def test_a_kernel_of_this_environment_has_them_however_it_was_started(monkeypatch):
    threads.install()
    assert threads.installed()
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    code = f"import os, torch\nfrom qlearn.system import threads\n{SEEN}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0].text.strip() == f"{threads.SETTINGS} True"


def test_what_somebody_else_has_written_for_kernels_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "KERNELS", tmp_path / "etc" / "config.py")
    threads.install()
    threads.install()
    assert threads.KERNELS.read_text() == threads.LINES
    threads.KERNELS.write_text("c.theirs = 1\n")
    threads.install()
    assert threads.KERNELS.read_text() == "c.theirs = 1\n" and not threads.installed()


@pytest.mark.parametrize(
    ("in_time", "there", "verdict", "words"),
    [
        (True, True, "ok", ""),
        (True, False, "note", "qlearn prepare"),
        (False, True, "note", "Restart the kernel"),
    ],
)
def test_the_doctor_says_when_they_are_not_set(in_time, there, verdict, words, monkeypatch):
    monkeypatch.setattr(threads, "in_time", in_time)
    monkeypatch.setattr(threads, "installed", lambda: there)
    (finding,) = [one for one in doctor.examine() if one.subject == "waiting threads"]
    assert finding.verdict == verdict and words in finding.remedy
    assert any(name in finding.found for name in threads.CHOSEN) or not in_time


def test_each_kind_of_kernel_that_grades_has_them():
    from qlearn.grading.limits import Limits
    from qlearn.grading.sandbox import environment

    assert threads.SETTINGS.items() <= environment(Limits(), "/", "/").items()
