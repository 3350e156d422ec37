"""The repository's own promises: one place for versions, links that resolve, clean notebooks."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
TRACKED = [
    ROOT / line
    for line in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (ROOT / line).is_file()
]
NOTEBOOKS = [path for path in TRACKED if path.suffix == ".ipynb"]
PLATFORMS = [
    {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
    {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows"},
]
PYTHONS = ["3.11", "3.12", "3.13"]


def locked(environment: dict[str, str]) -> dict[str, str]:
    """Name → version of what the lock installs in an environment."""
    versions = {}
    for line in re.findall(r"^([a-z0-9][^\\\n]*)", LOCK, re.MULTILINE):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in versions, f"{requirement.name} is locked twice"
            (clause,) = requirement.specifier
            versions[requirement.name] = clause.version
    return versions


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: f"{p['sys_platform']}")
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_meets_every_requirement(platform, python):
    environment = {**platform, "python_version": python, "python_full_version": f"{python}.0"}
    versions = locked(environment)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["test"], *extras["site"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_the_lock_is_hashed_and_names_no_index():
    entries = re.findall(r"^[a-z0-9].*(?:\n    --hash.*)*", LOCK, re.MULTILINE)
    assert len(entries) > 100
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in LOCK and "--index" not in LOCK and "--find-links" not in LOCK


def test_conda_uses_the_same_python_and_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, extra = environment["dependencies"]
    wanted, offered = PROJECT["requires-python"], Requirement(python).specifier
    assert offered == Requirement(f"python{wanted}").specifier
    assert pip == "pip"
    assert extra == {"pip": ["--requirement requirements.lock"]}


def test_links_between_files_resolve():
    broken, found = [], 0
    for path in [*NOTEBOOKS, *(p for p in TRACKED if p.suffix == ".md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", prose(path)):
            if re.match(r"[a-z]+:", target):
                continue
            found += 1
            if not (stands_in(path) / target).exists():
                broken.append(f"{path.relative_to(ROOT)} → {target}")
    assert found > 5 and not broken, broken


def stands_in(path: Path) -> Path:
    """The folder that links start from; an exercise is read where it is released."""
    if path.is_relative_to(ROOT / "solutions"):
        return ROOT / "notebooks" / "exercises" / path.parent.name
    return path.parent


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_hygiene(path):
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"].get("language_info", {})) <= {"name"}
    ids = [cell.get("id") for cell in notebook["cells"]]
    assert all(ids) and len(set(ids)) == len(ids), "cells need ids, each its own"
    for cell in notebook["cells"]:
        # nbgrader itself marks the cells of a release that must stay.
        assert set(cell["metadata"]) <= {
            "tags",
            "nbgrader",
            "deletable",
            "editable",
            "jupyter",  # folds a cell that only draws
        }, cell["id"]
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, cell["id"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_lesson_keeps_to_the_measures_of_comfort(path):
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(c["source"]).splitlines() for c in cells if c["cell_type"] == "code"]
    lengths = sorted(map(len, code))
    assert lengths[len(lengths) // 2] <= 6 and lengths[-1] <= 20, lengths
    text = prose(path)
    parts = ["You will be able to", "minutes", "## .*Summary", "## .*Sources", "<details>"]
    for part in parts:
        assert re.search(part, text), f"{path.name} lacks: {part}"


def test_nothing_generated_or_private_is_tracked():
    hosts = "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.org"])
    for path in TRACKED:
        assert path.stat().st_size < 2**20, f"{path} is over 1 MB"
        if path.suffix in {".png", ".jpg"}:
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(hosts, text), f"{path} names a package registry"
        machine = re.search(
            r"/(home/(?!learner)|root/|work/)\w", text
        )  # not the sandbox's own home
        assert not machine, f"{path} holds a machine's path: {machine[0]}"


def test_commands_in_the_pages_exist():
    """Every `qlearn …` and `make …` of a code block or a table is one that there is."""
    from typer.main import get_command

    from qlearn.cli import app

    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known, found = get_command(app).commands, 0
    for path in [ROOT / "README.md", *(ROOT / "notebooks" / "teach").rglob("*.md")]:
        for tool, name, rest in re.findall(r"^(qlearn|make) ([a-z-]+)(.*)$", code(path), re.M):
            if name == "needs":  # the Makefile's message to an unfitting Python
                continue
            found += 1
            if tool == "make":
                assert name in targets, f"{path.name}: make {name}"
                continue
            assert name in known, f"{path.name}: qlearn {name}"
            command = known[name]
            if part := getattr(command, "commands", {}):
                assert rest.split()[0] in part, f"{path.name}: qlearn {name}{rest}"
                command = part[rest.split()[0]]
            options = {option for one in command.params for option in one.opts}
            used = set(re.findall(r"--[a-z-]+", rest.split(" #")[0]))
            assert used <= options, f"{path.name}: qlearn {name} has no {used - options}"
    assert found > 20


def code(path: Path) -> str:
    """Code blocks and inline code, a line each."""
    text = path.read_text()
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([line.strip() for block in blocks for line in block.splitlines()] + inline)
