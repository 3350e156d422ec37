"""The bank: nobody gains a point, looks around, does harm, or stops the class."""

import ast
import json
import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from hostile import artifacts, source
from hostile.exercise import MARK, POINTS
from hostile.files import FILES
from hostile.hidden import HIDDEN
from hostile.work import WORK
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from qlearn.grading.forked import template
from qlearn.grading.records import Exercise, Submission
from qlearn.grading.sandbox import USER_COUNT, USERS, Limits
from qlearn.grading.scoring import score

ROOT = Path(__file__).parents[2]
LIMITS = Limits(
    seconds=40, memory_mb=1500, processes=64, file_mb=110, disk_mb=200, files=2000,
    output_kb=100, notebook_kb=1000,
)  # fmt: skip
# A cell that computes nothing is stopped after several times its seconds.
IDLE = ("stop_itself", "blocked_signals", "patched_json", "silent_kernel")
BANK = WORK | HIDDEN | FILES | artifacts.ARTIFACTS
# Of each kind some, the quick ones; `make test-long` has the others.
QUICK = {
    "ends": ("os_exit", "system_exit", "stop_parent"),
    "uses up": ("memory", "threads", "full_disk"),
    "looks": ("reads_the_class", "reads_hidden_tests_in_memory", "network"),
    "writes": ("writes_to_the_class", "background_process", "rewrites_answers_later"),
    "cheats": ("ast_transformer", "patched_kernel", "shadowing_modules"),
    "answers": ("answer_is_a_link", "huge_sparse_answer", "deep_json"),
    "hides": ("unlinked_files", "becomes_root"),
    "files": ("edited_tests", "duplicated_tests", "scripts_in_outputs", "artifacts_handed_in"),
    "artifacts": ("honest_model", "program_with_pickled_weights", "zip_bomb", "patched_checks"),
}
KEPT = [name for names in QUICK.values() for name in names]
pytestmark = pytest.mark.usefixtures("bubblewrap")


@pytest.fixture
def class_(tmp_path):
    """A class's folder with others' work, and a word in it that nobody may read."""
    secret = secrets.token_hex(16)
    for name in ("gradebook.db", "secret", "submitted/other/number/number.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'"{secret}"')
        (tmp_path / name).chmod(0o666)
    tmp_path.chmod(0o777)
    return tmp_path, secret


@pytest.fixture
def listener():
    """A server on this machine, and one without a path, that nobody may reach."""
    name = "q" + secrets.token_hex(8)  # a digit after the attack's \\0 would be part of it
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(ast.literal_eval(f"'\\0{name}'"))
        local.listen()
        server.setblocking(False)
        local.setblocking(False)
        yield server, local, name


def contents(folder):
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def _kinds(notebook):
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    return {kind for one in outputs for kind in one.get("data", {})}


def shown(cells):
    """What a page makes of texts; an attachment that is missing raises."""
    return "".join(
        MarkdownWithMath(
            renderer=IPythonRenderer(escape=False, attachments=cell.get("attachments", {}))
        ).render(cell.source)
        for cell in cells
    )


def strangers():
    """Users of sandboxes, and `sleep`s of the bank, that are ours or have lost their parent."""
    users = range(USERS, USERS + USER_COUNT)
    ours = psutil.Process().children(recursive=True)
    lost = [p for p in psutil.process_iter(["ppid"]) if p.info["ppid"] == 1]
    found = []
    for process in {*ours, *lost}:
        with suppress(psutil.NoSuchProcess):
            hostile = process.uids().real in users or "4217" in process.cmdline()
            found += [process] if hostile and process.status() != psutil.STATUS_ZOMBIE else []
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in KEPT else pytest.mark.long) for n in BANK]
)
def test_a_hostile_submission_harms_only_itself(name, class_, listener, temporary):
    attack, (place, secret), (server, local, canary) = BANK[name], class_, listener
    words = {"PLACE": str(place), "REPOSITORY": str(ROOT), "PORT": str(server.getsockname()[1]),
             "CANARY": canary}  # fmt: skip
    notebook = attack.notebook
    for word, meant in words.items():
        notebook = notebook.replace(word.encode(), meant.encode())
    template(LIMITS)  # stays for the next submission, and is no part of this one
    before, children = contents(place), len(psutil.Process().children(recursive=True))
    work = Submission("eve", "number", notebook, dict(attack.files))

    author = artifacts.source() if name in artifacts.ARTIFACTS else source()
    # A loader may have to be imported within the cell; that of a model without end is there.
    loads = name in artifacts.ARTIFACTS and name != "model_without_end"
    limits = replace(LIMITS, cell_seconds=20 if loads else 2 if name in IDLE else 6)
    verdict = score(work, Exercise("number", author), limits)

    assert verdict.points == attack.points
    assert re.search(attack.reason, verdict.reason), verdict.reason
    assert bool(attack.reason) == bool(verdict.reason), verdict.reason
    graded = nbformat.reads(verdict.notebook.decode(), as_version=4)
    nbformat.validate(graded)
    said = json.dumps([c.get("outputs", []) for c in graded.cells if c.id.startswith("cell-work")])
    said += json.dumps([c.get("outputs", []) for c in graded.cells if c.id.startswith("added")])
    assert secret not in verdict.notebook.decode() and MARK not in said
    assert "root:" not in said and "[core]" not in said, "it read what is not its own"
    texts = [c for c in graded.cells if c.cell_type == "markdown"]
    assert "<script" not in str(texts)
    assert not re.search('(src|href)="(?!https?:|data:image/|#)', shown(texts)), shown(texts)
    assert _kinds(graded) <= {"text/plain", "image/png", "image/jpeg"}
    assert len(verdict.notebook) < 2_000_000
    assert contents(place) == before
    assert not list(temporary.glob("*/*")), "something was left behind"
    assert len(psutil.Process().children(recursive=True)) == children
    for one in (server, local):
        with pytest.raises(BlockingIOError):
            one.accept()


@pytest.mark.parametrize("bank", ["quick", pytest.param("whole", marks=pytest.mark.long)])
def test_nothing_of_the_bank_survives(bank):
    assert not strangers()


def test_the_bank_is_large_and_its_exercise_can_be_passed():
    assert len(BANK) >= 30 and sum(POINTS.values()) == 4
    assert os.path.exists(ROOT / "solutions")
