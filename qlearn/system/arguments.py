"""What commands share: lists in their options, and a user's mistakes as a sentence and a code."""

from collections.abc import Iterator
from contextlib import contextmanager


def split_list(text: str) -> list[str]:
    """Return the names in a list with commas, and spaces around them or not."""
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def exiting_on(*mistakes: type[Exception], code: int = 1) -> Iterator[None]:
    """Print the sentence of a user's mistake and exit."""
    import typer

    try:
        yield
    except mistakes as error:
        typer.echo(_in_words(error), err=True)
        raise typer.Exit(code) from None


def _in_words(error: Exception) -> str:
    """Return the message of an error; the system's own name a number, and no way out."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or "What the command writes"
    return (
        f"{where} cannot be read or written ({error.strerror}): make room there, or name another "
        "place."
    )
