"""What exporters and runtimes print, Python and C++ alike, is held back."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from qlearn.export.refusals import Refusal


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what exporters and runtimes print; show it after all if an exception passes.

    Python's streams are redirected, and the process's own (file descriptors 1 and 2) too, because
    C++ code writes there. Warnings and log records below ERROR are dropped. A `Refusal` says all
    that is to be said: nothing more is shown.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    disabled = logging.root.manager.disable
    with tempfile.TemporaryFile("w+", errors="replace") as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        unexplained = True
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                yield
            unexplained = False
        except Refusal:
            unexplained = False
            raise
        finally:
            said.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            logging.disable(disabled)
            if unexplained:
                said.seek(0)
                sys.stderr.write(said.read())
