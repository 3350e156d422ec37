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
from qlearn.grading.cgroups import Group, hierarchy
from qlearn.grading.clock import Clock, Slow, Stopped
from qlearn.grading.disk import folder_use, unlinked
from qlearn.grading.limits import Limits
from qlearn.grading.manager import ARGUMENTS, READ_MB, manager_of, sockets
from qlearn.grading.outputs import TOO_LONG, Kept, error
from qlearn.grading.processes import Processes, end

GRACE_SECONDS = 3  # of CPU time, from an interrupt, or from a reply, to what must follow it
CHECK_SECONDS = 0.25  # between two looks at memory and disk


class Ended(Stopped):
    """The kernel ended by itself, or something that is no part of the submission ended it."""


@dataclass
class Kernel:
    """A kernel that runs; see `started`."""

    client: BlockingKernelClient
    manager: KernelManager
    folders: tuple[Path, ...]  # that it can write to
    limits: Limits
    usage: Group | Processes
    spent: float = 0.0  # seconds of all cells, as `Clock` counts them
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
            What is left for this and all other cells, as `Clock` counts it.

        Raises
        ------
        Stopped
            When a limit was reached or the kernel died; its ``outputs`` are those until then.
        """
        room = self.limits.notebook_kb * 1000 - self._kept
        kept = Kept(max(0, min(room, self.limits.output_kb * 1000)))
        clock = Clock(self.usage, self.limits.patience)
        try:
            self._run(code, kept, min(seconds, self.limits.cell_seconds), clock)
        except Stopped as stopped:
            stopped.outputs = tuple(kept.outputs)
            raise
        finally:
            self.usage.measure()
            self.spent += clock.seconds
            self._kept += kept.size
        return kept.outputs

    def _run(self, code: str, kept: Kept, seconds: float, clock: Clock) -> None:
        shell, iopub = self.client.shell_channel, self.client.iopub_channel
        message = self.client.session.msg(
            "execute_request", {"code": code, "silent": False, "allow_stdin": False}
        )
        self._send(shell.socket, message)
        if seconds <= 0:
            raise Stopped(f"All cells together ran longer than {self.limits.seconds:.0f} s.")
        most, interrupted = seconds, False
        reply, done, replied = None, False, 0.0
        while not (reply and done):
            ready = dict(self._poll([shell.socket, iopub.socket]))
            if shell.socket in ready and not reply:
                reply, replied = self._receive(shell.socket, message), clock.seconds
                reply = reply if reply and reply["msg_type"] == "execute_reply" else None
            if iopub.socket in ready:
                news = self._receive(iopub.socket, message)
                done = done or bool(news and kept.take(news))
            if reply and not done and (self._deaf or clock.seconds > replied + GRACE_SECONDS):
                self._deaf = done = True
                kept.cut()
            self._check(clock, busy=not reply)
            if not reply and clock.seconds > most:
                if clock.starved and clock.cpu_seconds < most:
                    raise Slow(f"This machine is too busy to run a cell of {seconds:.0f} s.")
                self._interrupt(seconds, again=interrupted)
                interrupted, most = True, clock.seconds + GRACE_SECONDS
        if _failed(reply) and not any(one["output_type"] == "error" for one in kept.outputs):
            kept.outputs.append(error("Failed", "The cell failed, and what it said was lost."))

    def _interrupt(self, seconds: float, again: bool) -> None:
        """Interrupt a cell that took longer than it may, or raise `Stopped`."""
        if again:
            raise Stopped(
                f"A cell ran longer than {seconds:.0f} s of CPU time, or {self.limits.patience:g} "
                "times that by the clock, and did not stop."
            )
        self._send(self.client.control_channel.socket, self.client.session.msg("interrupt_request"))

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
            if any(len(part) > READ_MB * 10**6 for part in parts[:4]):  # not even what it answers
                return None
            short = all(len(part) <= READ_MB * 10**6 for part in parts)
            message = self.client.session.deserialize(parts, content=short)
            message["content"] = message["content"] if short else TOO_LONG
            answers = message["parent_header"].get("msg_id") == request["header"]["msg_id"]
            return message if answers else None
        except Exception:  # whatever a hostile kernel can send, RecursionError included
            return None

    def _check(self, clock: Clock, busy: bool) -> None:
        """Raise `Stopped` when the kernel is dead or uses more than it may."""
        ended = busy and not self.manager.is_alive()
        if not ended and time.monotonic() < self._checked + CHECK_SECONDS:
            return
        clock.look()
        if self.usage.out_of_memory:
            raise Stopped(f"It used more than {self.limits.memory_mb} MB of memory.")
        if ended:
            raise Ended("The kernel ended by itself in the middle of a cell.")
        size, count = folder_use(self.folders, self.limits.files)
        size += unlinked(self.usage.members, self.folders[0].stat().st_dev)
        if count > self.limits.files or size > self.limits.disk_mb * 10**6:
            raise Stopped(
                f"It wrote more than {self.limits.disk_mb} MB or {self.limits.files} files."
            )
        self._checked = time.monotonic()  # looking takes time too, and must not take all of it


@contextmanager
def started(
    folder: Path, limits: Limits, sandboxed: bool, readonly: bool = False, learner: str = ""
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
    learner
        As in `Submission`.

    Raises
    ------
    SandboxUnavailable
        When no kernel can be started at all.
    """
    with roots.folder() as place, sockets() as context, open(place / "said", "w+") as said:
        groups = hierarchy() if sandboxed else None
        usage = Group(groups, limits) if groups else Processes(limits)
        entrance = usage.entrance if sandboxed else None
        manager = manager_of(place, folder, limits, entrance, readonly, learner, context)
        client = BlockingKernelClient(context=context)
        try:
            manager.start_kernel(
                cwd=str(folder), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                extra_arguments=ARGUMENTS,
            )  # fmt: skip
            process = manager.provisioner.process
            usage.add(process.pid)
            # A kernel that was forked into its sandbox is no child of what has made that.
            usage.add(getattr(manager.provisioner, "kernel_pid", None) or process.pid)
            client.load_connection_info(manager.get_connection_info())
            await_kernel(client, manager, Path(said.name))
            yield Kernel(client, manager, (folder, Path(manager.ip).parent), limits, usage)
        finally:
            # One that did not get as far as a client has a process too.
            process = getattr(manager.provisioner, "process", None)
            if process is not None:
                end(process)
            usage.end()
            client.stop_channels()


def _failed(reply: dict[str, Any]) -> bool:
    content = reply.get("content")
    return isinstance(content, dict) and content.get("status") == "error"
