"""Commands on a device, in a folder that it removes when the connection ends; by ssh."""

import contextlib
import shlex
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from qlearn.export.arm.runner import explain_log

HEARTBEAT = 3  # seconds from one sign of life to the next
PATIENCE = 20  # seconds without one after which the device removes what it was sent
TIMEOUT = 60  # seconds for a command, if nothing else is said

# Keeps a folder on the device while lines arrive on its input; the end of the input removes it.
# When a cable is pulled there is no end: the watchdog, which no hangup stops, finds that nothing
# has made the file `alive` again since it took it away.
KEEPER = """
umask 077
folder=$(mktemp -d {base}/qlearn-XXXXXX) || exit 1
remove() {{ kill $(cat $folder/pid) 2>/dev/null; rm -rf $folder; }}
: > $folder/alive
(trap '' HUP INT; while sleep {patience} && rm $folder/alive; do :; done; remove) \
</dev/null >/dev/null 2>&1 &
trap '' HUP INT
echo $folder
while read line && : > $folder/alive; do :; done
kill $!; remove
"""


class Connection:
    """A way to a device: ``run`` what its shell understands, ``copy`` files, ``fetch`` one."""

    base = "/tmp"

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, line: str) -> list[str]:
        """Return the command that runs a line on the device."""
        raise NotImplementedError

    def explain(self, log: str) -> str:
        """Return why a command failed: the runner's own reason, or the last line."""
        lines = log.strip().splitlines() or ["the connection was lost"]
        reason = explain_log(log, 0)
        return lines[-1] if reason == "exit code 0" else reason

    def run(self, line: str, timeout: float = TIMEOUT, **stdin: object) -> bytes:
        """Run a line of shell there and return its output."""
        return self.call(self.command(line), timeout, **(stdin or {"input": b""}))

    def copy(self, files: Sequence[Path], folder: str) -> None:
        """Copy files into a folder there."""
        raise NotImplementedError

    def fetch(self, file: str) -> bytes:
        """Return what is in a file there."""
        return self.run(f"cat {file}")

    def call(self, command: Sequence[str], timeout: float, **stdin: object) -> bytes:
        """Run a command here and return its output; RuntimeError says why it failed."""
        options = {"capture_output": True, "start_new_session": True, "timeout": timeout}
        try:
            # In a session of its own: Ctrl-C is for this process, which then ends the rest.
            done = subprocess.run(command, **options, **stdin)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{self.name} gave no answer within {timeout:.0f} s.") from None
        if done.returncode:
            log = (done.stderr or done.stdout).decode(errors="replace")
            # ssh's own code, and not the command's.
            reason = "the connection was lost" if done.returncode == 255 else self.explain(log)
            raise RuntimeError(f"{self.name}: {reason.rstrip('.')}.")
        return done.stdout

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """Give a new folder there. The device removes it after the block, however that ends."""
        line = KEEPER.format(base=self.base, patience=PATIENCE)
        # A file, since nobody reads a pipe before the end.
        with tempfile.TemporaryFile() as log:
            keeper = subprocess.Popen(
                self.command(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            folder = keeper.stdout.readline().decode().strip()
            if not folder.startswith(f"{self.base}/qlearn-"):
                keeper.communicate()
                log.seek(0)
                raise RuntimeError(
                    f"{self.name} gave no temporary folder: "
                    f"{self.explain(log.read().decode(errors='replace'))}."
                )
            ended = threading.Event()
            beating = threading.Thread(target=_beat, args=(keeper, ended), daemon=True)
            beating.start()
            try:
                yield folder
            finally:
                ended.set()
                beating.join()
                self._end(keeper, folder)

    def _end(self, keeper: subprocess.Popen, folder: str) -> None:
        """Let the keeper remove the folder, and say so if it is not known to have done it."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            keeper.stdin.close()
            if keeper.wait(TIMEOUT / 4) == 0:
                return
        keeper.kill()
        print(
            f"Notice: the connection to {self.name} broke before {folder} was seen to be removed. "
            f"The device removes it itself within {2 * PATIENCE} s."
        )


def _beat(keeper: subprocess.Popen, ended: threading.Event) -> None:
    """Send signs of life until the end, or until nobody reads them."""
    with contextlib.suppress(OSError):
        while not ended.wait(HEARTBEAT):
            keeper.stdin.write(b"\n")
            keeper.stdin.flush()


class Ssh(Connection):
    """A Linux machine that takes ssh: one connection, on which everything else travels.

    ``destination`` is what ssh takes: USER@HOST, a name from its configuration, or
    ssh://USER@HOST:PORT. ssh asks for a password itself, once.
    """

    def __init__(self, destination: str) -> None:
        super().__init__(destination)
        self._scratch = tempfile.TemporaryDirectory(prefix="qlearn-")  # a short path: a socket's
        self._socket = str(Path(self._scratch.name) / "s")

    def __enter__(self) -> "Ssh":
        """Connect."""
        alive = [f"ServerAliveInterval={HEARTBEAT}", "ServerAliveCountMax=3", "ConnectTimeout=15"]
        shared = ["ControlMaster=yes", f"ControlPath={self._socket}", "ControlPersist=600"]
        options = [part for option in (*alive, *shared) for part in ("-o", option)]
        try:
            with tempfile.TemporaryFile() as log:  # the one in the background holds on to it
                command = ["ssh", "-f", "-N", *options, "--", self.name]
                done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log)
                log.seek(0)
                if done.returncode:
                    reason = self.explain(log.read().decode(errors="replace"))
                    raise RuntimeError(f"There is no connection to {self.name}: {reason}")
        except BaseException as error:
            self._scratch.cleanup()
            if isinstance(error, FileNotFoundError):
                raise RuntimeError("There is no ssh here: install openssh-client.") from None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        with contextlib.suppress(RuntimeError):
            self.call(["ssh", "-S", self._socket, "-O", "exit", "--", self.name], TIMEOUT)
        self._scratch.cleanup()

    def command(self, line: str) -> list[str]:
        """Return the command that runs a line there."""
        # The user's own shell may be any; the socket only, and no connection of its own.
        quoted = f"sh -c {shlex.quote(line)}"
        return ["ssh", "-o", "ProxyCommand=false", "-S", self._socket, "--", self.name, quoted]

    def copy(self, files: Sequence[Path], folder: str) -> None:
        """Copy files as one archive: not every board has what scp needs."""
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for file in files:
                    archive.add(file.resolve(), arcname=file.name)
            packed.seek(0)
            self.run(f"tar -xf - -C {folder}", 10 * TIMEOUT, stdin=packed)
