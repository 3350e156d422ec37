"""qlearn: the boring parts of a course in quantizing PyTorch models.

Everything public is reachable from here and imported on first use, so that ``import qlearn``
costs little more than ``import torch``.
"""

from importlib import import_module
from typing import Any

from qlearn import deprecations

deprecations.silence()

__version__ = "0.1.0"

_MODULES = (
    "benchmarking",
    "calibration",
    "checks",
    "data",
    "export",
    "layerwise",
    "models",
    "plotting",
    "pretrained",
)
_HOMES = {
    "answers": "artifacts",
    "calibrate": "calibration",
    "compare": "benchmarking",
    "comparison": "plotting",
    "evaluate": "training",
    "fit": "training",
    "grid_histogram": "plotting",
    "hint": "hints",
    "latency": "benchmarking",
    "layer_bars": "plotting",
    "layer_errors": "layerwise",
    "loaders": "data",
    "model_size": "benchmarking",
    "observer_study": "calibration",
    "record": "calibration",
    "sensitivity": "layerwise",
    "show": "plotting",
    "sqnr": "calibration",
    "submit": "artifacts",
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
