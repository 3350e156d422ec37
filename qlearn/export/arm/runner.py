"""The C++ program that runs a file: ExecuTorch's Arm libraries, compiler and emulator."""

import hashlib
import importlib.metadata
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
SYSROOT = "/usr/aarch64-linux-gnu"  # where Debian puts the C library for Arm
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


def on_arm() -> bool:
    """Return whether this machine is an Arm one, which needs no emulator (untested)."""
    return platform.system() == "Linux" and platform.machine() == "aarch64"


def _list_tools() -> dict[str, str]:
    """Return the programs that are needed, each with the Debian package that holds it."""
    if on_arm():
        return {"g++": "g++"}
    return {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}


def missing_tools() -> list[str]:
    """Return the Debian packages to install before ``check`` can run; empty when all is there."""
    return [package for program, package in _list_tools().items() if shutil.which(program) is None]


def run_on_arm(path: Path, samples: Sequence[Sequence[bytes]]) -> bytes:
    """Run a file's forward method on Arm.

    A sample is the bytes of each input in its memory order; the outputs' bytes are returned, one
    after the other, in the same order.
    """
    if missing := missing_tools():
        raise RuntimeError(
            "The Arm check needs an Arm compiler and emulator: install "
            f"{' and '.join(missing)} (names of Debian and Ubuntu: apt install "
            f"{' '.join(missing)})."
        )
    emulator = [] if on_arm() else ["qemu-aarch64", "-cpu", CPU, "-L", SYSROOT]
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs", Path(folder) / "outputs"
        inputs.write_bytes(b"".join(part for sample in samples for part in sample))
        command = [*emulator, _compile_runner(), path, inputs, outputs, str(len(samples))]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TOOL_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"{path} gave no output on Arm within {TOOL_TIMEOUT} s: emulation is slow, so give "
                "fewer or smaller inputs."
            ) from None
        if done.returncode != 0:
            reason = _explain(done.stderr.decode(errors="replace"), done.returncode)
            raise ValueError(f"{path} does not run on Arm: {reason}.")
        return outputs.read_bytes()


def _explain(log: str, code: int) -> str:
    """Return why the program failed, from the log of the runtime or the emulator."""
    if operators := re.findall(r"Missing operator: \[\d+\] (\S+)", log):
        return f"the runtime lacks the operators {', '.join(sorted(set(operators)))}"
    if code < 0:
        return f"it ended the runtime with {signal.Signals(-code).name}; the file may be damaged"
    # The first error is the cause, the later ones are where it was noticed.
    errors = re.findall(r"^E .*?\] (.+)|^runner: (.+)|^(qemu-.+)", log, re.MULTILINE)
    return "".join(errors[0]).rstrip(".") if errors else f"exit code {code}"


def _fetch_libraries(cache: Path) -> Path:
    """Return the folder with headers and libraries of ExecuTorch for Arm; fetch it once."""
    version = importlib.metadata.version("executorch").partition("+")[0]
    folder = cache / f"executorch-{version}"
    if folder.is_dir():
        return folder
    print(f"Fetching ExecuTorch {version} for Arm once; it is kept in {cache}.")
    with tempfile.TemporaryDirectory() as scratch, write_whole(folder) as made:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        choice = ["--platform", "manylinux_2_28_aarch64", "--python-version", python]
        choice += ["--implementation", "cp", "--only-binary=:all:", "--no-deps"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *choice]
        run_tool(
            [*command, "--dest", scratch, f"executorch=={version}"],
            f"pip could not fetch ExecuTorch {version} for Arm, which needs the network once "
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


def _compile_runner() -> Path:
    """Return the compiled program; its name changes with anything that it is made from."""
    cache = home() / "arm"
    libraries = _fetch_libraries(cache)
    compiler = next(iter(_list_tools()))
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    made_from = SOURCE.read_bytes() + libraries.name.encode() + version
    runner = cache / f"runner-{hashlib.sha256(made_from).hexdigest()[:10]}"
    if not runner.is_file():
        with write_whole(runner) as unfinished:
            command = [compiler, *_list_arguments(libraries, unfinished)]
            failure = f"{compiler} could not compile the runner ({{reason}})."
            run_tool(command, failure, TOOL_TIMEOUT)
    return runner


def _list_arguments(libraries: Path, output: Path) -> list[str | Path]:
    """Return the compiler's arguments."""
    include = libraries / "include"
    portable = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    macros = "-DC10_USING_CUSTOM_GENERATED_MACROS"  # the wheel lacks the file of generated ones
    # A path relative to the program, so that the cache can be moved.
    search = [f"-L{libraries / 'lib'}", f"-Wl,-rpath,$ORIGIN/{libraries.name}/lib"]
    names = [f"-l{name}" for name in LIBRARIES]
    compiling = ["-std=c++17", "-O1", "-w", macros, f"-I{include}", f"-I{portable}"]
    return [*compiling, SOURCE, "-o", output, *search, "-Wl,--no-as-needed", *names]
