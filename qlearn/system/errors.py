"""Exceptions in words, for whoever did not write the code that raised them."""

import contextlib
from collections.abc import Iterator

# What a part of a message means. The first that is found counts.
CAUSES = {
    "with arguments from the 'CPU' backend": (
        "a quantized layer received ordinary floats: put a QuantStub before it, or wrap the "
        "model in QuantWrapper"
    ),
    "'QuantizedCPU' backend": (
        "an operator that only knows floats received a quantized tensor: dequantize before it, "
        "or use FloatFunctional for an addition"
    ),
    "should be the same": "a float layer stands inside the quantized region: quantize it too, "
    "or put a DeQuantStub before it",
    "view size is not compatible": "the output of a quantized convolution is channels_last: "
    "use flatten(1) instead of view",
    "method->set_inputs()": "the ExecuTorch file was exported for another shape or batch size: "
    "export it with an example of the shape that it will get",
    "shapes cannot be multiplied": "the example inputs do not have the shape that the model takes",
}


def explain(error: BaseException) -> str:
    """Say what an error of a quantized model means, with `name_error`; only that for any other.

    Parameters
    ----------
    error
        What making or running the model raised.
    """
    text = str(error)
    meaning = next((meaning for sign, meaning in CAUSES.items() if sign in text), None)
    return f"{meaning} ({name_error(error)})" if meaning else name_error(error)


@contextlib.contextmanager
def explained(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raise such an error of the block again, as a ValueError that says what failed, and why."""
    try:
        yield
    except kinds as error:
        raise ValueError(f"{what}: {explain(error)}.") from error


def name_error(error: BaseException) -> str:
    """Return an exception's type and the line of its message that says why, cut after 160."""
    lines = str(error).strip().splitlines() or ["no message"]
    # TorchScript puts its trace first, and the reason last.
    reason = lines[-1].removeprefix("RuntimeError: ") if "TorchScript" in lines[0] else lines[0]
    return f"{type(error).__name__}: {reason[:160]}"
