"""Waiting for a kernel that is not trusted to be there."""

import queue
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.channels import ZMQSocketChannel

from qlearn.grading.sandbox import SandboxUnavailable

START_SECONDS = 120  # a kernel that takes longer to answer will not


def await_kernel(client: BlockingKernelClient, manager: KernelManager, said: Path) -> None:
    """Wait until the kernel's own code has made the sockets and answers; it gets no cell before.

    Parameters
    ----------
    client
        Of the kernel, without channels until it can have them.
    manager
        Of the kernel.
    said
        The file with what its process has said.

    Raises
    ------
    SandboxUnavailable
        When it ends instead, or takes too long.
    """
    until = time.monotonic() + START_SECONDS
    wanted = [Path(f"{client.ip}-{getattr(client, f'{name}_port')}")
              for name in ("shell", "iopub", "control")]  # fmt: skip
    listens = False
    while manager.is_alive() and time.monotonic() < until:
        if not listens and (listens := all(map(_listens, wanted))):
            client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=True)
        if listens and _ready(client):
            return
        time.sleep(0.01)
    words = said.read_text(errors="replace").strip()[-500:]
    raise SandboxUnavailable(f"A kernel cannot be started here: {words}")


def _ready(client: BlockingKernelClient) -> bool:
    """Say whether the kernel answers within a second; once it does, nothing that it says is lost.

    jupyter_client's own wait goes on for 0.2 s after that.
    """
    request = client.kernel_info()
    return all(_answers(one, request) for one in (client.shell_channel, client.iopub_channel))


def _answers(channel: ZMQSocketChannel, request: str) -> bool:
    """Say whether a message that answers the request comes within a second."""
    with suppress(queue.Empty):
        while channel.get_msg(timeout=1)["parent_header"].get("msg_id") != request:
            pass
        return True
    return False


def _listens(path: Path) -> bool:
    """Say whether a socket takes connections: ours would not try again."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        return True
    except OSError:
        return False
