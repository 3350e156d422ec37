"""How a command ends when its user has made a mistake."""

import contextlib
from collections.abc import Iterator

import typer


@contextlib.contextmanager
def exiting_on(*mistakes: type[Exception], code: int = 1) -> Iterator[None]:
    """Print the sentence of a user's mistake and exit."""
    try:
        yield
    except mistakes as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None
