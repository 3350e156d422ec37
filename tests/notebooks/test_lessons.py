"""Every lesson runs top to bottom, offline, as a learner would run it.

`tests/grading/test_same_grades.py` does the same with every solution.
"""

import ast
import html
import re
from pathlib import Path

import nbformat
import pytest
from forked import ForkedManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# For one cell, of a lesson that should take 90 s on two quiet cores: only a hang takes as long.
LIMIT_SECONDS = 900

# What PyTorch says of some CPUs, and lessons 03 and 05 explain where it shows.
OF_THIS_CPU = "on CPU without Vector Neural Network Instruction support"

# A machine whose only engine is the one for Arm.
ARM = """
import torch
torch.backends.quantized.__class__.supported_engines = ["qnnpack"]
torch.backends.quantized.engine = "qnnpack"
"""

# Nothing here reads a lesson's times: they are taken in a quarter of the rounds, for an instant.
BRIEF = """
from qlearn import benchmarking
def _brief(runs, seconds, _timed=benchmarking.interleaved_times):
    return _timed(runs, min(seconds, 0.05))
benchmarking.ROUNDS, benchmarking.interleaved_times = 5, _brief
"""

# Runs first in the kernel: whatever leaves this machine fails.
OFFLINE = """
import socket
def _refuse(self, address, _connect=socket.socket.connect):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the lesson reaches for the network: {address}")
    return _connect(self, address)
socket.socket.connect = _refuse
"""


def run(notebook, folder, **manager):
    """Execute a copy of the notebook that begins with `OFFLINE`; return the lesson's own cells."""
    cells = [nbformat.v4.new_code_cell(OFFLINE), *notebook.cells]
    guarded = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(
        guarded, timeout=LIMIT_SECONDS, kernel_name="python3", resources=resources, **manager
    ).execute()
    return guarded.cells[1:]


def beginning_with(code, path):
    """The notebook of a lesson, with a cell before it."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(code))
    return notebook


def outputs(cells):
    return [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]


def noise(cells):
    """What a learner sees in red, but for what is not the lesson's."""
    errors = [o.text for o in outputs(cells) if o.output_type == "stream" and o.name == "stderr"]
    return [
        text
        for text in errors
        if OF_THIS_CPU not in text or text.count("Warning: ") > text.count(OF_THIS_CPU)
    ]


def test_the_network_is_refused(tmp_path):
    code = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1', timeout=5)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError, match="the lesson reaches for the network"):
        run(notebook, tmp_path, kernel_manager_class=ForkedManager)


def test_what_the_lessons_import_says_nothing_and_needs_no_network(tmp_path):
    """In an ordinary kernel: those of the other tests have imported it before they begin."""
    cells = [c for p in LESSONS for c in nbformat.read(p, as_version=4).cells]
    trees = [
        ast.parse(c.source) for c in cells if c.cell_type == "code" and c.source[0] not in "%!"
    ]
    lines = [
        ast.unparse(n) for t in trees for n in t.body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    assert len(lines) > 50 and not noise(run(notebook, tmp_path))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs(path, base_models):
    cells = run(beginning_with(BRIEF, path), path.parent, kernel_manager_class=ForkedManager)
    pages = [out.data.get("text/html", "") for out in outputs(cells) if "data" in out]
    figures = [alt for page in pages for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page)]
    assert figures, "a lesson has at least one figure"
    assert all(len(html.unescape(alt)) > 40 for alt in figures), figures
    raw = [out for out in outputs(cells) if "data" in out and "image/png" in out.data]
    assert not raw, "every figure is shown by qlearn.show, with alternative text"
    assert not noise(cells)


@pytest.mark.long
@pytest.mark.parametrize("number", ["00", "02", "03", "05", "09"])
def test_lesson_runs_with_the_only_engine_that_arm_has(number, base_models):
    """Those that call kernels by name; what they print may differ, and no cell may fail."""
    path = next(path for path in LESSONS if path.stem.startswith(number))
    notebook = beginning_with(ARM + BRIEF, path)
    assert outputs(run(notebook, path.parent, kernel_manager_class=ForkedManager))
