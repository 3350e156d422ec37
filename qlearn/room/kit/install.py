"""Set the course up from a kit; with Python's own library only, because nothing else is there yet.

    python3.12 KIT/install.py [KIT [COURSE]]

KIT is the kit's folder or address, by default where this file lies. COURSE is a clone of the
course; by default it is unpacked into the folder qlearn.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path

KIT = ""  # `qlearn kit serve` writes its address here
SUMS, SOURCE, CACHE, WHEELS = "SHA256SUMS", "course.zip", "cache.zip", "wheels"
END = "# {} files"  # the last line of the sums, which sha256sum takes for a comment
SYSTEMS = {
    "linux": "Linux x86_64",
    "linux-arm": "Linux aarch64",
    "macos": "Darwin arm64",
    "windows": "Windows AMD64",
}


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a kit, by its path in the kit."""
    if not (folder / SUMS).is_file():
        raise ValueError(f"{folder} is no finished kit: it lacks {SUMS}.")
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    whole = lines[-1:] == [END.format(len(lines) - 1)]
    if not whole or not all(re.fullmatch("[0-9a-f]{64}  .+", line) for line in lines[:-1]):
        raise ValueError(f"{SUMS} of {folder} is damaged or cut short: copy it again.")
    return {name: value for value, _, name in (line.partition("  ") for line in lines[:-1])}


def find_faults(folder: Path, names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these files of a kit that is not as it was built."""
    sums, faults = read_sums(folder), []
    for name in names:
        if not (folder / name).is_file():
            faults.append(f"{name} is missing in the kit: copy it again.")
        elif digest(folder / name) != sums.get(name):
            faults.append(f"{name} is damaged or cut short: copy it again.")
    return faults


def name_list(names: Iterable[str]) -> str:
    """Return the name of the list of wheels for this machine and this Python."""
    machine, python = f"{platform.system()} {platform.machine()}", sys.version_info
    system = next((name for name in SYSTEMS if SYSTEMS[name] == machine), machine)
    wanted = f"{system}-{python.major}.{python.minor}"
    there = [name[:-4] for name in names if name.endswith(".txt") and "/" not in name]
    if wanted not in there:
        raise ValueError(
            f"The kit holds nothing for {wanted}, only for {', '.join(there)}: run install.py with "
            "such a Python, or have the kit built for this one too."
        )
    return f"{wanted}.txt"


def bring(address: str, folder: Path) -> None:
    """Fetch from a served kit all that uv does not fetch itself."""
    os.environ["NO_PROXY"] = urllib.parse.urlsplit(address).hostname or ""  # it leads elsewhere
    os.environ["UV_CONCURRENT_DOWNLOADS"] = "4"  # others want to be served too

    def fetch(name: str) -> None:
        with urllib.request.urlopen(address + name, timeout=60) as answer:
            (folder / name).write_bytes(answer.read())

    fetch(SUMS)
    for name in (SOURCE, CACHE, name_list(read_sums(folder))):
        fetch(name)


def require_whole(folder: Path, wheels: str) -> Path:
    """Check what is set up from, wheels too if they are in the folder; return their list."""
    listed = name_list(read_sums(folder))
    faults = find_faults(folder, [listed, SOURCE, CACHE])
    if not faults and "://" not in wheels:  # uv checks what it fetches
        lines = (folder / listed).read_text(encoding="utf-8").splitlines()
        print(f"Checking {len(lines)} wheels of the kit.", flush=True)
        faults = find_faults(folder, [f"{WHEELS}/{line.rpartition(' # ')[2]}" for line in lines])
    if faults:
        raise ValueError("\n".join(faults))
    return folder / listed


def unpack(folder: Path, course: Path) -> None:
    """Put the course into its folder, or check that the clone there has the kit's versions."""
    with zipfile.ZipFile(folder / SOURCE) as archive:
        if not (course / "pyproject.toml").exists():
            archive.extractall(course)
        lock = archive.read("requirements.lock").split()
    if (course / "requirements.lock").read_bytes().split() != lock:
        raise ValueError(
            f"{course} has another requirements.lock than the kit: set up the kit's own course "
            "(install.py without a second argument), or have the kit built anew."
        )


def set_up(listed: Path, wheels: str, course: Path) -> None:
    """Make the environment of a course from the listed wheels, and fill the cache."""
    environment = course / ".venv"
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    python = programs / ("python.exe" if os.name == "nt" else "python")
    if not python.exists():
        run(sys.executable, "-m", "venv", environment)
    host = urllib.parse.urlsplit(wheels).hostname or "localhost"
    source = ("--no-index", "--find-links", wheels)
    run(python, "-m", "pip", "--isolated", "install", "--quiet", "--trusted-host", host, *source,
        "uv")  # fmt: skip
    uv = (python, "-m", "uv", "--no-config", "pip", "install", "--python", python, *source)
    run(*uv, "--no-deps", "--requirements", listed)
    run(*uv, "--no-deps", "--editable", course)
    run(python, "-m", "qlearn", "kit", "adopt", listed.parent)


def run(*command: str | Path) -> None:
    """Run a program, which says itself what is wrong."""
    subprocess.run(command, check=True)


def main(kit: str, course: Path) -> None:
    """Set up a course from a kit's folder or address."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, wheels = Path(kit), str(Path(kit) / WHEELS)
        if "://" in kit:
            address = f"{kit.rstrip('/')}/"
            folder, wheels = Path(scratch), f"{address}{WHEELS}/"
            bring(address, folder)
        listed = require_whole(folder, wheels)
        unpack(folder, course)
        set_up(listed, wheels, course)
    print(f"The course is set up in {course.resolve()}.")


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else KIT or str(Path(__file__).parent)
    try:
        main(source, Path(sys.argv[2] if len(sys.argv) > 2 else "qlearn"))
    except subprocess.CalledProcessError:
        raise SystemExit("The set-up has stopped: what is above says why.") from None
    except (OSError, HTTPException) as error:
        raise SystemExit(f"The set-up from {source} has stopped: {error}.") from None
    except ValueError as error:
        raise SystemExit(str(error)) from None
