"""What `qlearn lab` starts beside JupyterLab, and how that ends."""

import json
import os
import re
import sys
import time
from pathlib import Path

import psutil
import pytest

from qlearn import pretrained

ROOT = Path(__file__).parents[2]


def until(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def command_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.skipif(os.name != "posix", reason="elsewhere JupyterLab is a child of qlearn lab")
def test_what_makes_base_models_stands_back_and_ends_with_a_lab_that_is_killed(tmp_path):
    command = [sys.executable, "-m", "qlearn", "lab", "--no-browser"]
    environment = {**os.environ, "QLEARN_HOME": str(tmp_path)}
    with (tmp_path / "log").open("w") as log:
        lab = psutil.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: "jupyterlab" in command_of(lab))
        (beside,) = [c for c in lab.children() if "qlearn.system.background" in command_of(c)]
        until(lambda: beside.nice() == 10)
        assert beside.environ()["TQDM_DISABLE"] == "1", "no bars in JupyterLab's log"
        # Ctrl-C and a closed terminal reach sessions and groups; JupyterLab asks before it stops.
        assert os.getsid(beside.pid) == beside.pid != os.getsid(lab.pid)
    finally:
        lab.kill()
        lab.wait()
    until(lambda: not beside.is_running() or beside.status() == psutil.STATUS_ZOMBIE)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_models_are_made_in_the_order_in_which_lessons_need_them():
    needed = []
    for lesson in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(lesson.read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        needed += re.findall(r"pretrained\.(\w+)\(", code)
    assert list(dict.fromkeys(needed)) == list(pretrained.RECIPES)
