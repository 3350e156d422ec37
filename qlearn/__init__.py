"""qlearn: the boring parts of a course in quantizing PyTorch models.

Everything public is reachable from here and imported on first use, so that ``import qlearn``
costs little more than ``import torch``. ``__init__.pyi`` lists the same names for editors.
"""

from importlib import import_module
from typing import Any

from qlearn.system import deprecations, threads

deprecations.silence()
threads.set_waiting()

__version__ = "0.1.0"

# Name → module; some names are older than the module's.
_MODULES = {
    "arm": "export.arm",
    "benchmarking": "benchmarking",
    "calibration": "calibration",
    "checks": "exercises.checks",
    "data": "data",
    "device": "export.device",
    "doctor": "system.doctor",
    "export": "export",
    "layerwise": "quantization.sensitivity",
    "low_bits": "sweeps.few_bits",
    "models": "models",
    "phone": "room.phone",
    "plotting": "plotting",
    "pretrained": "pretrained",
    "qconfigs": "quantization.qconfigs",
    "repair": "quantization.equalization",
    "schemes": "quantization.schemes",
}
_HOMES = {
    "LearnedStep": "quantization.lsq",
    "adaround": "quantization.adaround",
    "against": "exercises.your_turn",
    "answers": "exercises",
    "calibrate": "calibration",
    "compare": "benchmarking",
    "comparison": "plotting",
    "correct_bias": "quantization.equalization",
    "equalize": "quantization.equalization",
    "evaluate": "training",
    "fit": "training",
    "grid_histogram": "plotting",
    "hint": "exercises.hints",
    "join": "room.learner",
    "latency": "benchmarking",
    "layer_errors": "quantization.sensitivity",
    "leave": "room.learner",
    "loaders": "data",
    "low_bit_study": "sweeps.few_bits",
    "mixed_precision": "quantization.mixed_precision",
    "model_size": "benchmarking",
    "observer_study": "calibration",
    "pareto": "sweeps.pareto",
    "pareto_fronts": "plotting",
    "play": "plotting",
    "raise_hand": "room.learner",
    "record": "calibration",
    "sensitivity": "quantization.sensitivity",
    "share": "room.learner",
    "show": "plotting",
    "sqnr": "calibration",
    "start": "exercises",
    "submit": "exercises",
    "sweep": "sweeps.sweeping",
    "your_turn": "exercises.your_turn",
}

__all__ = ["deprecations", *_MODULES, *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"qlearn.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(import_module(f"qlearn.{_HOMES[name]}"), name)
    raise AttributeError(f"qlearn has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
