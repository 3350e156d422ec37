"""One server of processes for all tests: it imports once what banks, classes and lessons import.

A Python process has one such server, whoever asks for it, and the list that was given last counts:
so there is one list.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import forkserver

import pytest

import qlearn.sweeps.row_process  # noqa: F401 - sets a list of its own, before the one below

PRELOADED = [
    "torch",
    "torchvision",
    "torchao.quantization",
    "torchao.quantization.pt2e.quantize_pt2e",
    "executorch.runtime",
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
    "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
    "pandas",
    "matplotlib.pyplot",
    "sklearn.datasets",
    "sklearn.model_selection",
    "scipy.stats",
    "distributed",
    "IPython",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "qlearn",
    "qlearn.exercises",
    "qlearn.system.background",
    "qlearn.benchmarking",
    "qlearn.exercises.checks",
    "qlearn.pretrained",
    "qlearn.grading.run",
    "qlearn.grading.scoring",
    "before_forks",
]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
context = multiprocessing.get_context("forkserver" if FORKS else "spawn")


def _start(start: Callable[[], None] = forkserver._forkserver.ensure_running) -> None:
    """Start the server, if there is none, so that it finds the tests' own modules.

    In Python 3.11 it does not take over `sys.path`. Nor shall its forks see that they belong to
    pytest: ipykernel would then not show what libraries write to the terminal.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        start()


if FORKS:
    context.set_forkserver_preload(PRELOADED)
    forkserver._forkserver.ensure_running = _start
