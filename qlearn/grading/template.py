"""A process that has imported what exercises need and forks kernels; it runs nobody's code itself.

Started by `qlearn.grading.forked`, which writes one request a line and reads one answer a line.
A forked kernel joins the namespaces of a sandbox that bubblewrap has made, takes its limits and
its user, and only then starts.
"""

import ctypes
import fcntl
import importlib
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

from qlearn.grading import seccomp
from qlearn.grading.sandbox import LEARNER

# What a kernel imports as it starts comes first: the sandbox cannot keep what Python compiles.
IMPORTS = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger", "sqlite3",
           "IPython.core.completerlib", "IPython.core.debugger", "IPython.core.oinspect",
           "IPython.extensions.storemagic", "tornado.platform.asyncio",
           "qlearn.system.kernel", "qlearn.exercises",
           "qlearn.benchmarking", "qlearn.calibration", "qlearn.exercises.checks", "qlearn.data",
           "qlearn.models", "qlearn.pretrained", "pandas", "scipy.stats", "sklearn.datasets",
           "torch.ao.quantization.quantize_fx", "torchvision", "matplotlib")  # fmt: skip
NAMESPACES = ("cgroup", "ipc", "uts", "net", "pid", "mnt")  # mnt last: it takes /proc away
PARENT_OF = 0xB702  # ioctl NS_GET_PARENT
CAPABILITIES_V3 = 0x20080522
CHILD_SUBREAPER, NO_NEW_PRIVS = 36, 38  # prctl
JOIN_SESSION_KEYRING = 1  # keyctl

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Import, say so, and fork a kernel for each request until there is no more."""
    sys.path.pop(0)  # the folder that it was started in
    for name in IMPORTS:
        importlib.import_module(name)
    # A kernel's parent is outside of the sandbox and ends at once: what becomes of the kernel is
    # for this process to see, or it would stay a zombie.
    _call(_libc.prctl(CHILD_SUBREAPER, 1, 0, 0, 0))
    signal.signal(signal.SIGCHLD, _reap)
    # A keyring of its own, in which there is nothing.
    _libc.syscall(seccomp.number("keyctl"), JOIN_SESSION_KEYRING, None)
    seccomp.program()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)


def _reap(*_: Any) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _fork(request: dict[str, Any]) -> dict[str, Any]:
    """Return the kernel's process id, or an error."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            answer = {"pid": _enter(request)}
        except OSError as error:
            answer = {"error": str(error)}
        os.write(there, json.dumps(answer).encode())
        os._exit(0)
    os.close(there)
    with open(here, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"error": "it ended"}')
    return answer


def _enter(request: dict[str, Any]) -> int:
    """Join the sandbox, where only a child becomes a member of its processes; return its id."""
    said = os.open(request["said"], os.O_WRONLY | os.O_APPEND)
    for file, value in [("/proc/self/oom_score_adj", 1000),
                        *((file, os.getpid()) for file in request["entrance"])]:  # fmt: skip
        with open(file, "w") as opened:
            opened.write(str(value))
    _join(request["sandbox"])
    kernel = os.fork()
    if kernel == 0:
        try:
            _become(request, said)
            _start(request)
        finally:
            os._exit(1)
    return kernel


def _join(pid: int) -> None:
    handles = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]
    if os.geteuid() != 0:  # root has made no user namespace
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        outer = fcntl.ioctl(user, PARENT_OF)
        # The mounts may belong to a user namespace around the last one.
        own = os.stat("/proc/self/ns/user").st_ino
        nested = os.fstat(outer).st_ino != own
        handles = [*([outer] if nested else []), *([] if nested else [user]), *handles,
                   *([user] if nested else [])]  # fmt: skip
    for handle in handles:
        _call(_libc.setns(handle, 0))


def _become(request: dict[str, Any], said: int) -> None:
    """Take the limits and the user of the sandbox, and keep nothing that is open here."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for name, value in request["rlimits"].items():
        value += _shared_data() if name == "RLIMIT_DATA" else 0
        resource.setrlimit(getattr(resource, name), (value, value))
    if request["user"] is not None:
        os.setgroups([])
        os.setresgid(*[request["user"]] * 3)
        os.setresuid(*[request["user"]] * 3)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    _call(_libc.capset(header, (ctypes.c_uint32 * 6)()))
    _call(_libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    os.setsid()
    os.umask(0o022)
    os.chdir(request["folder"])
    if request["learner"]:
        os.environ[LEARNER] = request["learner"]
    seccomp.install(seccomp.program())


def _shared_data() -> int:
    """Bytes that the template has mapped and never touched: they do not count as memory."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    mapped, touched = (int(status[name].split()[0]) for name in ("VmData", "RssAnon"))
    return (mapped - touched) * 1024


def _start(request: dict[str, Any]) -> None:
    import random

    import numpy as np
    from ipykernel.kernelapp import IPKernelApp

    random.seed()  # not the template's state, which all would share
    np.random.seed()
    sys.argv = ["ipykernel_launcher", *request["arguments"]]
    sys.stdin = open(os.devnull)  # the template's own may have read ahead
    with suppress(SystemExit):
        IPKernelApp.launch_instance(sys.argv[1:])


def _call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
