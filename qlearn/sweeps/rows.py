"""Rows of `qlearn.sweep` in the cache, each known by all that decides it.

`joblib.hash` does not serve here: it gives equal tensors different digests, and knows a function
by its name alone.
"""

import hashlib
import inspect
import json
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from torch.utils.data import DataLoader

from qlearn.data import DataSet
from qlearn.data.batches import SIZE, as_labels, batches_of
from qlearn.quantization.schemes import Scheme
from qlearn.system.cache import home, source_digest, write_whole

PLAIN = (bool, int, float, str, tuple, type(None))


def kept_row(path: Path) -> dict[str, float | str] | None:
    """Return a row from the cache, or None if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        print(f"Notice: {path} is damaged; its row is measured again.")
        return None


def keep_row(row: dict[str, float | str], path: Path) -> None:
    """Write a row to the cache."""
    with write_whole(path) as unfinished:
        unfinished.write_text(json.dumps(row), encoding="utf-8")


def digest_of(model: nn.Module, data: DataSet, batch: int) -> str | None:
    """Hash whatever a row depends on, its scheme apart; None for what has no bytes to hash."""
    digest = hashlib.sha256(source_digest("qlearn.sweeps.sweeping").encode())
    processor = torch.cpu.get_capabilities().get("cpu_name")
    settings = (processor, torch.backends.quantized.engine, torch.get_num_threads(), batch)
    digest.update(repr(settings).encode())
    try:
        for part in _parts_of_model(model):
            digest.update(part)
        for samples in (data.train, data.test):
            loader = DataLoader(samples, SIZE, generator=torch.Generator())
            for inputs, labels in batches_of(loader):
                digest.update(_bytes(inputs) + _bytes(as_labels(labels, inputs)))
    except (RuntimeError, TypeError, AttributeError):  # sparse, scripted or on another device
        return None
    return digest.hexdigest()


def path_of(content: str | None, scheme: Scheme) -> Path | None:
    """Return the file of a row; None where it cannot be told from others, and so is not kept."""
    if content is None:
        return None
    digest = hashlib.sha256(content.encode())
    try:
        for part in _parts_of_scheme(scheme):
            digest.update(part)
    except (TypeError, AttributeError, RuntimeError, pickle.PicklingError):
        return None
    return home() / "sweeps" / f"{digest.hexdigest()[:20]}.json"


def _parts_of_model(model: nn.Module) -> Iterator[bytes]:
    """Yield all that decides what a model computes: structure, methods, settings and tensors."""
    yield repr(model).encode()
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN)}
        yield repr((name, type(module).__qualname__, sorted(plain.items()))).encode()
    for kind in dict.fromkeys(kind for module in model.modules() for kind in type(module).__mro__):
        if not kind.__module__.startswith(("torch.", "builtins")):
            for name, function in vars(kind).items():
                yield name.encode() + _text(function).encode() if callable(function) else b""
    # Buffers that are not persistent are in no state_dict.
    for name, value in [*model.state_dict().items(), *model.named_buffers()]:
        yield name.encode() + _bytes(value)


def _parts_of_scheme(scheme: Scheme) -> Iterator[bytes]:
    """Yield what a scheme does: its text, its options, and the values that it refers to."""
    import cloudpickle

    bound = scheme if isinstance(scheme, partial) else partial(scheme)
    function = bound.func
    yield repr((bound.args, bound.keywords)).encode()
    if not inspect.isfunction(function):
        yield cloudpickle.dumps(function)
        return
    yield function.__module__.encode() + _text(function).encode()
    if function.__module__ == "qlearn.quantization.schemes":
        return  # all of that module is in the row's content
    yield repr((function.__defaults__, function.__kwdefaults__)).encode()
    variables = inspect.getclosurevars(function)
    for name, value in sorted({**variables.globals, **variables.nonlocals}.items()):
        yield name.encode()
        if isinstance(value, ModuleType):
            continue
        text = callable(value) and not isinstance(value, nn.Module)
        yield _text(value).encode() if text else cloudpickle.dumps(value)


def _text(function: object) -> str:
    """Return a function's source, or its byte code where the source is not at hand."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        if code is None:
            return repr(function)
        constants = [value for value in code.co_consts if isinstance(value, PLAIN)]
        return code.co_code.hex() + repr((code.co_names, constants))


def _bytes(value: object) -> bytes:
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    return value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
