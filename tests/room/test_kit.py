"""The kit: what is built from a package index, and what is said when a part of it is not whole."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from typer.testing import CliRunner

from qlearn import pretrained
from qlearn.cli import app
from qlearn.room.kit import build as module
from qlearn.room.kit import contents, install, wheels

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MODEL = "mlp"
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"


def make_wheel(name, tag):
    """A wheel with one module, as bytes."""
    content, info = io.BytesIO(), f"{name}-1.0.dist-info"
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(f"{name}.py", f"TAG = {tag!r}\n")
        file.writestr(f"{info}/METADATA", METADATA.format(name))
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return f"{name}-1.0-{tag}.whl", content.getvalue()


FILES = dict([
    make_wheel("plain", "py3-none-any"),
    make_wheel("compiled", "cp312-cp312-manylinux_2_17_x86_64"),
    make_wheel("compiled", "cp312-cp312-manylinux_2_28_x86_64"),
    make_wheel("compiled", "cp312-cp312-win_amd64"),
    make_wheel("compiled", f"cp{HERE.replace('.', '')}-abi3-manylinux_2_17_aarch64"),
    make_wheel("uv", "py3-none-any"),
])  # fmt: skip


class Index(http.server.BaseHTTPRequestHandler):
    """A package index of those wheels, which counts what is fetched."""

    fetched: list[str] = []

    def do_GET(self):
        part, _, name = self.path.strip("/").partition("/")
        if name.endswith(".metadata"):
            name = name.partition("-")[0]
            return self.answer(METADATA.format(name).encode(), "text/plain")
        if part == "files":
            self.fetched.append(name)
            return self.answer(FILES[name], "application/octet-stream")
        files = [
            {"filename": file, "url": f"/files/{file}", "size": len(content), "core-metadata": True,
             "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}
            for file, content in FILES.items() if file.startswith(f"{name}-")
        ]  # fmt: skip
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": files, "versions": ["1.0"]}
        return self.answer(json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A clone of a course that needs two packages, an index that has them, and an empty cache."""
    course = tmp_path / "course"
    (course / "build" / "site").mkdir(parents=True)
    (course / "build" / "site" / "index.html").write_text("<p>the site</p>")
    (course / "pyproject.toml").write_text(
        '[project]\nname = "course"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["plain", "compiled"]\n[project.optional-dependencies]\ntest = []\n'
        "site = []\n"
    )
    sums = "".join(f" --hash=sha256:{hashlib.sha256(c).hexdigest()}" for c in FILES.values())
    (course / "requirements.lock").write_text(f"plain==1.0{sums}\ncompiled==1.0{sums}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", course]
    for words in (["init", "-q"], ["add", "*.*"], ["commit", "-qm", "A course"]):
        subprocess.run([*git, *words], check=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(wheels, "COURSE", course)
    monkeypatch.setattr(pretrained, "RECIPES", {MODEL: pretrained.RECIPES[MODEL]})
    monkeypatch.setattr(pretrained, "prepare_all", lambda: {MODEL: "there"})
    monkeypatch.setattr(contents, "_fetch_libraries", lambda: [tmp_path / "home" / "phone" / "ort"])
    for file in (
        pretrained.path(MODEL),
        tmp_path / "home/phone/ort/a.gz",
        tmp_path / "home/sweeps/r",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    Index.fetched.clear()
    yield course
    server.shutdown()


def run(*words):
    return CliRunner().invoke(app, ["kit", *map(str, words)])


@pytest.fixture
def kit(course, tmp_path):
    folder = tmp_path / "stick"
    result = run("build", folder, "--for", "linux, windows")
    assert result.exit_code == 0, result.output
    return SimpleNamespace(folder=folder, said=result.output)


def test_each_system_gets_the_best_wheel_that_runs_there(kit):
    linux, windows = (
        (kit.folder / f"{name}-3.12.txt").read_text() for name in ("linux", "windows")
    )
    assert "# compiled-1.0-cp312-cp312-manylinux_2_28_x86_64.whl" in linux
    assert "# compiled-1.0-cp312-cp312-win_amd64.whl" in windows
    assert "# plain-1.0-py3-none-any.whl" in linux and "plain==1.0 --hash=sha256:" in windows
    assert set(Index.fetched) >= {
        name for name in os.listdir(kit.folder / "wheels") if "whl" in name
    }
    assert "linux-3.12: 3 packages" in kit.said and "To fetch: 4 files" in kit.said


def test_a_kit_is_checked_as_sha256sum_does_and_holds_the_course(kit):
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=kit.folder)
    assert done.returncode == 0
    assert run("check", kit.folder).output.strip() == "Every file is as it was built."
    with zipfile.ZipFile(kit.folder / "course.zip") as archive:
        assert {"pyproject.toml", "requirements.lock"} <= set(archive.namelist())
    page = (kit.folder / "START.html").read_text()
    assert "Python 3.12" in page and "{" not in page.partition("</style>")[2]
    assert (kit.folder / "site" / "index.html").exists() and "site/index.html" in page


def test_a_second_build_fetches_only_what_is_missing_or_damaged(kit):
    Index.fetched.clear()
    result = run("build", kit.folder, "--for", "linux,windows")
    assert "To fetch: 0 files" in result.output and result.exit_code == 0
    plain = kit.folder / "wheels" / "plain-1.0-py3-none-any.whl"
    plain.write_bytes(plain.read_bytes()[:-1])
    Index.fetched.clear()
    result = run("build", kit.folder, "--for", "linux")
    assert "To fetch: 1 files" in result.output and Index.fetched == [plain.name]
    assert not (kit.folder / "windows-3.12.txt").exists()
    assert run("check", kit.folder).exit_code == 0


def test_a_damaged_a_truncated_and_a_missing_file_are_named(kit):
    damaged, cut, missing = sorted((kit.folder / "wheels").glob("*.whl"))[:3]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    cut.write_bytes(cut.read_bytes()[:100])
    missing.unlink()
    result = run("check", kit.folder)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"wheels/{damaged.name} is damaged or cut short: copy it again.",
        f"wheels/{cut.name} is damaged or cut short: copy it again.",
        f"wheels/{missing.name} is missing in the kit: copy it again.",
    ]
    sums = kit.folder / "SHA256SUMS"
    whole = sums.read_text()
    lines = whole.splitlines(keepends=True)
    for torn in ("", "".join(lines[:3]), "".join(lines[1:]), whole[:-4], whole[2:]):
        sums.write_text(torn)
        result = run("check", kit.folder)
        assert result.exit_code == 1
        assert f"SHA256SUMS of {kit.folder} is damaged or cut short: copy it" in result.output
    sums.unlink()
    assert "is no finished kit" in run("check", kit.folder).output


@pytest.mark.parametrize(("words", "sentence"), [
    (["--for", "linux,amiga"], "There is no kit for amiga: choose from linux"),
    (["--python", "3.9"], "not on 3.9"),
    (["--for", "macos"], "uv finds no wheels for macos, Python 3.12"),
])  # fmt: skip
def test_what_cannot_be_built_is_said_in_a_sentence(course, tmp_path, words, sentence):
    result = run("build", tmp_path / "stick", *words)
    assert result.exit_code == 1 and sentence in result.output
    assert not (tmp_path / "stick" / "SHA256SUMS").exists()


def test_a_folder_that_is_none_and_a_damaged_cache_get_a_sentence(course, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file is a file: give the folder" in run("build", tmp_path / "file").output
    for content, sentence in ((None, "There is no"), ("PK", "is damaged or cut short: copy it")):
        if content:
            (tmp_path / "cache.zip").write_text(content)
        result = run("adopt", tmp_path)
        assert result.exit_code == 1 and sentence in result.output and "Errno" not in result.output


def test_a_full_disk_and_a_changed_lock_stop_a_build_before_it_fetches(
    course, tmp_path, monkeypatch
):
    usage = SimpleNamespace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda folder: usage)
        result = run("build", tmp_path / "stick", "--for", "linux")
    assert result.exit_code == 1 and "0.00 GB free" in result.output
    assert not list((tmp_path / "stick" / "wheels").iterdir())
    (course / "requirements.lock").write_text("")
    result = run("build", tmp_path / "stick", "--for", "linux")
    assert result.exit_code == 1 and "commit them first" in result.output


def test_a_file_that_the_lock_does_not_know_is_refused(course, tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, *make_wheel("plain", "py2.py3-none-any"))
    del FILES["plain-1.0-py3-none-any.whl"]
    try:
        result = run("build", tmp_path / "stick", "--for", "linux")
    finally:
        FILES.update([make_wheel("plain", "py3-none-any")])
    assert result.exit_code == 1 and "is not the lock's file" in result.output


def set_up(kit, *words):
    """Run the kit's own program, as on a laptop that has nothing else."""
    return subprocess.run([sys.executable, "-I", kit / "install.py", *words], text=True,
                          capture_output=True, cwd=kit.parent)  # fmt: skip


def rename_list(kit):
    """Have the kit's list for Linux be the one for this machine and Python."""
    wanted = kit / install.name_list([f"{system}-{HERE}.txt" for system in install.SYSTEMS])
    sums = (kit / "SHA256SUMS").read_text().replace("linux-3.12.txt", wanted.name)
    (kit / "linux-3.12.txt").rename(wanted)
    (kit / "SHA256SUMS").write_text(sums)


def test_the_set_up_names_what_is_damaged_before_it_installs(kit):
    rename_list(kit.folder)
    wheel = kit.folder / "wheels" / "plain-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-1])
    done = set_up(kit.folder)
    assert done.returncode == 1
    assert done.stderr == f"wheels/{wheel.name} is damaged or cut short: copy it again.\n"
    assert not (kit.folder.parent / "qlearn").exists()


def test_the_set_up_refuses_another_machine_another_lock_and_an_unfinished_kit(kit, course):
    for list_ in kit.folder.glob("*-3.*.txt"):
        list_.rename(kit.folder / list_.name.replace("3.12", "3.10"))
    sums = (kit.folder / "SHA256SUMS").read_text().replace("3.12", "3.10")
    (kit.folder / "SHA256SUMS").write_text(sums)
    done = set_up(kit.folder)
    assert "holds nothing for" in done.stderr and "only for linux-3.10" in done.stderr
    (kit.folder / "SHA256SUMS").write_text(sums.replace("3.10", "3.12"))
    for list_ in kit.folder.glob("*-3.*.txt"):
        list_.rename(kit.folder / list_.name.replace("3.10", "3.12"))
    rename_list(kit.folder)
    (course / "requirements.lock").write_text("plain==2.0\n")
    done = set_up(kit.folder, kit.folder, course)
    assert "has another requirements.lock than the kit" in done.stderr
    assert "Traceback" not in done.stderr
    done = set_up(kit.folder, course)
    assert "is no finished kit" in done.stderr


def test_the_cache_moves_with_models_under_this_machines_names(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path / "other"))
    made_there = tmp_path / "other" / "sweeps" / "r"
    made_there.parent.mkdir(parents=True)
    made_there.write_text("measured here")
    monkeypatch.setattr(pretrained.torch, "__version__", "another build")
    for _ in range(2):
        assert run("adopt", kit.folder).exit_code == 0
    assert "another build" not in str(pretrained.path(MODEL)) and pretrained.path(MODEL).exists()
    assert made_there.read_text() == "measured here"
    assert (tmp_path / "other" / "phone" / "ort" / "a.gz").read_text() == "a.gz"
    (kit.folder / "cache.zip").write_bytes(b"PK")
    result = run("adopt", kit.folder)
    assert result.exit_code == 1 and "Traceback" not in result.output


@contextmanager
def served(folder):
    """The address of a kit that is served."""
    command = [sys.executable, "-m", "qlearn", "kit", "serve", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        lines = iter(process.stdout.readline, "")
        yield next(line.split()[-1] for line in lines if line.startswith("The kit: "))
    finally:
        process.terminate()
        process.wait(60)


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, None, headers), timeout=60) as answer:
        return answer.status, answer.read()


def test_thirty_laptops_get_every_file_and_ranges(kit):
    large = kit.folder / "wheels" / "large.bin"
    large.write_bytes(os.urandom(5_000_000))
    module._write_sums(kit.folder)
    sums = install.read_sums(kit.folder)
    own = {"START.html", "install.py"}

    def take(number, url):
        found = {n: hashlib.sha256(fetch(url + n)[1]).hexdigest() for n in sums if n not in own}
        first = number * 1000
        part = fetch(f"{url}wheels/large.bin", Range=f"bytes={first}-{first + 999}")
        return found, part

    with served(kit.folder) as url:
        with ThreadPoolExecutor(30) as pool:
            taken = list(pool.map(lambda number: take(number, url), range(30)))
        start, program = (fetch(url + name)[1].decode() for name in ("", "install.py"))
        for request in (f"{url}../course/pyproject.toml", f"{url}%2e%2e/course/pyproject.toml"):
            with pytest.raises(urllib.error.HTTPError, match="40"):
                fetch(request)
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(f"{url}course.zip", b"x")
    content = large.read_bytes()
    for number, (found, part) in enumerate(taken):
        assert found == {name: value for name, value in sums.items() if name not in own}
        assert part == (206, content[number * 1000 : number * 1000 + 1000])
    assert f"curl {url}install.py" in start and "ADDRESS" not in start
    assert f'KIT = "{url}"' in program


def test_a_damaged_kit_is_not_served(kit):
    (kit.folder / "course.zip").write_bytes(b"")
    result = run("serve", kit.folder)
    assert result.exit_code == 1 and "course.zip is damaged" in result.output


@pytest.fixture
def room(tmp_path):
    """A folder that does not stay: kit and environment have 10 GB."""
    yield tmp_path / "room"
    shutil.rmtree(tmp_path / "room", ignore_errors=True)


@pytest.mark.long
def test_a_room_without_network_comes_from_the_kit_to_an_executed_lesson(room):
    """From a fresh clone, in a network namespace that has nothing but itself."""
    if not hasattr(os, "geteuid") or os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("only root on Linux can take the network away")
    here = install.name_list([f"{name}-{HERE}.txt" for name in install.SYSTEMS])
    module.build(room / "kit", [here.removesuffix(f"-{HERE}.txt")], [HERE])
    subprocess.run(["git", "clone", "-q", ROOT, room / "course"], check=True)
    inside = (
        f"ip link set lo up; make setup KIT={room / 'kit'} PYTHON={sys.executable}; "
        ".venv/bin/jupyter nbconvert --to notebook --execute notebooks/00_start_here.ipynb "
        f"--output {room / 'executed.ipynb'}"
    )
    tools = ("UV_", "PIP_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(tools)}
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", inside], cwd=room / "course", text=True,
        env={**own, "QLEARN_HOME": str(room / "home"), "UV_CACHE_DIR": str(room / "uv")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    executed = nbformat.read(room / "executed.ipynb", 4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    outputs = str([cell.outputs for cell in executed.cells if cell.cell_type == "code"])
    trained = "once; it is then kept" in outputs + done.stdout
    assert not trained, "the base models have not come along"
