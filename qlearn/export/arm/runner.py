"""The C++ program that runs a file: ExecuTorch's libraries, compiler and emulator."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from qlearn.system.cache import home, write_whole
from qlearn.system.tools import run_tool

CPU = "cortex-a76"
LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
# What else the program needs to run where there is no C library like the compiler's.
SYSTEM = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2")
SYSTEM += ("libpthread.so.0",)
TOOL_TIMEOUT = 900  # seconds that the emulator, pip and the compiler may each take
SOURCE = Path(__file__).with_name("runner.cpp")
# Loaded for what they register (kernels, XNNPACK), although the program names none of it.
LIBRARIES = (
    "executorch",
    "executorch_threadpool",
    "executorch_backend_xnnpack",
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
)


def _is_native(machine: str) -> bool:
    return platform.system() == "Linux" and platform.machine() == machine


def on_arm() -> bool:
    """Return whether this machine is an Arm one, which needs no emulator (untested)."""
    return _is_native("aarch64")


def _name_compiler(machine: str) -> tuple[str, str]:
    """Return the compiler for a kind of machine, and the Debian package that holds it."""
    if _is_native(machine):
        return "g++", "g++"
    return f"{machine}-linux-gnu-g++", f"g++-{machine.replace('_', '-')}-linux-gnu"


def missing_tools(machine: str = "aarch64", emulator: bool = True) -> list[str]:
    """Return the Debian packages to install before ``check`` can run; empty when all is there.

    Without the emulator, they are those that building the program for a machine needs.
    """
    tools = dict([_name_compiler(machine)])
    if emulator and not _is_native(machine):
        tools[f"qemu-{machine}"] = "qemu-user"
    return [package for program, package in tools.items() if shutil.which(program) is None]


def require_tools(purpose: str, machine: str = "aarch64", emulator: bool = True) -> None:
    """Raise RuntimeError, which says what to install, if a tool is missing."""
    if missing := missing_tools(machine, emulator):
        raise RuntimeError(
            f"{purpose}: install {' and '.join(missing)} (names of Debian and Ubuntu: apt install "
            f"{' '.join(missing)})."
        )


def run_on_arm(path: Path, samples: Sequence[Sequence[bytes]]) -> bytes:
    """Run a file's forward method on Arm.

    A sample is the bytes of each input in its memory order; the outputs' bytes are returned, one
    after the other, in the same order.
    """
    require_tools("The Arm check needs an Arm compiler and emulator")
    emulator = [] if on_arm() else ["qemu-aarch64", "-cpu", CPU]
    program, loader, *libraries = build("aarch64")
    search = ":".join(sorted({str(library.parent) for library in libraries}))
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs", Path(folder) / "outputs"
        inputs.write_bytes(b"".join(part for sample in samples for part in sample))
        command = [*emulator, loader, "--library-path", search, program]
        command += ["0", "0", "0", inputs, str(len(samples)), path, outputs]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TOOL_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"{path} gave no output on Arm within {TOOL_TIMEOUT} s: emulation is slow, so give "
                "fewer or smaller inputs."
            ) from None
        if done.returncode != 0:
            reason = explain_log(done.stderr.decode(errors="replace"), done.returncode)
            raise ValueError(f"{path} does not run on Arm: {reason}.")
        return outputs.read_bytes()


def explain_log(log: str, code: int) -> str:
    """Return why the program failed, from the log of the runtime or the emulator."""
    if operators := re.findall(r"Missing operator: \[\d+\] (\S+)", log):
        return f"the runtime lacks the operators {', '.join(sorted(set(operators)))}"
    if code < 0:
        return f"it ended the runtime with {signal.Signals(-code).name}; the file may be damaged"
    # The first error is the cause, the later ones are where it was noticed.
    errors = re.findall(r"^E .*?\] (.+)|^runner: (.+)|^(qemu-.+)", log, re.MULTILINE)
    return "".join(errors[0]).rstrip(".") if errors else f"exit code {code}"


def build(machine: str) -> list[Path]:
    """Return the program for a kind of machine, its loader, and the libraries that it needs.

    With them it runs on a Linux kernel that has no C library, or another one, such as Android's.
    """
    libraries = find_libraries(machine)
    compiler, _ = _name_compiler(machine)
    names = [LOADERS[machine], *SYSTEM]
    asked = [[compiler, f"-print-file-name={name}"] for name in names]
    system = [subprocess.run(a, capture_output=True, check=True, text=True) for a in asked]
    own = [libraries / "lib" / f"lib{name}.so" for name in LIBRARIES]
    return [_compile(machine, libraries), *(Path(done.stdout.strip()) for done in system), *own]


def find_libraries(machine: str) -> Path:
    """Return the folder with headers and libraries of ExecuTorch; fetch another machine's once."""
    if _is_native(machine):
        return Path(importlib.util.find_spec("executorch").submodule_search_locations[0])
    cache = home() / ("arm" if machine == "aarch64" else machine)
    version = importlib.metadata.version("executorch").partition("+")[0]
    folder = cache / f"executorch-{version}"
    if folder.is_dir():
        return folder
    name = "Arm" if machine == "aarch64" else machine
    print(f"Fetching ExecuTorch {version} for {name} once; it is kept in {cache}.")
    with tempfile.TemporaryDirectory() as scratch, write_whole(folder) as made:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        choice = ["--platform", f"manylinux_2_28_{machine}", "--python-version", python]
        choice += ["--implementation", "cp", "--only-binary=:all:", "--no-deps"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *choice]
        run_tool(
            [*command, "--dest", scratch, f"executorch=={version}"],
            f"pip could not fetch ExecuTorch {version} for {name}, which needs the network once "
            "({reason}).",
            TOOL_TIMEOUT,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        wanted = tuple(f"executorch/lib/lib{name}.so" for name in LIBRARIES)
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.startswith("executorch/include/")]
            archive.extractall(scratch, [*names, *wanted])
        shutil.move(Path(scratch) / "executorch", made)
    return folder


def _compile(machine: str, libraries: Path) -> Path:
    """Return the compiled program; its name changes with anything that it is made from."""
    compiler, _ = _name_compiler(machine)
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    executorch = importlib.metadata.version("executorch").encode()
    made_from = SOURCE.read_bytes() + executorch + compiler.encode() + version
    runner = home() / "arm" / f"runner-{hashlib.sha256(made_from).hexdigest()[:10]}"
    if not runner.is_file():
        with write_whole(runner) as unfinished:
            command = [compiler, *list_arguments(libraries, SOURCE, unfinished)]
            failure = f"{compiler} could not compile the runner ({{reason}})."
            run_tool(command, failure, TOOL_TIMEOUT)
    return runner


def list_arguments(libraries: Path, source: Path, output: Path) -> list[str | Path]:
    """Return the compiler's arguments."""
    include = libraries / "include"
    portable = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    macros = "-DC10_USING_CUSTOM_GENERATED_MACROS"  # the wheel lacks the file of generated ones
    names = [f"-L{libraries / 'lib'}", "-Wl,--no-as-needed", *(f"-l{name}" for name in LIBRARIES)]
    compiling = ["-std=c++17", "-O1", "-w", macros, f"-I{include}", f"-I{portable}"]
    return [*compiling, source, "-o", output, *names]
