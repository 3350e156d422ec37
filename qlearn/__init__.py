"""qlearn: the boring parts of a course in quantizing PyTorch models.

Everything public is reachable from here and imported on first use, so that ``import qlearn``
costs little more than ``import torch``.
"""

from importlib import import_module
from typing import Any

from qlearn import deprecations, threads

deprecations.silence()
threads.set_waiting()

__version__ = "0.1.0"

_MODULES = (
    "benchmarking",
    "calibration",
    "checks",
    "data",
    "export",
    "layerwise",
    "models",
    "phone",
    "plotting",
    "pretrained",
    "schemes",
)
_HOMES = {
    "LearnedStep": "learned_rounding",
    "adaround": "learned_rounding",
    "answers": "artifacts",
    "calibrate": "calibration",
    "compare": "benchmarking",
    "comparison": "plotting",
    "correct_bias": "repair",
    "equalize": "repair",
    "evaluate": "training",
    "fit": "training",
    "grid_histogram": "plotting",
    "hint": "hints",
    "latency": "benchmarking",
    "layer_bars": "plotting",
    "layer_errors": "layerwise",
    "loaders": "data",
    "low_bit_study": "low_bits",
    "mixed_precision": "deciding",
    "model_size": "benchmarking",
    "observer_study": "calibration",
    "pareto": "deciding",
    "pareto_fronts": "plotting",
    "record": "calibration",
    "sensitivity": "layerwise",
    "show": "plotting",
    "sqnr": "calibration",
    "submit": "artifacts",
    "sweep": "sweeping",
}

__all__ = ["deprecations", *_MODULES, *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"qlearn.{name}")
    if name in _HOMES:
        return getattr(import_module(f"qlearn.{_HOMES[name]}"), name)
    raise AttributeError(f"qlearn has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
