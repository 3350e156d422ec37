"""Kernels that begin with everything imported, for notebooks that a learner would wait for.

All else is a kernel's: its own process, namespace, sockets and folder. What an import says is not
seen here, so `test_lessons.py` has an ordinary kernel import what the lessons import.
"""

import os
import signal
from importlib.metadata import EntryPoint

from forking import context
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

NAME = "forked-in-tests"


class ForkedProcess:
    """What jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments, folder):
        self._process = context.Process(target=_kernel, args=(arguments, folder))
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class ForkedProvisioner(LocalProvisioner):
    """Has the tests' server fork a kernel."""

    async def launch_kernel(self, cmd, **kwargs):
        self.process = ForkedProcess(cmd[cmd.index("-f") :], kwargs["cwd"])
        self.pid = self.process.pid
        return self.connection_info


class ForkedManager(AsyncKernelManager):
    """Starts such a kernel, whatever its name."""

    @property
    def kernel_spec(self):
        argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        stanza = {"kernel_provisioner": {"provisioner_name": NAME}}
        return KernelSpec(argv=argv, language="python", metadata=stanza)

    async def _async_start_kernel(self, **kwargs):
        factory = KernelProvisionerFactory.instance()
        found = EntryPoint(NAME, "forked:ForkedProvisioner", KernelProvisionerFactory.GROUP_NAME)
        factory.provisioners[NAME] = found
        return await super()._async_start_kernel(**kwargs)

    start_kernel = _async_start_kernel


def _kernel(arguments, folder):
    import random

    import numpy as np
    from ipykernel.kernelapp import IPKernelApp

    from qlearn.sweeps import row_process

    # For sweeps it starts a server of its own, which imports what a learner's does.
    row_process.CONTEXT.set_forkserver_preload(row_process.PRELOADED)
    os.chdir(folder)
    if os.name == "posix":
        os.setsid()
        os.environ["JPY_PARENT_PID"] = str(os.getppid())  # without its parent it ends
    random.seed()  # not the server's state, which all would share
    np.random.seed()
    IPKernelApp.launch_instance(arguments)
