"""Why a model cannot be exported, in one sentence that names the operator or the line."""

import contextlib
import linecache
import re
import textwrap
import traceback
from collections.abc import Iterator

from qlearn import calibration
from qlearn.quantization import pt2e

# Where frames of a traceback, and files named in a message, are not the author's.
LIBRARIES = ("site-packages", "dist-packages", "/lib/python", "<", "qlearn/export")
LIBRARIES += (calibration.__file__, pt2e.__file__)
ELSEWHERE = "compute it outside the exported model, or write it with other operators"
# What a message says → what is wrong, and the way out. A group in brackets is the operator.
REASONS = {
    r"quantized\.(\w+?)PackedParams.*__obj_flatten__": (
        "it was quantized by torch.ao.quantization, and torch.export cannot read the packed "
        "weights of {0}: give the float model, with calibration inputs for int8"
    ),
    r"[Dd]ata-dependent": (
        "it decides in Python by the values of a tensor{line}: use torch.where or torch.cond there"
    ),
    r"Operator torch\._ops\.([\w.]+) is not in Core ATen": (
        "ExecuTorch has no operator {0}{line}: " + ELSEWHERE
    ),
    r"Missing out variants: \{'([\w:]+)'": (
        "ExecuTorch has no operator {0}, and it is none of PyTorch's own: " + ELSEWHERE
    ),
    r"Operator: <EdgeOpOverload: ([\w.]+?)>": (
        "ExecuTorch does not take the types that its operator {0} is given{line}: " + ELSEWHERE
    ),
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'": (
        "ONNX has no operator for {0}{line}: " + ELSEWHERE
    ),
    r"Could not find an implementation for (\w+)": (
        "ONNX Runtime does not implement the operator {0} for these types: " + ELSEWHERE
    ),
    r"Exporting a ScriptModule is not supported": (
        "it is TorchScript already: give the nn.Module that it was made from"
    ),
}


class Refusal(ValueError):
    """A model, an input or a file that is refused: its message is the whole explanation."""


@contextlib.contextmanager
def refusing(target: str) -> Iterator[None]:
    """Turn an exporter's exception into a `Refusal` of one sentence, which names the target.

    A missing file, a full disk and memory that is out stay what they are.
    """
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own; TorchScript raises one without a number
        raise Refusal(f"The model cannot be exported to {target}: {_explain(error)}.") from error


def _explain(error: BaseException) -> str:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = " ".join(" ".join(str(link) for link in chain).split())
    code = _find_line(chain)
    line = f", in the line `{code}`" if code else ""
    for pattern, sentence in REASONS.items():
        if found := re.search(pattern, text):
            return sentence.format(*found.groups(), line=line)
    first = re.sub(r"\x1b\[\d*m", "", str(chain[-1])).strip().partition("\n")[0].rstrip(".:")
    return f"{type(chain[-1]).__name__}: {textwrap.shorten(first, 160, placeholder=' …')}{line}"


def _find_line(chain: list[BaseException]) -> str:
    """Return the innermost line of the author's code that the exceptions passed, or ""."""
    for error in reversed(chain):
        # TorchScript compiles, so the author's line is in its message and not in the traceback.
        named = re.findall(r'File "(.+?)", line (\d+)', str(error))
        frames = [
            (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
        for file, number in (*reversed(named), *reversed(frames)):
            if not any(part in file for part in LIBRARIES):
                return linecache.getline(file, int(number)).strip()
    return ""
