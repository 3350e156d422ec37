"""A Jupyter kernel in bubblewrap: what it may see, and how much it may use.

The sandbox has no network, a read-only system and Python environment, the base models read-only,
private temporary folders, and one folder to work in. It runs as a user without rights.
"""

import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Dict, List, Unicode

from qlearn.grading import seccomp
from qlearn.grading.limits import Limits, command_within
from qlearn.system import threads
from qlearn.system.cache import home as cache_folder

INSIDE = Path("/home/learner/exercise")  # what the folder of a kernel is called in the sandbox
MODELS = Path("/opt/qlearn")  # and the cache of base models
TEMPORARY_MB = 256  # each of the folders that are kept in memory
TEMPORARY = ("/tmp", "/dev/shm", str(INSIDE.parent))
# Parts of /etc that programs need; the rest says something about the machine.
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "fonts", "alternatives")
ROOT = ("bin", "lib", "lib64", "sbin")  # folders, or links into /usr
# Root in the sandbox would be exempt from the limit of processes, so it becomes a user of its own.
USERS, USER_COUNT = 50_000, 10_000
LEARNER = "QLEARN_LEARNER"  # as `qlearn.exercises` calls it, which is imported with PyTorch
FILTER = 9  # the open file that bubblewrap reads the filter of calls from


class SandboxUnavailable(RuntimeError):
    """Bubblewrap cannot run here."""


@functools.cache
def require() -> None:
    """Raise `SandboxUnavailable`, in one sentence, unless bubblewrap runs a program here."""
    missing = [name for name in ("bwrap", "prlimit", "setpriv") if shutil.which(name) is None]
    try:
        seccomp.program()
    except (OSError, AttributeError):
        missing.append("libseccomp")
    if missing:
        raise SandboxUnavailable(
            f"The sandbox needs {', '.join(missing)} on {platform.node()}: install the packages "
            "bubblewrap, util-linux and libseccomp2 there, for example with: "
            "sudo apt-get install bubblewrap util-linux libseccomp2."
        )
    command = command_of("true", folder=None, limits=Limits(), user=user())
    run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode:
        raise SandboxUnavailable(
            f"Bubblewrap is installed on {platform.node()} and cannot run ({run.stderr.strip()}): "
            "install it anew with sudo apt-get install --reinstall bubblewrap, and allow "
            "unprivileged user namespaces; in a container, start the container with the right to "
            "make namespaces."
        )


def user() -> int | None:
    """Return a user id for a sandbox, or None where the worker is no root and keeps its own."""
    return USERS + int.from_bytes(os.urandom(4), "big") % USER_COUNT if os.geteuid() == 0 else None


def environment(limits: Limits, home: str, cache: str, learner: str = "") -> dict[str, str]:
    """Return all environment variables of a kernel.

    Parameters
    ----------
    limits
        For the number of threads.
    home, cache
        The home folder, and the folder with qlearn's base models.
    learner
        As in `Submission`.
    """
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": "/tmp",
        "USER": "learner",
        "LOGNAME": "learner",
        "LANG": "C.UTF-8",
        "QLEARN_HOME": cache,
        "NBGRADER_EXECUTION": "autograde",  # as nbgrader says it
        **threads.SETTINGS,
        **{name: str(limits.threads) for name in pools},
        **({LEARNER: learner} if learner else {}),
    }


def command_of(
    *program: str,
    folder: str | None,
    limits: Limits,
    user: int | None,
    sockets: str | None = None,
    readonly: bool = False,
    entrance: Iterable[str] = (),
    learner: str = "",
) -> list[str]:
    """Return the command that runs a program in a sandbox of its own.

    Parameters
    ----------
    program
        Program and arguments.
    folder
        The only folder of the machine that it works in, found at ``INSIDE``.
    limits
        What it may use.
    user
        From `user`.
    sockets
        A folder for sockets, under the same name inside.
    readonly
        Whether the program cannot write to ``folder``.
    entrance
        Of the `Group` that it is in.
    learner
        As in `Submission`.
    """
    # The system ends it first when the machine has no memory left.
    enter = ["echo 1000 > /proc/self/oom_score_adj"]
    enter += [f"echo $$ > {shlex.quote(file)}" for file in entrance]
    enter += [f'exec "$@" {FILTER}< {seccomp.file()}']
    command = ["sh", "-c", " && ".join(enter), "sandbox"]
    command += ["bwrap", "--seccomp", str(FILTER)]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try"]
    # Root keeps what it needs to become the other user, and nothing else.
    command += ["--unshare-user"] if user is None else ["--cap-drop", "ALL"]
    command += [] if user is None else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for name, value in environment(limits, str(INSIDE.parent), str(MODELS), learner).items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for place in TEMPORARY:
        command += ["--perms", "0755", "--dir", str(Path(place).parent)]
        command += ["--size", str(TEMPORARY_MB * 10**6), "--perms", "1777", "--tmpfs", place]
    for source, place in _read_only():
        for parent in reversed(Path(place).parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind", source, place]
    for name in ROOT:
        if os.path.islink(f"/{name}"):
            command += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
    if folder is not None:
        command += ["--ro-bind" if readonly else "--bind", folder, str(INSIDE)]
    if sockets is not None:
        command += ["--perms", "0755", "--dir", str(Path(sockets).parent)]
        command += ["--bind", sockets, sockets]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--", *command_within(limits, user)]
    # Only now: bubblewrap has no right to enter the other user's folder.
    command += ["env", f"--chdir={INSIDE if folder is not None else '/'}"]
    return [*command, *program]


def _read_only() -> list[tuple[str, str]]:
    """Pairs of a folder or file on this machine and its name in the sandbox."""
    import qlearn

    kept = [
        f"/{name}" for name in ("bin", "lib", "lib64", "sbin") if not os.path.islink(f"/{name}")
    ]
    kept += ["/usr", "/sys/devices/system/cpu", *(f"/etc/{name}" for name in ETC)]
    # The environment, the Python that it was made from, and this package when it is editable:
    # never the repository's solutions, tests or classroom beside them.
    kept += [sys.base_prefix, sys.prefix, *qlearn.__path__]
    pairs = [(place, place) for place in kept]
    pairs += [(str(cache_folder() / name), str(MODELS / name)) for name in ("models", "datasets")]
    found = [(source, place) for source, place in pairs if os.path.exists(source)]
    # A folder within one that is already there need not be bound again.
    return [
        (source, place)
        for source, place in found
        if not any(Path(other) in Path(place).parents for _, other in found)
    ]


class SandboxProvisioner(LocalProvisioner):
    """Starts a kernel in bubblewrap; the kernelspec's configuration says where and how limited."""

    folder = Unicode(help="The scratch folder.")
    sockets = Unicode(help="The folder of the connection file and the sockets.")
    readonly = Bool(help="Whether the kernel cannot write to the scratch folder.")
    limits = Dict(help="The fields of `Limits`.")
    entrance = List(help="Of the control group.")
    learner = Unicode(help="As in `Submission`.")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel; see `LocalProvisioner.launch_kernel`."""
        as_user = user()
        self.own(as_user)
        command = command_of(
            *cmd,
            folder=self.folder,
            sockets=self.sockets,
            limits=Limits(**self.limits),
            user=as_user,
            readonly=self.readonly,
            entrance=self.entrance,
            learner=self.learner,
        )
        return await super().launch_kernel(command, **kwargs)

    def own(self, user: int | None) -> None:
        """Give the kernel's folders to its user."""
        if user is not None:
            command = ["chown", "-R", f"{user}:{user}", self.sockets, self.folder]
            subprocess.run(command, check=True)


def configuration(
    folder: Path, sockets: Path, limits: Limits, readonly: bool, entrance: Iterable[str],
    learner: str,
) -> dict[str, Any]:  # fmt: skip
    """Return what a kernelspec's metadata says to have its kernel started in a sandbox.

    Parameters
    ----------
    folder, sockets
        The scratch folder, and that of the connection file.
    limits
        What the kernel may use.
    readonly
        Whether it cannot write to ``folder``.
    entrance
        Of its control group.
    learner
        As in `Submission`.
    """
    config = {"folder": str(folder), "sockets": str(sockets), "readonly": readonly}
    config |= {"entrance": list(entrance), "learner": learner}
    return {
        "provisioner_name": "qlearn-forked",
        "config": {**config, "limits": asdict(limits)},
    }
