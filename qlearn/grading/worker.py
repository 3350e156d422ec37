"""What a worker does when it starts: `dask worker ADDRESS --preload qlearn.grading.worker`."""

import os
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave the terminal's group, so that Ctrl-C does not end what runs; import what costs.

    What workers that were killed left behind is removed.

    Parameters
    ----------
    worker
        The `distributed.Worker` that starts.
    """
    if os.getpid() != os.getpgrp():
        os.setpgid(0, 0)
    import qlearn.grading.scoring  # noqa: F401  not paid for by the first submission
    from qlearn.grading.roots import remove_leftovers

    remove_leftovers()
