"""The one place where the course silences deprecation warnings, and says why.

PyTorch's legacy quantization API, TorchScript and the quantized dtypes ``quint8``, ``qint8`` and
``qint32`` work in the pinned release and warn on nearly every call. Lesson 00 shows one
of the warnings.
"""

import logging
import warnings

EXPLANATION = (
    "PyTorch announces the end of torch.ao.quantization, of TorchScript and of the quantized "
    "dtypes, in favour of torchao, torch.export and PT2E. All of them work in the release that "
    "this course pins; the lessons name the successor of each call, and qlearn silences these "
    "warnings, and only these."
)

# The start of each message, as a regular expression, and its category.
SILENCED: tuple[tuple[str, type[Warning]], ...] = (
    (r"torch\.ao\.quantization is deprecated", DeprecationWarning),
    (r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other", UserWarning),
    (r"Please use quant_min and quant_max to specify the range for observers", UserWarning),
    (r"`torch\.jit\.\w+` is deprecated", FutureWarning),
    (r"TypedStorage is deprecated", UserWarning),
)

# What `import torchao` logs of PyTorch's internals: a CUDA that a CPU course does not look for,
# and a call that torchao itself still makes the old way.
SILENCED_LOGGERS = ("torch.utils.cpp_extension", "torch.utils._pytree")


def silence() -> None:
    """Ignore the messages above; every other warning still shows."""
    for message, category in SILENCED:
        warnings.filterwarnings("ignore", message=message, category=category)
    for name in SILENCED_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
