"""What this machine has, what that means for the course, and how to fix what is missing."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from packaging.requirements import Requirement

from qlearn.system import threads

GIB = 2**30
MEMORY_NEEDED = 4  # GiB: what a kernel of the heaviest lesson holds, and JupyterLab, doubled
DISK_NEEDED = 1  # GiB in the cache: base models and the sets one may download


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    ``remedy`` is empty when there is nothing to fix; ``needed`` says whether the course cannot
    run without it.
    """

    subject: str
    found: str
    meaning: str
    remedy: str = ""
    needed: bool = False

    @property
    def verdict(self) -> str:
        """``ok``; ``note`` when the course runs without it; ``FAIL`` when it does not."""
        if not self.remedy:
            return "ok"
        return "FAIL" if self.needed else "note"


def examine() -> list[Finding]:
    """Look at everything that the course uses."""
    return [
        _python(),
        *_versions(),
        _engine(),
        _instructions(),
        _threads(),
        _waiting(),
        _memory(),
        _disk(),
        _base_models(),
        _kernel(),
        _nbgrader(),
        _program("Chromium", ("chromium", "chromium-browser", "google-chrome"), "browser tests"),
        _program("bubblewrap", ("bwrap",), "grading in a sandbox"),
    ]


def show(findings: list[Finding]) -> None:
    """Print the findings as a table, and the remedies under it."""
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "note": "yellow", "FAIL": "bold red"}
    table = Table("")
    for head in ("what", "found", "what that means"):
        table.add_column(head, overflow="fold")  # on a narrow terminal no word is cut
    for finding in findings:
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, finding.found, finding.meaning)
    console = Console()
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(f"{finding.verdict}: {finding.subject}. {finding.remedy}", markup=False)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    allowed = importlib.metadata.metadata("qlearn")["Requires-Python"]
    fits = Requirement(f"python{allowed}").specifier.contains(found)
    remedy = "" if fits else f"Install Python {allowed} and set the course up again."
    return Finding("Python", found, f"the course is tested on {allowed}", remedy, needed=True)


def _versions() -> Iterator[Finding]:
    """Compare what is installed with what pyproject.toml asks for, one row a pin."""
    for text in importlib.metadata.requires("qlearn") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        fits = found != "missing" and requirement.specifier.contains(found, prereleases=True)
        if fits and "==" not in str(requirement.specifier):
            continue  # only the pins are worth a line when all is well
        remedy = "" if fits else "Run `make setup` (or the README's uv commands) again."
        wanted = str(requirement.specifier) or "any version"
        yield Finding(requirement.name, found, f"the course pins {wanted}", remedy, needed=True)


def _engine() -> Finding:
    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    chosen = torch.backends.quantized.engine
    remedy = ""
    if chosen not in engines:
        remedy = "This PyTorch has no quantized kernels: install the pinned release."
    return Finding(
        "quantized engines", ", ".join(engines) or "none", f"{chosen} is used", remedy, needed=True
    )


def _instructions() -> Finding:
    """Integer dot products decide how fast int8 is; the lessons run without them."""
    names = {
        "avx2": "AVX2",
        "avx512_vnni": "AVX-512 VNNI",
        "avx_vnni": "AVX VNNI",
        "amx_int8": "AMX int8",
        "dot": "Arm dot product",
        "i8mm": "Arm int8 matrix product",
    }
    capabilities = torch.cpu.get_capabilities()
    found = [label for key, label in names.items() if capabilities.get(key)]
    remedy, meaning = "", "int8 has instructions of its own"
    if not [label for label in found if label != "AVX2"]:
        remedy = "Nothing to do: expect smaller speedups from int8 than the lessons report."
        meaning = "int8 has no instructions of its own"
    return Finding("CPU", ", ".join(found) or "none of interest", meaning, remedy)


def _threads() -> Finding:
    found = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return Finding("threads", found, "latencies are measured so")


def _waiting() -> Finding:
    """How threads wait decides what other programs, or a second kernel, do to a lesson."""
    meaning = "a busy machine is slower by its load, not a hundred times"
    set_here = [f"{name}={os.environ[name]}" for name in threads.CHOSEN if name in os.environ]
    found, remedy = " ".join(set_here), ""
    if not threads.in_time:
        found, meaning = "spinning", "other programs slow the lessons down a hundred times"
        remedy = "Restart the kernel, and import qlearn before torch."
    elif not threads.installed():
        remedy = (
            f"A kernel that `qlearn lab` has not started does without: run `qlearn prepare`, or "
            f"put `{threads.LINES.split('  ')[0]}` into {threads.KERNELS}."
        )
    return Finding("waiting threads", found, meaning, remedy)


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / GIB
    remedy = "" if free >= MEMORY_NEEDED else "Close other programs before you start a lesson."
    return Finding("free memory", f"{free:.1f} GiB", f"{MEMORY_NEEDED} GiB are enough", remedy)


def _disk() -> Finding:
    from qlearn.system.cache import home

    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made ({error.strerror})"
        remedy = "Set QLEARN_HOME to a folder that you can write to."
        return Finding("cache", str(folder), problem, remedy, needed=True)
    free = shutil.disk_usage(folder).free / GIB
    remedy = ""
    if not os.access(folder, os.W_OK):
        remedy = "Set QLEARN_HOME to a folder that you can write to."
    elif free < DISK_NEEDED:
        remedy = "Free some disk space, or set QLEARN_HOME to a folder on another disk."
    meaning = f"{free:.0f} GiB free, {DISK_NEEDED} GiB is enough"
    return Finding("cache", str(folder), meaning, remedy, needed=True)


def _base_models() -> Finding:
    from qlearn.pretrained import RECIPES, path
    from qlearn.system.turns import taken

    absent = [name for name in RECIPES if not path(name).exists()]
    if not absent:
        return Finding("base models", "all there", "lessons start at once")
    found = f"{len(absent)} missing"
    making = [name for name in absent if taken(path(name))]
    if making:
        found += f", {' and '.join(making)} being made"
        return Finding("base models", found, "a lesson that needs it waits for it")
    meaning = "lessons train what they miss when they first need it"
    return Finding("base models", found, meaning, "Run `qlearn prepare`, or `qlearn lab`.")


def _kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        program = "missing"
    # The kernel of this very environment names either its Python or plain `python`.
    fits = program != "missing" and (
        Path(program).name == program or Path(program).parent == Path(sys.executable).parent
    )
    remedy = "" if fits else "Run `python -m ipykernel install --sys-prefix` in the environment."
    return Finding("Jupyter kernel", program, "notebooks run in it", remedy, needed=True)


def _nbgrader() -> Finding:
    from jupyter_core.paths import jupyter_path

    folders = [Path(path) / "labextensions" / "@jupyter" / "nbgrader" for path in jupyter_path()]
    there = any(folder.exists() for folder in folders)
    remedy = "" if there else "Reinstall nbgrader: `make setup`, or the README's uv commands."
    found = "installed" if there else "missing"
    return Finding("nbgrader in JupyterLab", found, "Validate and Formgrader buttons", remedy)


def _program(subject: str, names: tuple[str, ...], use: str) -> Finding:
    path = next(filter(None, map(shutil.which, names)), None)
    remedy = "" if path else f"Only for {use}: install {subject} with your system's packages."
    return Finding(subject, path or "missing", f"for {use}", remedy)
