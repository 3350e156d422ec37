"""A stream for the kernels of nbgrader: what goes to stderr is shown as stdout.

nbgrader gives no points to a test cell that wrote to stderr, be it a warning or a progress bar.
"""

from typing import Any

from ipykernel.iostream import OutStream


class ShownAsStdout(OutStream):
    """ipykernel's stream, whatever its name, labelled stdout in the notebook."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Only now: the name also tells which of the process's streams is captured.
        self.name = "stdout"
