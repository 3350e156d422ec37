"""`qlearn kit build`: everything that a room needs, in one folder."""

import shutil
import subprocess
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from qlearn.room.kit import contents, wheels
from qlearn.room.kit.install import (
    CACHE,
    END,
    SOURCE,
    SUMS,
    WHEELS,
    digest,
    find_faults,
    read_sums,
)
from qlearn.room.kit.wheels import Wheel
from qlearn.system.cache import write_whole

HERE = Path(__file__).parent
START, INSTALL, SITE = "START.html", "install.py", "site"
GB = 1e9


def build(folder: Path, systems: Sequence[str], pythons: Sequence[str]) -> None:
    """Build a kit, or complete one that is there.

    Parameters
    ----------
    folder
        The kit's folder, such as a stick's; wheels that are there and whole are kept.
    systems
        Keys of ``wheels.PLATFORMS``.
    pythons
        Such as "3.12".

    Raises
    ------
    ValueError
        If a system is unknown, or the course cannot be packed.
    RuntimeError
        If a wheel cannot be had.
    OSError
        If the folder cannot be written, or has no room.
    """
    if unknown := set(systems) - set(wheels.PLATFORMS):
        known = ", ".join(wheels.PLATFORMS)
        raise ValueError(f"There is no kit for {', '.join(sorted(unknown))}: choose from {known}.")
    if left := set(pythons) - {"3.11", "3.12", "3.13"}:
        raise ValueError(f"The course runs on Python 3.11 to 3.13, not on {', '.join(left)}.")
    _require_committed()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the folder that the kit goes into.")
    (folder / WHEELS).mkdir(parents=True, exist_ok=True)
    for old in [folder / SUMS, *list_targets(folder)]:  # until it is finished, it is no kit
        old.unlink(missing_ok=True)
    targets = {f"{system}-{python}": wheels.resolve(system, python)
               for system, python in product(systems, pythons)}  # fmt: skip
    missing = wheels.find_missing(sum(targets.values(), []), folder / WHEELS)
    _announce(folder, targets, missing)
    wheels.fetch(missing, folder / WHEELS)
    for name, wanted in targets.items():
        wheels.write_list(wanted, folder / f"{name}.txt")
    wheels.write_page(folder / WHEELS)
    contents.pack(folder / CACHE)
    _add_course(folder)
    _write_start(folder, systems, pythons)
    _write_sums(folder)


def list_targets(folder: Path) -> list[Path]:
    """Return a kit's lists of wheels, one for each system and Python."""
    return [file for system in wheels.PLATFORMS for file in folder.glob(f"{system}-3.*.txt")]


def _announce(folder: Path, targets: dict[str, list[Wheel]], missing: list[Wheel]) -> None:
    """Say how large the kit is before anything is fetched, and refuse a disk that is too small."""
    for name, wanted in targets.items():
        size = sum(wheel.size for wheel in wanted)
        cuda = any(wheel.requirement.startswith("nvidia") for wheel in wanted)
        build = ", PyTorch with CUDA" * cuda
        print(f"{name}: {len(wanted)} packages, {size / GB:.2f} GB{build}")
    size, free = sum(wheel.size for wheel in missing), shutil.disk_usage(folder).free
    print(f"To fetch: {len(missing)} files, {size / GB:.2f} GB.", flush=True)
    if size > free:
        raise OSError(
            f"{folder} has {free / GB:.2f} GB free: take a larger disk, or fewer systems."
        )


def _git(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", wheels.COURSE, *words], capture_output=True, text=True)


def _require_committed() -> None:
    """Refuse to pack a course whose versions are not those of the wheels."""
    if _git("rev-parse", "HEAD").returncode:
        raise ValueError(f"{wheels.COURSE} is no git clone: build the kit from a clone.")
    if _git("diff", "--quiet", "HEAD", "--", "requirements.lock", "pyproject.toml").returncode:
        raise ValueError("requirements.lock or pyproject.toml has changes: commit them first.")


def _add_course(folder: Path) -> None:
    """Pack the last commit, and copy the site if it has been built."""
    if _git("status", "--porcelain").stdout:
        print("What is not committed is not in the kit.")
    with write_whole(folder / SOURCE) as unfinished:
        done = _git("archive", "--format=zip", f"--output={unfinished}", "HEAD")
        if done.returncode:
            raise ValueError(f"The course cannot be packed ({done.stderr.strip()}).")
    site = wheels.COURSE / "build" / SITE
    shutil.rmtree(folder / SITE, ignore_errors=True)
    if (site / "index.html").is_file():
        shutil.copytree(site, folder / SITE, ignore=shutil.ignore_patterns(".*"))
    else:
        print("The kit is built without the site, which `make site` makes.")


def _write_start(folder: Path, systems: Sequence[str], pythons: Sequence[str]) -> None:
    shutil.copy(HERE / INSTALL, folder)
    page = (HERE / START).read_text(encoding="utf-8")
    site = '<p><a href="site/index.html">Read the course.</a></p>'
    facts = {"{python}": pythons[-1], "{pythons}": " or ".join(pythons),
             "{systems}": ", ".join(systems),
             "{site}": site * (folder / SITE).is_dir()}  # fmt: skip
    for mark, fact in facts.items():
        page = page.replace(mark, fact)
    (folder / START).write_text(page, encoding="utf-8")


def _write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of the kit, as sha256sum does; what else is there is not."""
    files = [folder / name for name in (START, INSTALL, SOURCE, CACHE)] + list_targets(folder)
    for part in (WHEELS, SITE):
        files += sorted(file for file in (folder / part).rglob("*") if file.is_file())
    sums = "".join(f"{digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    with write_whole(folder / SUMS) as unfinished:
        unfinished.write_text(f"{sums}{END.format(len(files))}\n", encoding="utf-8")
    total = sum(file.stat().st_size for file in files)
    print(f"The kit is in {folder}: {len(files)} files, {total / GB:.2f} GB.")


def check(folder: Path) -> list[str]:
    """Return a sentence for each file of a kit that is not as it was built."""
    return find_faults(folder, read_sums(folder))
