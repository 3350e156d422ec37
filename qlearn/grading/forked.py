"""Kernels that begin with everything imported: forked from a template into bubblewrap's sandbox.

The imports of a submission's two kernels cost more than most of its cells; the template pays them
once a worker. A forked kernel shares no process, no file and no memory that it could change with
the template or with another kernel.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import warnings
import weakref
from typing import Any

import psutil
from jupyter_client.provisioning import LocalProvisioner

from qlearn.grading.limits import Limits, resources
from qlearn.grading.processes import end
from qlearn.grading.sandbox import (
    INSIDE,
    MODELS,
    SandboxProvisioner,
    command_of,
    environment,
    user,
)

READY = b"ready\n"
HOLD = ("sh", "-c", "echo ready && exec sleep infinity")


class Template:
    """The process that forks; one in each worker, started when it is first needed."""

    def __init__(self, limits: Limits) -> None:
        self.lock = threading.Lock()
        self.threads = limits.threads
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qlearn.grading.template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
            env=environment(limits, str(INSIDE.parent), str(MODELS)),
        )
        atexit.register(self.process.kill)
        if not self.process.stdout.readline():
            self.process.kill()
            self.process.wait()
            raise RuntimeError("The template of kernels cannot import what exercises need")

    def fork(self, **request: Any) -> int:
        """Return the id of a new kernel's process; OSError when it cannot enter its sandbox."""
        with self.lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or '{"error": "no template"}')
        if "error" in answer:
            raise OSError(f"A kernel cannot enter its sandbox: {answer['error']}")
        return answer["pid"]


_template: Template | None = None
_making = threading.Lock()


def template(limits: Limits) -> Template:
    """Return this worker's template.

    Parameters
    ----------
    limits
        For the number of threads, which libraries read when they are imported.
    """
    global _template
    with _making:
        if _template and (
            _template.threads != limits.threads or _template.process.poll() is not None
        ):
            _template.process.kill()
            _template = None
        _template = _template or Template(limits)
        return _template


class ForkedProvisioner(SandboxProvisioner):
    """Has bubblewrap make a sandbox and hold it open, then has the template fork into it."""

    kernel: int | None = None  # a handle on the kernel's process
    kernel_pid: int | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel; see `LocalProvisioner.launch_kernel`."""
        limits, as_user = Limits(**self.limits), user()
        self.own(as_user)
        said = kwargs["stderr"]
        command = command_of(
            *HOLD,
            folder=self.folder,
            sockets=self.sockets,
            limits=limits,
            user=as_user,
            readonly=self.readonly,
            entrance=self.entrance,
        )
        kwargs["stdout"] = subprocess.PIPE
        connection = await LocalProvisioner.launch_kernel(self, command, **kwargs)
        if self.process.stdout.readline() != READY:
            return connection  # what bubblewrap said is told when the sockets do not appear
        self.process.stdout.close()
        try:
            self.kernel = self._fork(limits, as_user, said.name, cmd[3:])
            weakref.finalize(self, os.close, self.kernel)
        # No template, no answer of it, or a sandbox that has ended meanwhile.
        except (OSError, RuntimeError, ValueError, psutil.Error) as error:
            warnings.warn(f"{error}: every kernel imports anew.", RuntimeWarning, stacklevel=2)
            end(self.process)
            return await super().launch_kernel(cmd, **kwargs | {"stdout": said})
        return connection

    def _fork(self, limits: Limits, as_user: int | None, said: str, arguments: list[str]) -> int:
        """Return a handle on a kernel that was forked into the sandbox that is held open."""
        held = psutil.Process(self.process.pid).children(recursive=True)
        if not held:
            raise RuntimeError("the sandbox has ended")
        self.kernel_pid = template(limits).fork(
            sandbox=held[-1].pid,
            said=said,
            entrance=self.entrance,
            rlimits=resources(limits),
            user=as_user,
            folder=str(INSIDE),
            learner=self.learner,
            arguments=arguments,
        )
        return os.pidfd_open(self.kernel_pid)

    async def poll(self) -> int | None:
        """Return None while the kernel runs."""
        if self.kernel is not None and select.select([self.kernel], [], [], 0)[0]:
            return 1
        return await super().poll()
