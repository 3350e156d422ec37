"""From a model to a file that other runtimes load: TorchScript, ExecuTorch and ONNX.

``torchscript``, ``executorch`` and ``onnx`` below are functions, although modules of the same names
hold them: they are imported here at once, so that a later import of the module cannot replace them.
"""

from qlearn.export.common import Exported, calibration_inputs, replacing
from qlearn.export.contents import executorch_contents
from qlearn.export.executorch import executorch, executorch_method
from qlearn.export.noise import quiet
from qlearn.export.onnx import onnx, onnx_session
from qlearn.export.torchscript import torchscript, torchscript_module

__all__ = [
    "Exported",
    "calibration_inputs",
    "executorch",
    "executorch_contents",
    "executorch_method",
    "onnx",
    "onnx_session",
    "quiet",
    "replacing",
    "torchscript",
    "torchscript_module",
]
