"""The wheels of the lock for other systems: which they are, how large, and fetching them."""

import os
import shutil
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename
from tqdm import tqdm

from qlearn.room.kit.install import digest
from qlearn.system.cache import write_whole
from qlearn.system.lab import COURSE
from qlearn.system.tools import run_tool

TIMEOUT = 600  # seconds for a resolution
CHUNK = 2**20
ARCHIVES = (".whl", ".gz", ".zip")


def _glibc(machine: str) -> list[str]:
    """Return the platforms of wheels that run on glibc 2.28, best first."""
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)]
    return [*names, *(f"manylinux{year}_{machine}" for year in (2014, 2010, 1)), f"linux_{machine}"]


# What README.md says is supported: uv's name for it, and the platforms of wheels that run there.
PLATFORMS = {
    "linux": ("x86_64-manylinux_2_28", _glibc("x86_64")),
    "linux-arm": ("aarch64-manylinux_2_28", _glibc("aarch64")),
    "macos": ("aarch64-apple-darwin", list(mac_platforms((14, 0), "arm64"))),
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
}


class Wheel(NamedTuple):
    """A file to fetch: a wheel, or the source of a package that has none."""

    requirement: str
    file: str
    url: str
    size: int
    sha256: str


def resolve(system: str, python: str) -> list[Wheel]:
    """Return what the lock installs on a system, and uv; of PyTorch the CPU build, if it can be.

    Raises
    ------
    RuntimeError
        If the package index does not answer, or lacks a version of the lock.
    """
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "pylock.toml"
        if not (system.startswith("linux") and _compile(system, python, answer, cpu=True)):
            _compile(system, python, answer)
        packages = tomllib.loads(answer.read_text(encoding="utf-8"))["packages"]
    lock = (COURSE / "requirements.lock").read_text(encoding="utf-8")
    wheels = [_choose(package, PLATFORMS[system][1], python) for package in packages]
    for wheel in wheels:
        # A CPU build and uv itself are not in the lock.
        known = "+" in wheel.requirement or wheel.requirement.startswith("uv==")
        if not known and wheel.sha256 not in lock:
            raise RuntimeError(f"{wheel.file} of the package index is not the lock's file.")
    return wheels


def _compile(system: str, python: str, answer: Path, cpu: bool = False) -> bool:
    """Have uv write which files the lock means; return whether it could, if that is a question."""
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    if not Path(uv).exists():
        raise RuntimeError("uv is missing: install it with `pip install uv`.")
    more = answer.with_name("more.in")
    more.write_text("uv\n", encoding="utf-8")
    command = [uv, "pip", "compile", COURSE / "pyproject.toml", more, "--quiet", "--no-header"]
    command += ["--extra", "test", "--extra", "site", "--format", "pylock.toml"]
    command += ["--constraints", COURSE / "requirements.lock", "--output-file", answer]
    command += ["--python-platform", PLATFORMS[system][0], "--python-version", python]
    command += ["--torch-backend", "cpu"] if cpu else []
    settings = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never"}
    try:
        run_tool(command, f"uv finds no wheels for {system}, Python {python} ({{reason}}).",
                 TIMEOUT, env={**os.environ, **settings})  # fmt: skip
    except RuntimeError:
        if not cpu:
            raise
        print(f"PyTorch's CPU build for {system} cannot be had here; the package index's is taken.")
        return False
    return True


def _choose(package: dict[str, Any], platforms: list[str], python: str) -> Wheel:
    """Return the best wheel of a package, or its source if it has no wheel at all."""
    version = tuple(map(int, python.split(".")))
    fitting = [*cpython_tags(version, platforms=platforms),
               *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)]  # fmt: skip
    order = {tag: place for place, tag in enumerate(fitting)}
    ranked = []
    for wheel in package.get("wheels", []):
        tags = parse_wheel_filename(_name(wheel))[3]
        ranked += [(order[tag], _name(wheel), wheel) for tag in tags if tag in order]
    if not ranked and "sdist" not in package:
        raise RuntimeError(f"{package['name']} has no wheel for Python {python} that fits.")
    chosen = min(ranked, key=lambda one: one[:2])[2] if ranked else package["sdist"]
    size = chosen.get("size") or _ask_size(chosen["url"])
    requirement = f"{package['name']}=={package['version']}"
    return Wheel(requirement, _name(chosen), chosen["url"], size, chosen["hashes"]["sha256"])


def _name(file: dict[str, Any]) -> str:
    path = urllib.parse.urlsplit(file["url"]).path
    return file.get("name") or urllib.parse.unquote(path.rpartition("/")[2])


def _ask_size(url: str) -> int:
    """Return a file's size in bytes where the index does not tell it."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
        return int(answer.headers["Content-Length"])


def find_missing(wheels: Iterable[Wheel], folder: Path) -> list[Wheel]:
    """Return those that are not in a folder, or are damaged there; each file once."""
    unique = {wheel.file: wheel for wheel in wheels}.values()
    return [wheel for wheel in unique if not (folder / wheel.file).is_file()
            or digest(folder / wheel.file) != wheel.sha256]  # fmt: skip


def fetch(wheels: list[Wheel], folder: Path) -> None:
    """Fetch wheels into a folder, each whole or not at all.

    Raises
    ------
    RuntimeError
        If one cannot be fetched; those before it stay.
    """
    total = sum(wheel.size for wheel in wheels)
    with tqdm(total=total, unit="B", unit_scale=True, disable=not total) as bar:
        for wheel in wheels:
            try:
                _fetch_one(wheel, folder, bar)
            except (OSError, HTTPException) as error:
                raise RuntimeError(
                    f"{wheel.file} has not arrived ({error}): the same command again keeps what is "
                    "there and goes on."
                ) from error


def _fetch_one(wheel: Wheel, folder: Path, bar: tqdm) -> None:
    with write_whole(folder / wheel.file) as unfinished:
        with urllib.request.urlopen(wheel.url, timeout=60) as answer, unfinished.open("wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if digest(unfinished) != wheel.sha256:
            raise OSError("its SHA-256 is another than the index tells")


def write_list(wheels: list[Wheel], path: Path) -> None:
    """Write the requirements of a system, each with the hash and name of its file."""
    lines = [f"{w.requirement} --hash=sha256:{w.sha256}  # {w.file}\n" for w in sorted(wheels)]
    path.write_text("".join(lines), encoding="utf-8")


def write_page(folder: Path) -> None:
    """Write the page of links that pip and uv read where the wheels are served."""
    names = sorted(file.name for file in folder.iterdir() if file.suffix in ARCHIVES)
    links = "".join(f'<a href="{urllib.parse.quote(name)}">{name}</a><br>\n' for name in names)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Wheels</title>\n{links}'
    (folder / "index.html").write_text(page, encoding="utf-8")
