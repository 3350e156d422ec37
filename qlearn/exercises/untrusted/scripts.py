"""TorchScript of others: it runs no Python, and is refused when it names a file or a device."""

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qlearn.exercises.untrusted.archives import open_archive
from qlearn.exercises.untrusted.operators import is_harmless

CLASSES = {b"quantized", b"rnn"}  # packed weights
CLASS = re.compile(rb"torch\.classes\.(\w+)")
OPERATOR = re.compile(r"\w+::\w+")


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file in eval mode.

    Parameters
    ----------
    path
        A file of the suffix ``.pt``, or the TorchScript in one of ``.ptl``.

    Raises
    ------
    ValueError
        When it unpacks to too much, or holds what no model needs, such as an operator on files.
    """
    _looked_at(path)
    model = torch.jit.load(path, map_location="cpu").eval()
    require_pure_graphs(model)
    return model


def require_pure_graphs(model: torch.jit.ScriptModule) -> None:
    """Raise a ValueError if a model calls an operator that does more than compute."""
    for kind in set(_kinds(model)):
        _require_pure(*kind.split("::", 1))


def require_pure_bytecode(path: Path) -> None:
    """Refuse a file of the lite interpreter that `load_script` would refuse.

    Parameters
    ----------
    path
        A file of the suffix ``.ptl``: its operators are names in a pickle.
    """
    reader = _looked_at(path)
    if reader.has_record("bytecode.pkl"):
        for _, text, _ in pickletools.genops(reader.get_record("bytecode.pkl")):
            if isinstance(text, str) and OPERATOR.fullmatch(text):
                _require_pure(*text.split("::"))


def _looked_at(path: Path) -> torch._C.PyTorchFileReader:
    reader = open_archive(path)
    for record in reader.get_all_records():
        if record.endswith((".py", ".pkl")):
            for name in set(CLASS.findall(reader.get_record(record))) - CLASSES:
                raise ValueError(f"it holds an object of {name.decode()}, which no model needs")
    return reader


def _require_pure(namespace: str, name: str = "") -> None:
    if not is_harmless(namespace, name):
        raise ValueError(f"it calls {namespace}::{name}, which no answer may: leave it out")


def _kinds(model: torch.jit.ScriptModule) -> Iterator[str]:
    """Operators of all methods, those that only interfaces, branches and forks reach too."""
    for module in model.modules():
        for name in module._c._method_names():
            yield from _nodes(module._c._get_method(name).inlined_graph)


def _nodes(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))
