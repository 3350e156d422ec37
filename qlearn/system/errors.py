"""Exceptions in words."""


def explain(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"
