"""`qlearn device`: over a real sshd on this machine, natively and on an emulated Arm core; adb by a
stand-in that speaks as adb does. No real phone was ever part of it.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from qlearn import data, export, pretrained
from qlearn.cli import app
from qlearn.export.device import Adb, Ssh, connections, measurement, report

EMULATED = """#!/bin/sh
# An Arm board: what uname says, and an emulator where the kernel would load the program itself.
line=$(printf %s "$SSH_ORIGINAL_COMMAND" |
  sed 's#uname -m#echo aarch64#; s#exec \\./ld#exec qemu-aarch64 -cpu cortex-a76 ./ld#')
eval "$line"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The small CNN in fp32 and int8, and one with another input."""
    folder = tmp_path_factory.mktemp("device")
    model = pretrained.small_cnn()
    images = next(iter(data.loaders(data.digits())[0]))[0][:16]
    export.executorch(model, images[:1], folder / "fp32.pte")
    export.executorch(model, images[:1], folder / "int8.pte", images.split(1))
    other = torch.nn.Linear(4, 2)
    export.executorch(other, torch.zeros(1, 4), folder / "other.pte")
    return folder


class Server:
    """An sshd for this user only, with its temporary files in a folder of ours."""

    def __init__(self, sshd: str, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(command, check=True)
        (folder / "arm").write_text(EMULATED)
        (folder / "arm").chmod(0o755)
        self.processes = [self._start(sshd, self.port, "")]
        self.arm_port = free_port()
        forced = f"ForceCommand {folder / 'arm'}\n"
        self.processes.append(self._start(sshd, self.arm_port, forced))

    def _start(self, sshd: str, port: int, more: str) -> subprocess.Popen:
        config = self.folder / f"sshd-{port}"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {self.folder / 'host'}\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder / 'user.pub'}\nStrictModes no\nPidFile none\n"
            f"PasswordAuthentication no\n{more}"
        )
        process = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.PIPE)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return process
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)

    def client(self, folder: Path) -> Path:
        """Write an `ssh` that knows the key of this server, for the front of PATH."""
        real = subprocess.run(["which", "ssh"], capture_output=True, text=True).stdout.strip()
        options = f"-o IdentityFile={self.folder / 'user'} -o StrictHostKeyChecking=no"
        options += f" -o UserKnownHostsFile={self.folder / 'known'} -F none"
        program = folder / "ssh"
        program.write_text(f'#!/bin/sh\nexec {real} {options} "$@"\n')
        program.chmod(0o755)
        return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(sshd, tmp_path_factory):
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which a start of the system makes otherwise
    started = Server(sshd, tmp_path_factory.mktemp("sshd"))
    yield started
    for process in started.processes:
        process.terminate()
        process.wait()


@pytest.fixture
def board(server, tmp_path, monkeypatch):
    """The address of the native server; its temporary folder is ``server.temporary``."""
    monkeypatch.setenv("PATH", f"{server.client(tmp_path)}:{os.environ['PATH']}")
    monkeypatch.setattr(connections.Connection, "base", str(server.temporary))
    return f"ssh://127.0.0.1:{server.port}"


def run(*words):
    return CliRunner().invoke(app, ["device", *map(str, words)])


def is_empty(folder: Path, patience: float = 20) -> bool:
    """Whether a folder becomes empty before long."""
    end = time.monotonic() + patience
    while any(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(folder.iterdir())


def test_a_linux_machine_by_ssh(board, server, files, tmp_path):
    kept = tmp_path / "report.json"
    words = (files / "fp32.pte", files / "int8.pte", "--ssh", board, "--seconds", 0.2)
    result = run(*words, "--output", kept)
    assert result.exit_code == 0, result.output
    assert "times as fast as fp32.pte" in result.output and "before: " in result.output
    assert is_empty(server.temporary)
    (row,) = report.read(kept).to_dict("records")
    assert row["model"] == "int8.pte" and row["threads"] == 1 and row["cores"] == os.cpu_count()
    assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    written = json.loads(kept.read_text())
    for file in written["files"]:
        assert file["agrees"] and file["q1_ms"] <= file["median_ms"] <= file["q3_ms"]


def test_an_arm_machine_by_ssh(arm_tools, board, server, files):
    """As in the Arm check the outputs count, and not the times."""
    with Ssh(f"ssh://127.0.0.1:{server.arm_port}") as device:
        assert device.run("uname -m") == b"aarch64\n"
        found = measurement.measure([files / "int8.pte", files / "fp32.pte"], device, seconds=0.1)
    assert found["agrees"] and len(found["files"]) == 2
    assert is_empty(server.temporary)


def test_outputs_that_differ_have_no_times(board, server, files, tmp_path, monkeypatch):
    monkeypatch.setattr(
        measurement.comparison, "run_on_host", lambda path, samples: [(torch.rand(1, 10),)] * 2
    )
    kept = tmp_path / "report.json"
    result = run(files / "fp32.pte", "--ssh", board, "--seconds", 0.1, "--output", kept)
    assert result.exit_code == 1
    assert "DIFFER" in result.output and "ms" not in result.output
    with pytest.raises(ValueError, match="has no times"):
        report.read(kept)


def test_mistakes_get_one_line(board, server, files, tmp_path):
    (tmp_path / "text.pte").write_text("not a program")
    absent = f"ssh://127.0.0.1:{free_port()}"
    for words, sentence in (
        ([files / "fp32.pte"], "Say which device"),
        ([files / "fp32.pte", "--ssh", absent], "There is no connection to"),
        ([tmp_path / "no.pte", "--ssh", board], "There is no file"),
        ([tmp_path / "text.pte", "--ssh", board], "does not begin as"),
        ([files / "fp32.pte", files / "other.pte", "--ssh", board], "takes other inputs than"),
        ([files / "fp32.pte", files / "fp32.pte", "--ssh", board], "have the same name"),
    ):
        result = run(*words)
        assert result.exit_code == 2, (words, result.output)
        assert sentence in result.output and result.output.count("\n") == 1, result.output
    assert is_empty(server.temporary)


def test_a_machine_of_another_kind_is_named(board, server, files, monkeypatch):
    monkeypatch.setattr(measurement.runner, "LOADERS", {"riscv64": ""})
    result = run(files / "fp32.pte", "--ssh", board)
    assert result.exit_code == 2 and "there are runners for riscv64 only" in result.output


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
from qlearn.export.device import Ssh, connections
connections.Connection.base = sys.argv[2]
with Ssh(sys.argv[1]) as device, device.folder() as folder:
    print(folder, flush=True)
    device.run(f"cd {folder}; echo $$ > pid; exec sleep 600", 600)
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_what_was_copied_is_removed_when_the_host_stops(by, board, server):
    """Ctrl-C goes to all processes of a terminal; a kill to this one only."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, board, server.temporary],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    folder = Path(child.stdout.readline().decode().strip())
    assert folder.parent == server.temporary
    while not (folder / "pid").exists():
        time.sleep(0.05)
    there = int((folder / "pid").read_text())
    os.killpg(child.pid, by) if by == signal.SIGINT else child.kill()
    assert is_empty(server.temporary)
    assert child.wait() != 0
    assert not Path(f"/proc/{there}").exists() or is_gone(there)


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    return not Path(f"/proc/{pid}").exists()


class Cable:
    """A way to a port that can be pulled: nothing travels any more, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.pulled = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(port,), daemon=True).start()

    def _serve(self, port: int) -> None:
        near, _ = self.listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (part := source.recv(65536)) and not self.pulled.is_set():
                target.sendall(part)


def test_a_pulled_cable(board, server, monkeypatch, capsys):
    """The host says so, and the device, which nobody tells anything, cleans up alone."""
    monkeypatch.setattr(connections, "HEARTBEAT", 1)
    monkeypatch.setattr(connections, "PATIENCE", 4)
    cable = Cable(server.port)
    with pytest.raises(RuntimeError, match="127.0.0.1:.*the connection was lost"):  # noqa: SIM117
        with Ssh(f"ssh://127.0.0.1:{cable.port}") as device, device.folder() as folder:
            assert Path(folder).is_dir()
            cable.pulled.set()
            device.run("sleep 600", 600)
    assert "The device removes it itself" in capsys.readouterr().out
    assert is_empty(server.temporary)


ADB = '''#!/usr/bin/env python3
"""Speaks as adb does; ADB_STATE says what is wrong with the phone."""
import os, shutil, subprocess, sys

state = os.environ.get("ADB_STATE", "")
words = sys.argv[1:]
if words == ["devices"]:
    print("* daemon started successfully", file=sys.stderr)
    print("List of devices attached")
    phones = {"none": [], "two": ["A1", "B2"]}.get(state, ["A1"])
    kind = state if state in ("unauthorized", "offline") else "device"
    print("".join(f"{phone}\\t{kind}\\n" for phone in phones))
    sys.exit()
assert words[:2] == ["-s", "A1"], words
verb, *rest = words[2:]
if verb == "push":
    if state == "full":
        sys.exit("adb: error: failed to copy 'x' to 'y': remote write failed: "
                 "No space left on device")
    for source in rest[:-1]:
        shutil.copy(source, rest[-1])
    print(f"{len(rest) - 1} files pushed, 0 skipped.")
elif verb in ("shell", "exec-out"):
    line = rest[-1]
    if state == "pulled" and "library-path" in line:
        sys.exit("error: device 'A1' not found")
    sys.exit(subprocess.run(["sh", "-c", line]).returncode)
else:
    sys.exit(f"adb: unknown command {verb}")
'''


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A stand-in of a phone; its temporary folder."""
    program = tmp_path / "bin" / "adb"
    program.parent.mkdir()
    program.write_text(ADB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    temporary = tmp_path / "data-local-tmp"
    temporary.mkdir()
    monkeypatch.setattr(Adb, "base", str(temporary))
    return temporary


def test_a_phone_by_adb(phone, files):
    result = run(files / "fp32.pte", files / "int8.pte", "--adb", "--seconds", 0.1)
    assert result.exit_code == 0, result.output
    assert "times as fast as fp32.pte" in result.output
    assert is_empty(phone)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("none", "adb sees no phone: connect it by USB"),
        ("two", "adb sees 2 phones (A1, B2): unplug all but one, or set ANDROID_SERIAL"),
        ("unauthorized", "does not trust this computer yet: unlock it"),
        ("offline", "'offline' to adb: plug its cable in again"),
        ("full", "its storage is full"),
        ("pulled", "the connection was lost (device 'A1' not found): plug the cable in again"),
    ],
)
def test_a_phone_that_is_not_ready_gets_a_sentence(state, sentence, phone, files, monkeypatch):
    monkeypatch.setenv("ADB_STATE", state)
    result = run(files / "fp32.pte", "--adb", "--seconds", 0.1)
    assert result.exit_code == 2 and sentence in result.output, result.output
    assert result.output.count("\n") == 1
    assert is_empty(phone)


def test_one_of_two_phones_is_chosen_by_adbs_own_variable(phone, monkeypatch):
    monkeypatch.setenv("ADB_STATE", "two")
    monkeypatch.setenv("ANDROID_SERIAL", "A1")
    with Adb() as device:
        assert device.run("echo hello") == b"hello\n"
    monkeypatch.setenv("ANDROID_SERIAL", "C3")
    with pytest.raises(RuntimeError, match="adb does not see that phone"), Adb():
        pass


def test_what_is_no_report_gets_a_sentence(tmp_path):
    ratio = dict.fromkeys(("speedup", "speedup_low", "speedup_high"), 2.0)
    whole = {"device": "x", "threads": 1, "cores": None, "agrees": True}
    whole["files"] = [{"name": "a.pte", "median_ms": 2.0}, {"name": "b.pte", "median_ms": 1.0}]
    whole["files"][1] |= ratio
    path = tmp_path / "report.json"
    report.write(whole, path)
    assert report.read(path)[["fp32_ms", "int8_ms"]].to_numpy().tolist() == [[2.0, 1.0]]
    for text in ("", "[]", "3", "{}", '{"agrees": true, "files": []}', path.read_text()[:-20]):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no report of qlearn device"):
            report.read(path)
    for files in ([1, 2], [whole["files"][0]] * 2, None):
        report.write(whole | {"files": files}, path)
        with pytest.raises(ValueError, match="is no report of qlearn device"):
            report.read(path)
