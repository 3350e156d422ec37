"""Silence for exporters and runtimes, in Python and in C++."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from qlearn.system.errors import Refusal


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what exporters and runtimes print; show it after all if an exception passes.

    Python's streams are redirected, and the process's own (file descriptors 1 and 2) too, because
    C++ code writes there. Warnings and log records below ERROR are dropped. With a `Refusal`, which
    explains itself, nothing is shown.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    descriptors = [os.dup(1), os.dup(2)]
    disabled = logging.root.manager.disable
    with tempfile.TemporaryFile("w+", errors="replace") as held, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        os.dup2(held.fileno(), 1)
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            with contextlib.redirect_stdout(held), contextlib.redirect_stderr(held):
                yield
            failed = False
        except Refusal:
            failed = False
            raise
        finally:
            held.flush()
            for number, copy in enumerate(descriptors, 1):
                os.dup2(copy, number)
                os.close(copy)
            logging.disable(disabled)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read())
