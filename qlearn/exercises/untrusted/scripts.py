"""TorchScript of others: it runs no Python, and is refused when it names a file or a device."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qlearn.exercises.untrusted.archives import open_archive
from qlearn.exercises.untrusted.operators import is_harmless

CLASSES = {b"quantized", b"rnn"}  # packed weights
CLASS = re.compile(rb"torch\.classes\.(\w+)")


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
    _look_at(path)
    model = torch.jit.load(path, map_location="cpu").eval()
    require_pure_graphs(model)
    return model


def require_pure_graphs(model: torch.jit.ScriptModule) -> None:
    """Raise a ValueError if a model does more than compute with what it says it holds."""
    kinds = set()
    for node in _all_nodes(model):
        kinds.add(node.kind())
        # A wrong type would make PyTorch read beyond an object's end.
        if node.kind() == "prim::unchecked_cast" and _holds_object(node.output().type()):
            raise ValueError("it takes an object for one of another class, which no model needs")
    for kind in kinds:
        _require_pure(*kind.split("::", 1))
    for module in model.modules():
        _require_declared_types(module._c)


def _require_declared_types(module: torch._C.ScriptModule) -> None:
    """Raise a ValueError if a module holds another object than its class says it does.

    What no method of its own reads counts too: others read it through a container.
    """
    kinds = module._type().containedTypes()
    if any(map(_hides_object, kinds)):
        raise ValueError("it holds a list or a dict of objects, which no model needs")
    declared = [kind for kind in kinds if _holds_object(kind)]
    found = torch._C.ModuleDict(module).items()
    if len(declared) != len(found):
        raise ValueError("it holds an object that is no module, which no model needs")
    for kind, (_, part) in zip(declared, found, strict=True):
        if not part._type().isSubtypeOf(kind):
            raise ValueError(f"it holds {part._type().str()} where its code says {kind.str()}")


def _holds_object(kind: Any) -> bool:
    """Say whether values of a type are or contain objects, but for PyTorch's own."""
    if kind.kind() in ("ClassType", "InterfaceType"):
        return not kind.str().startswith("__torch__.torch.classes.")
    return any(map(_holds_object, kind.containedTypes()))


def _hides_object(kind: Any) -> bool:
    return kind.kind() != "ClassType" and any(map(_holds_object, kind.containedTypes()))


def load_lite_script(path: Path) -> Any:
    """Load a file of the lite interpreter, with bytecode that is written here.

    Its author's bytecode is not run: the interpreter follows an index that lies outside of its
    tables. The file holds the model as TorchScript too, which says the same.

    Parameters
    ----------
    path
        A file of the suffix ``.ptl``.

    Raises
    ------
    ValueError
        As `load_script`.
    """
    from torch.jit.mobile import _load_for_lite_interpreter

    written = load_script(path)._save_to_buffer_for_lite_interpreter()
    return _load_for_lite_interpreter(io.BytesIO(written))


def _look_at(path: Path) -> None:
    """Raise a ValueError when a file names a class that no model needs."""
    reader = open_archive(path)
    for record in reader.get_all_records():
        if record.endswith((".py", ".pkl")):
            for name in set(CLASS.findall(reader.get_record(record))) - CLASSES:
                raise ValueError(f"it holds an object of {name.decode()}, which no model needs")


def _require_pure(namespace: str, name: str = "") -> None:
    if not is_harmless(namespace, name):
        raise ValueError(f"it calls {namespace}::{name}, which no answer may: leave it out")


def _all_nodes(model: torch.jit.ScriptModule) -> Iterator[Any]:
    """Nodes of all methods, those that only interfaces, branches and forks reach too."""
    for module in model.modules():
        for name in module._c._method_names():
            yield from _nodes(module._c._get_method(name).inlined_graph)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))
