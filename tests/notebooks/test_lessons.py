"""Every lesson runs top to bottom, offline, as a learner would run it."""

import html
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# Twice what a lesson may take on two quiet cores: a hang fails here, a slow machine does not.
LIMIT_SECONDS = 180

# Runs first in the kernel: whatever leaves this machine fails.
OFFLINE = """
import socket
def _refuse(self, address, _connect=socket.socket.connect):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the lesson reaches for the network: {address}")
    return _connect(self, address)
socket.socket.connect = _refuse
"""


def run(path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LIMIT_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel():
        client.kc.execute_interactive(OFFLINE, silent=True, store_history=False)
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    return notebook


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs(path, capsys, base_models):
    before = time.perf_counter()
    notebook = run(path)
    seconds = time.perf_counter() - before
    with capsys.disabled():
        print(f"\n{path.stem}: {seconds:.0f} s ", end="")
    assert seconds < LIMIT_SECONDS
    outputs = [out for c in notebook.cells if c.cell_type == "code" for out in c.outputs]
    pages = [out.data.get("text/html", "") for out in outputs if "data" in out]
    figures = [alt for page in pages for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page)]
    assert figures, "a lesson has at least one figure"
    assert all(len(html.unescape(alt)) > 40 for alt in figures), figures
    raw = [out for out in outputs if "data" in out and "image/png" in out.data]
    assert not raw, "every figure is shown by qlearn.show, with alternative text"
    noise = [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not noise, noise
