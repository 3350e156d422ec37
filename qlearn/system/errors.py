"""Exceptions in words, for whoever did not write the code that raised them."""

import contextlib
import io
import linecache
import math
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1])
# Frames of a traceback, and files named in a message, that are not the author's.
LIBRARIES = ("site-packages", "dist-packages", "/lib/python", "<", PACKAGE)
MODELS = str(Path(PACKAGE, "models.py"))  # what a learner could have written
OURS = (ValueError, ArithmeticError, OSError, ImportError)  # raised here: whole sentences
PASSED = (*OURS[1:], MemoryError)  # of the system, or a sentence: they stay what they are
ELSEWHERE = "compute it outside the exported model, or write it with other operators"
# What a message says (a regular expression) → what it means, and the way out. The first that is
# found counts; a group in it is the operator, and {line} the line of the author's code.
CAUSES = {
    r"with arguments from the 'CPU' backend": (
        "a quantized layer received ordinary floats: put a QuantStub before it, or wrap the "
        "model in QuantWrapper"
    ),
    r"'QuantizedCPU' backend": (
        "an operator that only knows floats received a quantized tensor: dequantize before it, "
        "or use FloatFunctional for an addition"
    ),
    r"quint8\).*should be the same": (
        "a float layer stands inside the quantized region: quantize it too, or put a "
        "DeQuantStub before it"
    ),
    r"got Float and Byte|'function' object has no attribute 'device'|has no .* 'in_proj_bias'": (
        "PyTorch's transformer layers read the float weights of the layers inside them: call "
        "torch.backends.mha.set_fastpath_enabled(False), or leave those layers in float"
    ),
    r"'(?:function|method)' object has no|must be Tensor, not \w*(?:method|function)|"
    r"Tensor dispatch: attempting to run unimplemented": (
        "a layer's weight is used outside that layer{line}, and a quantized layer holds it packed: "
        "leave that layer in float, or compute with a float copy of its weight"
    ),
    r"prepack\(\) Expected a value of type 'List\[int\]' for argument 'padding'": (
        "an int8 convolution pads both sides alike, which padding='same' with an even kernel does "
        "not: pad with nn.ZeroPad2d before it"
    ),
    r"on quantized tensors|Got QUInt8 and Float": (
        "an operator that only knows floats received a quantized tensor: dequantize before it"
    ),
    r"'Tensor' and 'NoneType'|'NoneType' object has no attribute 'numel'|an undefined Tensor|"
    r"must be Tensor, not NoneType": (
        "tracing takes an argument of its forward that is None for a tensor{line}: wrap the model "
        "in a module that takes one tensor and gives the others"
    ),
    r"'NoneType' object has no attribute 'weight'": (
        "FX mode cannot leave a PReLU in float, and its int8 form is wrong: put a LeakyReLU in its "
        "place, or quantize the model by PT2E"
    ),
    r"Dimension out of range": (
        "a weight or a tensor has fewer dimensions than an operator asks for{line}: quantize per "
        "tensor, or keep that layer in float"
    ),
    r"'tuple' object has no attribute 'numel'": (
        "eager mode cannot observe a layer that returns a tuple, such as a GRU: leave it in float "
        "(qconfig = None), or quantize it dynamically"
    ),
    r"should be the same|have the same dtype|expected scalar type|to have dtype|"
    r"input data type|set_inputs\(\).*0x12": (
        "weights and inputs are of different types: call float() on the model, and give it "
        "float32 inputs"
    ),
    r"view size is not compatible": (
        "a convolution's output is channels_last here, as that of a quantized one always is: use "
        "flatten(1) instead of view"
    ),
    r"is not finite": (
        "weights or activations are not finite: look for a layer whose output is not isfinite()"
    ),
    r"Parametriz|as parameter 'weight'": (
        "a layer computes its weight anew in each call (weight_norm, spectral_norm): call "
        'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight") first'
    ),
    r"'\w*(?:Structured|Unstructured|PruningMethod)' object": (
        'a layer is pruned by a hook: call torch.nn.utils.prune.remove(layer, "weight") first'
    ),
    r"Fusion only for eval": "the model is in training mode: call eval() on it first",
    r"on device meta|out of meta tensor|called on meta tensors": (
        "its weights are on the meta device, without values: load a checkpoint into it first"
    ),
    r"OptimizedModule|dynamo-optimized": (
        "it comes from torch.compile: give the model that was compiled"
    ),
    r"variable number of arguments|Proxy object cannot be iterated": (
        "its forward takes any number of arguments, as that of DataParallel does (give "
        "model.module), or loops over a tensor{line}: write it without that"
    ),
    r"method->set_inputs\(\)|Got invalid dimensions for input": (
        "the file was exported for another shape or batch size: export it with an example of the "
        "shape that it will get"
    ),
    r"method->execute\(\) failed": (
        "the runtime has no kernel for the shapes or types that an operator of this model is "
        "given, such as those of a Conv3d: " + ELSEWHERE
    ),
    r"Failed to load method": (
        "XNNPACK does not take a part of this graph, such as weights that several layers share: "
        "give each layer weights of its own"
    ),
    r"shapes cannot be multiplied|to have \d+ channels, but got": (
        "the example inputs do not have the shape that the model takes, or a layer's packed weight "
        "is used outside that layer"
    ),
    r"missing \d+ required positional argument": (
        "the model takes several inputs: wrap it in a module that takes one tensor and splits it"
    ),
    r"symbolically traced variables cannot be used|Proxy. object": (
        "its forward decides in Python by a value or by the size of a tensor{line}: write it "
        "without that, or quantize the layers in eager mode"
    ),
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
    r"Missing out variants: \{'quantized_decomposed": (
        "ExecuTorch computes Linear and convolutions of one or two dimensions in int8, and a "
        "quantized layer of this model is another: export the float model"
    ),
    r"Missing out variants: \{'([\w:]+)'": "ExecuTorch has no operator {0}: " + ELSEWHERE,
    r"Operator: <EdgeOpOverload: ([\w.]+?)>": (
        "ExecuTorch does not take the types that its operator {0} is given{line}: " + ELSEWHERE
    ),
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'": (
        "ONNX has no operator for {0}{line}: " + ELSEWHERE
    ),
    r"Could not find an implementation for (\w+)": (
        "ONNX Runtime does not implement the operator {0} for these types: " + ELSEWHERE
    ),
    r"single top-level function": "TorchScript cannot compile a lambda: write it as a function",
    r"Can't redefine method": (
        "TorchScript has failed at this class before, when it was handed in for example: restart "
        "the kernel and export it first to see why, or export it to ExecuTorch or ONNX"
    ),
    r"Exporting a ScriptModule|exist in \w*ScriptModule|on ScriptModules": (
        "it is TorchScript already: give the nn.Module that it was made from"
    ),
}


class Refusal(ValueError):
    """A model, an input or a file that is refused: its message is the whole explanation."""


def require_positive(name: str, value: object) -> None:
    """Raise a ValueError when an argument is no finite number above 0."""
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}: give a number above 0.")


def require_whole(name: str, value: object) -> None:
    """Raise a ValueError when an argument is no whole number from 1, of Python or NumPy."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}: give a whole number from 1.")


def explain(error: BaseException) -> str:
    """Say what an error means, and what to do, with `name_error`; only that for an unknown one.

    A sentence of this package is returned as it is, without its full stop.

    Parameters
    ----------
    error
        What making, running or exporting a model raised.
    """
    if _is_ours(error):
        return str(error).rstrip(".")
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = " ".join(" ".join(str(link) for link in chain).split())
    code = _find_line(chain)
    # What the author raised explains itself.
    line = f", in the line `{code}`" if code and not code.startswith("raise ") else ""
    for sign, meaning in CAUSES.items():
        if found := re.search(sign, text):
            return f"{meaning.format(*found.groups(), line=line)} ({name_error(chain[-1])})"
    return name_error(chain[-1]) + line


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise an error of the block again, as a ValueError that says what failed, and why.

    This package's own sentences pass, and so do errors of the system.
    """
    held = io.StringIO()
    try:
        # A traced model prints its own traceback before it raises.
        with contextlib.redirect_stderr(held):
            yield
    except Exception as error:
        if isinstance(error, PASSED) or _is_ours(error):
            raise
        held.truncate(0)
        raise ValueError(f"{what}: {explain(error)}.") from error
    finally:
        sys.stderr.write(held.getvalue())


@contextlib.contextmanager
def exiting_on(*mistakes: type[Exception], code: int = 1) -> Iterator[None]:
    """Print the sentence of a user's mistake and exit."""
    import typer

    try:
        yield
    except mistakes as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None


def name_error(error: BaseException) -> str:
    """Return an exception's type and the line of its message that says why, cut after 160."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or ["no message"]
    # TorchScript puts its trace first, and the reason last.
    reason = lines[-1] if "TorchScript" in lines[0] else lines[0]
    reason = reason.removeprefix("builtins.").removeprefix("RuntimeError: ")
    said = textwrap.shorten(reason, 160, placeholder=" …")
    return f"{type(error).__name__}: {said.rstrip('.:')}"


def _is_ours(error: BaseException) -> bool:
    """Say whether code of this package raised an error, whose message is then a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, OURS) and bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _find_line(chain: list[BaseException]) -> str:
    """Return the innermost line of the author's code that the exceptions passed, or ""."""
    for error in reversed(chain):
        # TorchScript compiles, so the author's line is in its message and not in the traceback.
        named = re.findall(r'File "(.+?)", line (\d+)', str(error))
        frames = [
            (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
        for file, number in (*reversed(named), *reversed(frames)):
            if file == MODELS or not any(part in file for part in LIBRARIES):
                line = linecache.getline(file, int(number)).strip()
                return textwrap.shorten(line, 100, placeholder=" …")
    return ""
