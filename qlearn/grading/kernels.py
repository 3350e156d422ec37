"""One kernel that is not trusted: started, given cells, watched, and ended with all it started.

Nothing here waits for the kernel without a limit, keeps more of its output than allowed, or
believes what it says about itself.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from jupyter_client import BlockingKernelClient, KernelManager

from qlearn.grading import roots
from qlearn.grading.awaiting import await_kernel
from qlearn.grading.limits import Limits
from qlearn.grading.manager import ARGUMENTS, manager_of, sockets
from qlearn.grading.outputs import Kept
from qlearn.grading.sandbox import TEMPORARY
from qlearn.grading.watch import Hold, Usage, folder_use

GRACE_SECONDS = 3  # from an interrupt, or from a reply, to what must follow it
CHECK_SECONDS = 0.25  # between two looks at memory and disk


class Stopped(Exception):
    """The kernel was ended, or ended itself: a reason in words, and the outputs until then."""

    outputs: tuple[dict[str, Any], ...] = ()


class Ended(Stopped):
    """The kernel ended by itself, or something that is no part of the submission ended it."""


@dataclass
class Kernel:
    """A kernel that runs; see `started`."""

    client: BlockingKernelClient
    manager: KernelManager
    folders: tuple[Path, ...]  # that it can write to
    limits: Limits
    usage: Usage
    _kept: int = 0  # characters of output, of all cells
    _checked: float = 0.0
    _deaf: bool = False  # it no longer says when a cell is done

    def run(self, code: str, seconds: float) -> list[dict[str, Any]]:
        """Run a cell and return its outputs, as nbformat has them.

        Parameters
        ----------
        code
            Of the cell.
        seconds
            Wall time that is left for this and all other cells.

        Raises
        ------
        Stopped
            When a limit was reached or the kernel died; its ``outputs`` are those until then.
        """
        room = self.limits.notebook_kb * 1000 - self._kept
        kept = Kept(max(0, min(room, self.limits.output_kb * 1000)))
        try:
            self._run(code, kept, min(seconds, self.limits.cell_seconds))
        except Stopped as stopped:
            stopped.outputs = tuple(kept.outputs)
            raise
        finally:
            self._kept += kept.size
        return kept.outputs

    def _run(self, code: str, kept: Kept, seconds: float) -> None:
        shell, iopub = self.client.shell_channel, self.client.iopub_channel
        message = self.client.session.msg(
            "execute_request", {"code": code, "silent": False, "allow_stdin": False}
        )
        self._send(shell.socket, message)
        if seconds <= 0:
            raise Stopped(f"All cells together ran longer than {self.limits.seconds:.0f} s.")
        until, interrupted = time.monotonic() + seconds, False
        replied = done = 0.0
        while not (replied and done):
            ready = dict(self._poll([shell.socket, iopub.socket]))
            now = time.monotonic()
            if shell.socket in ready:
                reply = self._receive(shell.socket, message)
                replied = now if reply and reply["msg_type"] == "execute_reply" else replied
            if iopub.socket in ready:
                news = self._receive(iopub.socket, message)
                done = now if news and kept.take(news) else done
            if replied and not done and (self._deaf or now > replied + GRACE_SECONDS):
                self._deaf, done = True, now
                kept.cut()
            self._check(busy=not replied)
            if not replied and now > until:
                if interrupted:
                    raise Stopped(f"A cell ran longer than {seconds:.0f} s and did not stop.")
                interrupted, until = True, now + GRACE_SECONDS
                self._send(
                    self.client.control_channel.socket, self.client.session.msg("interrupt_request")
                )

    def _poll(self, sockets: list) -> list:
        poller = zmq.Poller()
        for one in sockets:
            poller.register(one, zmq.POLLIN)
        return poller.poll(100)

    def _send(self, socket: zmq.Socket, message: dict) -> None:
        try:
            self.client.session.send(socket, message)
        except zmq.ZMQError:
            raise Stopped("The kernel no longer takes messages.") from None

    def _receive(self, socket: zmq.Socket, request: dict) -> dict[str, Any] | None:
        """Return a message that answers the request; None for any other, or a broken one."""
        try:
            _, parts = self.client.session.feed_identities(socket.recv_multipart(zmq.NOBLOCK))
            message = self.client.session.deserialize(parts)
            answers = message["parent_header"].get("msg_id") == request["header"]["msg_id"]
            return message if answers else None
        except Exception:  # whatever a hostile kernel can send, RecursionError included
            return None

    def _check(self, busy: bool) -> None:
        """Raise `Stopped` when the kernel is dead or uses more than it may."""
        if busy and not self.manager.is_alive():
            raise Ended("The kernel ended by itself in the middle of a cell.")
        now = time.monotonic()
        if now < self._checked + CHECK_SECONDS:
            return
        self.usage.measure()
        if self.usage.memory_mb > self.limits.memory_mb:
            raise Stopped(f"It used more than {self.limits.memory_mb} MB of memory.")
        size, count = folder_use(self.folders, self.limits.files)
        if count > self.limits.files or size + self.usage.unlinked > self.limits.disk_mb * 10**6:
            raise Stopped(
                f"It wrote more than {self.limits.disk_mb} MB or {self.limits.files} files."
            )
        self._checked = time.monotonic()  # looking takes time too, and must not take all of it


@contextmanager
def started(
    folder: Path, limits: Limits, sandboxed: bool, readonly: bool = False
) -> Iterator[Kernel]:
    """Start a kernel in a folder; when the block ends, nothing that it started is left.

    Parameters
    ----------
    folder
        Where it works.
    limits
        What it may use.
    sandboxed
        Whether in bubblewrap.
    readonly
        Whether it cannot write to the folder (only in the sandbox).

    Raises
    ------
    SandboxUnavailable
        When no kernel can be started at all.
    """
    with roots.folder() as place, sockets() as context, open(place / "said", "w+") as said:
        manager = manager_of(place, folder, limits, sandboxed, readonly, context)
        client = BlockingKernelClient(context=context)
        usage = hold = None
        try:
            manager.start_kernel(
                cwd=str(folder), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                extra_arguments=ARGUMENTS,
            )  # fmt: skip
            process = manager.provisioner.process
            forked = getattr(manager.provisioner, "kernel_pid", None)
            inside = TEMPORARY if sandboxed else ()
            usage = Usage(folder, process.pid, *([forked] if forked else []), inside=inside)
            client.load_connection_info(manager.get_connection_info())
            await_kernel(client, manager, Path(said.name))
            hold = Hold(process)
            yield Kernel(client, manager, (folder, Path(manager.ip).parent), limits, usage)
        finally:
            if usage and manager.is_alive():
                usage.measure()
            _end(manager, hold)
            client.stop_channels()


def _end(manager: KernelManager, hold: Hold | None) -> None:
    """End the kernel and all that it started, also one that did not get as far as a hold on it."""
    process = getattr(manager.provisioner, "process", None)
    if process is not None:
        (hold or Hold(process)).end()
