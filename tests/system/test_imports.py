"""What an import of ours saves others: they find all of it when they ask for it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from qlearn.system.imports import IRI

CODE = """
import sys
import qlearn.grading
import jsonschema
assert "lark" not in sys.modules, "the parser was made"
checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
assert checker.conforms("https://example.org/ü", "iri")
assert not checker.conforms("no address", "iri")
import rfc3987_syntax
assert rfc3987_syntax.parse("iri", "a:b") and "lark" in sys.modules
assert rfc3987_syntax.__file__
"""


def test_the_parser_of_addresses_is_made_when_one_is_checked():
    if find_spec(IRI) is None:
        pytest.skip("jsonschema does not check addresses here")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
