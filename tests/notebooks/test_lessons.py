"""Every lesson and every solution runs top to bottom, offline, as a learner would run it."""

import html
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))
# A lesson should take 90 s on two quiet cores: a hang fails here, a slow or busy machine does not.
LIMIT_SECONDS = 400

# What PyTorch says of some CPUs, and lessons 03 and 05 explain where it shows.
OF_THIS_CPU = "on CPU without Vector Neural Network Instruction support"

# Runs first in the kernel: whatever leaves this machine fails.
OFFLINE = """
import socket
def _refuse(self, address, _connect=socket.socket.connect):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the lesson reaches for the network: {address}")
    return _connect(self, address)
socket.socket.connect = _refuse
"""


def run(notebook, folder):
    """Execute a copy of the notebook that begins with `OFFLINE`; return the lesson's own cells."""
    cells = [nbformat.v4.new_code_cell(OFFLINE), *notebook.cells]
    guarded = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(
        guarded, timeout=LIMIT_SECONDS, kernel_name="python3", resources=resources
    ).execute()
    return guarded.cells[1:]


def test_the_network_is_refused(tmp_path):
    code = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1', timeout=5)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError, match="the lesson reaches for the network"):
        run(notebook, tmp_path)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs(path, capsys, base_models):
    before = time.perf_counter()
    cells = run(nbformat.read(path, as_version=4), path.parent)
    seconds = time.perf_counter() - before
    with capsys.disabled():
        print(f"\n{path.stem}: {seconds:.0f} s ", end="")
    assert seconds < LIMIT_SECONDS
    outputs = [out for c in cells if c.cell_type == "code" for out in c.outputs]
    pages = [out.data.get("text/html", "") for out in outputs if "data" in out]
    figures = [alt for page in pages for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page)]
    assert figures, "a lesson has at least one figure"
    assert all(len(html.unescape(alt)) > 40 for alt in figures), figures
    raw = [out for out in outputs if "data" in out and "image/png" in out.data]
    assert not raw, "every figure is shown by qlearn.show, with alternative text"
    errors = [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]
    noise = [
        text
        for text in errors
        if OF_THIS_CPU not in text or text.count("Warning: ") > text.count(OF_THIS_CPU)
    ]
    assert not noise, noise


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solution_runs(path, tmp_path, capsys, base_models):
    """Its own tests, visible and hidden, are cells of it: one that failed would raise here."""
    before = time.perf_counter()
    run(nbformat.read(path, as_version=4), tmp_path)
    with capsys.disabled():
        print(f"\n{path.stem}: {time.perf_counter() - before:.0f} s ", end="")
    assert any((tmp_path / "answers").iterdir())
