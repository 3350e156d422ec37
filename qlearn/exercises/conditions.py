"""Under which conditions numbers were measured: they travel with an answer, and are set again."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from qlearn.system.machine_load import usable_cores


def conditions_of(thing: Any) -> dict[str, Any]:
    """Return threads, engine, processor and PyTorch's version that something was made with.

    And that the machine was busy, where `compare` noted it.

    Parameters
    ----------
    thing
        A table or row of `compare`, which says so itself, or a dict of such; for anything else
        the present settings.
    """
    parts = [thing, *thing.values()] if isinstance(thing, Mapping) else [thing]
    said = next((part.attrs for part in parts if getattr(part, "attrs", None)), {})
    found = {
        "threads": said.get("threads", torch.get_num_threads()),
        "engine": said.get("engine", torch.backends.quantized.engine),
        "processor": processor(),
        "torch": torch.__version__,
    }
    return found | {"busy": True} if said.get("note") else found


def processor() -> str:
    """Return the architecture and the widest instructions that PyTorch uses, as "x86_64 AVX2"."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@contextmanager
def under(conditions: Mapping[str, Any]) -> Iterator[None]:
    """Set threads and engine as they were, and back afterwards.

    What is no number of threads or no engine of this machine leaves the present setting, and
    there are never more threads than cores: whoever wrote the file could write anything.

    Parameters
    ----------
    conditions
        The record of an answer; it may be empty.
    """
    quantized = torch.backends.quantized
    before = torch.get_num_threads(), quantized.engine
    threads, engine = conditions.get("threads"), conditions.get("engine")
    try:
        if type(threads) is int and threads >= 1:  # True is no number of threads
            torch.set_num_threads(min(threads, len(usable_cores())))
        if isinstance(engine, str) and engine in quantized.supported_engines and engine != "none":
            quantized.engine = engine
        yield
    finally:
        torch.set_num_threads(before[0])
        quantized.engine = before[1]
