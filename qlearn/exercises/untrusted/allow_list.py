"""What may stand in the description of an exported program's graph: an allow-list.

`torch.export.load` looks names up in `torch`, evaluates expressions with SymPy and writes names
into Python source that it then runs, so each text in the description has to be one that an honest
program holds.
"""

import ast
import json
import re
from typing import Any

import torch

from qlearn.exercises.untrusted.operators import is_harmless

NAMESPACES = ("aten", "export", "quantized_decomposed", "torchao")
SYMBOLIC = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled",
    *(f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not")),
    *(f"_operator.{name}" for name in (
        "add", "and_", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg", "or_",
        "pos", "pow", "sub", "truediv",
    )),
}  # fmt: skip
FUNCTIONS = set(
    "Abs Add And CeilDiv CeilToInt CleanDiv Equality Float FloatPow FloatTrueDiv FloorDiv "
    "FloorToInt GreaterThan Identity IntTrueDiv Integer LShift LessThan Max Min Mod "
    "ModularIndexing Mul Not Or Pow PowByNatural PythonMod RShift Rational RoundDecimal "
    "RoundToInt StrictGreaterThan StrictLessThan Symbol ToFloat TruncToFloat TruncToInt "
    "Unequality Where".split()
)
SYMBOL = re.compile(r"[a-z]{1,4}[0-9]{1,5}")
NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,30})?(e[-+]?[0-9]{1,3})?")
INFINITE = re.compile(r"-?Infinity|NaN")  # what JSON has no number for
NAME = re.compile(r"(?!__)\w{0,200}(\.(?!__)\w{1,100})*", re.ASCII)
VERSION = re.compile(r"[\w.+]{0,60}", re.ASCII)
TEXT = re.compile(r"[\w .,:>()\[\]+-]{0,200}", re.ASCII)  # no quote: some stand in source
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
PYTHON = ("as_custom_obj", "as_operator", "custom_obj", "token")  # arguments that are no data
SYNTAX = (
    ast.Expression, ast.Call, ast.Name, ast.Constant, ast.keyword, ast.Load, ast.UnaryOp, ast.USub,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult,
)  # fmt: skip


def require_allowed(value: Any, key: str = "") -> Any:
    """Return the description of a graph without what is only remembered about its source.

    Parameters
    ----------
    value
        A part of the description, as read from JSON.
    key
        What the part is called in the whole.

    Raises
    ------
    ValueError
        When a text in it is not one that an honest program holds.
    """
    if isinstance(value, dict):
        return {name: _entry(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [require_allowed(inner, key) for inner in value]
    if isinstance(value, str) and not _RULES.get(key, NAME.fullmatch)(value):
        what = _WORDS.get(key, "a name")
        raise ValueError(f"it holds {what} that no exported program has, {value[:60]!r}")
    return value


def _entry(name: str, value: Any) -> Any:
    if name in ("metadata", "treespec_namedtuple_fields"):  # stack traces and the like
        return {}
    if name == "guards_code":  # Python source; the shapes are checked without it
        return []
    if name in PYTHON:
        raise ValueError(f"it holds an object of Python ({name})")
    if not NAME.fullmatch(name):
        raise ValueError(f"it holds a name that no exported program has, {name[:60]!r}")
    return require_allowed(value, name)


def is_operator(target: str) -> bool:
    """Say whether a node's target is a harmless operator on tensors or sizes."""
    if target in SYMBOLIC:
        return True
    parts = target.split(".")
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or parts[2] not in NAMESPACES:
        return False
    if not is_harmless(parts[2], parts[3]) or not NAME.fullmatch(target):
        return False
    packet = getattr(getattr(torch.ops, parts[2]), parts[3], None)
    return isinstance(getattr(packet, parts[4], None), torch._ops.OpOverload)


def is_arithmetic(expression: str) -> bool:
    """Say whether an expression is arithmetic over symbols, as SymPy writes it.

    Parameters
    ----------
    expression
        Such as "Mul(Integer(2), Symbol('s31', positive=True, integer=True))".
    """
    if len(expression) > 2000:
        return False
    try:
        nodes = [*ast.walk(ast.parse(expression, mode="eval"))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, SYNTAX) and _is_plain(node) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS or SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(SYMBOL.fullmatch(node.value) or NUMBER.fullmatch(node.value))
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and abs(node.value) < 2**63
    return True


def _is_structure(text: str) -> bool:
    """Say whether inputs or outputs are tuples, lists and dicts: others import modules."""
    version, spec = json.loads(text)
    return version == 1 and _is_container(spec)


def _is_container(spec: dict) -> bool:
    context = spec["context"]
    keys = json.loads(context) if context is not None else None
    plain = keys is None or (
        isinstance(keys, list) and all(isinstance(k, str) and NAME.fullmatch(k) for k in keys)
    )
    return plain and spec["type"] in CONTAINERS and all(map(_is_container, spec["children_spec"]))


_RULES = {
    "target": is_operator,
    "expr_str": is_arithmetic,
    "in_spec": _is_structure,
    "out_spec": _is_structure,
    "as_string": TEXT.fullmatch,
    "as_strings": TEXT.fullmatch,
    "torch_version": VERSION.fullmatch,
    "as_float": INFINITE.fullmatch,
    "as_floats": INFINITE.fullmatch,
}
_WORDS = {
    "target": "an operator",
    "expr_str": "an expression",
    "in_spec": "a structure of inputs",
    "out_spec": "a structure of outputs",
}
