"""Imports that cost every process a second and are of no use to it."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

# Of its grammar, which few use, this package makes a parser as soon as it is imported; jsonschema
# imports it for a check of addresses, and nbformat, nbconvert and nbgrader import jsonschema.
IRI = "rfc3987_syntax"


def defer() -> None:
    """Have the parser of addresses made when one is first checked."""
    if IRI not in sys.modules and importlib.util.find_spec(IRI):
        sys.modules[IRI] = _Deferred(IRI)


class _Deferred(ModuleType):
    """Stands in for the package until somebody uses it."""

    def is_valid_syntax(self, term: str, value: str) -> bool:
        """Check an address; jsonschema takes this function when it is imported."""
        return _load().is_valid_syntax(term, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks whether it is a package
            raise AttributeError(name)
        return getattr(_load(), name)


def _load() -> ModuleType:
    """Return the package itself, which is there for all from now on."""
    if isinstance(sys.modules.get(IRI), _Deferred):
        del sys.modules[IRI]
    return importlib.import_module(IRI)
