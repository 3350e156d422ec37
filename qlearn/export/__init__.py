"""From a model to a file that other runtimes load: TorchScript, ExecuTorch and ONNX."""

from qlearn.export.common import Exported
from qlearn.export.contents import executorch_contents
from qlearn.export.executorch_file import executorch, executorch_method
from qlearn.export.onnx_file import onnx, onnx_session
from qlearn.export.torchscript_file import torchscript, torchscript_module
from qlearn.system.noise import quiet

__all__ = [
    "Exported",
    "executorch",
    "executorch_contents",
    "executorch_method",
    "onnx",
    "onnx_session",
    "quiet",
    "torchscript",
    "torchscript_module",
]
