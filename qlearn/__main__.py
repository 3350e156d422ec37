"""`python -m qlearn` is the command `qlearn`."""

from qlearn.cli import app

app()
