"""What a room's pages and notebooks send: checked against a JSON schema, kept as JSON lines."""

import json
import os
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match

_FORMATS = FormatChecker(formats=())
# One line, without control or direction characters.
_FORMATS.checks("printable")(lambda value: not isinstance(value, str) or value.isprintable())


def make_validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Return what checks messages against a schema, which may use the format "printable"."""
    return Draft202012Validator(schema, format_checker=_FORMATS)


def parse(body: bytes, what: str) -> Any:
    """Return the JSON in a request's body, or raise ValueError with a sentence."""
    try:
        # JSON has no NaN. A list stands for it, which no number's field allows: the sentence of
        # `validate` then names the field.
        return json.loads(body, parse_constant=lambda name: [name])
    except (ValueError, RecursionError):
        raise ValueError(f"The {what} is not JSON.") from None


def validate(message: Any, validator: Draft202012Validator, what: str) -> None:
    """Raise ValueError with a sentence if a message does not follow its schema."""
    if error := best_match(validator.iter_errors(message)):
        raise ValueError(_explain(error, what))


def _explain(error: ValidationError, what: str) -> str:
    """Return the mistake in a sentence, without the value, which may be anything."""
    where = ".".join(map(str, error.absolute_path)) or f"the {what}"
    if "propertyNames" in error.schema_path:
        return f"The field {where} names a model that the lab does not know."
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"The field {missing} is missing in {where}."
    if error.validator == "additionalProperties":
        return f"There is an unknown field in {where}."
    if error.validator == "type" and error.validator_value == "object":
        return f"The value of {where} is not an object."
    return f"The field {where} in the {what} has a value that is not allowed."


def append(path: Path, line: bytes) -> None:
    """Add a line with one write, and wait until the disk has it.

    If it cannot be written, the file stays as it was and OSError is raised.
    """
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
