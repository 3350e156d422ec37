"""What jupyter_client needs to start one kernel that is not trusted."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from qlearn.grading.limits import Limits
from qlearn.grading.sandbox import configuration, environment
from qlearn.system.cache import home as cache_folder

MESSAGE_MB = 64  # a message that is larger ends the connection
READ_MB = 4  # and what is in a larger one is not read: as objects it takes 30 times that
SPEC = "qlearn-kernel"
# As `python -m ipykernel_launcher` does, but a file of that name in the folder is not it. IPython
# puts the folder back, after the standard library, so that learners can import what is theirs.
LAUNCH = (
    "import sys; sys.path[:] = [place for place in sys.path if place]; "
    "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
ARGUMENTS = [
    "--HistoryManager.hist_file=:memory:",
    "--IPKernelApp.outstream_class=qlearn.system.kernel.ShownAsStdout",  # see nbgrader_config.py
]


def manager_of(
    place: Path, folder: Path, limits: Limits, entrance: Iterable[str] | None, readonly: bool,
    learner: str, context: zmq.Context,
) -> KernelManager:  # fmt: skip
    """Return what starts the kernel; its sockets are in a folder of their own.

    Parameters
    ----------
    place
        An empty folder for what it takes.
    folder
        Where the kernel works.
    limits
        What it may use.
    entrance
        Of its control group; None to start it without a sandbox.
    readonly
        Whether without the right to write to ``folder``, in a sandbox.
    learner
        As in `Submission`.
    context
        From `sockets`.
    """
    inside = place / "s"  # short, as the path of a socket must be
    inside.mkdir()
    home, cache = str(Path.home()), str(cache_folder())
    spec: dict[str, Any] = {"env": environment(limits, home, cache, learner)}
    if entrance is not None:
        provisioner = configuration(folder, inside, limits, readonly, entrance, learner)
        spec = {"metadata": {"kernel_provisioner": provisioner}}
    _write_spec(place / SPEC, spec)
    return KernelManager(
        kernel_name=SPEC,
        kernel_spec_manager=KernelSpecManager(
            kernel_dirs=[str(place)], ensure_native_kernel=False, allowed_kernelspecs=set()
        ),
        context=context,
        transport="ipc",
        ip=str(inside / "k"),
        connection_file=str(inside / "c.json"),
    )


@contextmanager
def sockets() -> Iterator[zmq.Context]:
    """Sockets that neither queue without limit nor connect again to what the kernel may plant."""
    context = zmq.Context()
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.RCVHWM, 1000),
        (zmq.MAXMSGSIZE, MESSAGE_MB * 10**6),
        (zmq.RECONNECT_IVL, -1),
    ):
        context.setsockopt(option, value)
    try:
        yield context
    finally:
        context.destroy(linger=0)


def _write_spec(place: Path, more: dict[str, Any]) -> None:
    """Write the kernelspec that names the provisioner, or the kernel as it is."""
    argv = [sys.executable, "-c", LAUNCH, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": SPEC, "language": "python", "interrupt_mode": "message"}
    place.mkdir()
    (place / "kernel.json").write_text(json.dumps({**spec, **more}))
