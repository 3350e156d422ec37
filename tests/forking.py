"""One server of processes for all tests: it imports once what banks, classes and lessons import.

A Python process has one such server, whoever asks for it, and the list that was given last counts:
so there is one list.
"""

import multiprocessing
import os
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
    "patterns",
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
]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    context.set_forkserver_preload(PRELOADED)
# It starts here, as it does not take over `sys.path`, in which are the tests' own modules; but only
# from pytest's process, not from those that come from the server, nor from the server itself.
ours = multiprocessing.parent_process() is None
if FORKS and ours and not hasattr(multiprocessing.current_process(), "_inheriting"):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
        forkserver.ensure_running()
