"""The zip file that a learner hands in."""

import json
import os
import zipfile

import nbformat
import pytest
from nbformat import v4

from qlearn.exercises import packing
from qlearn.exercises.packing import pack

NAME = "ex9_tiny"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A notebook that hands in two answers, a minute old, and the first of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "COURSE", tmp_path / "nowhere")
    cells = [v4.new_code_cell("qlearn.submit('share', 0.5)"),
             v4.new_code_cell("%matplotlib inline"),
             v4.new_code_cell('qlearn.submit("model", model, batch)')]  # fmt: skip
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / f"{NAME}.ipynb")
    (tmp_path / "answers").mkdir()
    for name in ("answers/share.json", "helper.py", "other.ipynb", ".hidden", "answers/x.log"):
        (tmp_path / name).write_text("{}")
    for path in tmp_path.rglob("*"):
        aged(path, 60)
    return tmp_path


def aged(path, seconds):
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def test_notebook_answers_and_helpers_are_packed_and_what_is_missing_is_said(folder):
    said = pack(NAME)
    with zipfile.ZipFile(f"{NAME}.zip") as archive:
        names = set(archive.namelist())
    assert names == {f"{NAME}.ipynb", "answers/share.json", "answers/x.log", "helper.py"}
    assert "answers: 1, other files: 2" in said
    assert "no cell has handed it in yet: 'model'." in said and "wait for your" not in said
    assert pack(NAME) == said  # the first zip file is not in the second


@pytest.mark.parametrize("linked", ["answers", "answers/share.json"])
def test_a_linked_answer_is_in_it(folder, linked):
    (folder / ".elsewhere").mkdir()
    (folder / linked).rename(folder / ".elsewhere" / "it")
    (folder / linked).symlink_to(folder / ".elsewhere" / "it")
    (folder / "linked.py").symlink_to(folder / "helper.py")
    (folder / "data.zip").write_text("")
    said = pack(NAME)
    with zipfile.ZipFile(f"{NAME}.zip") as archive:
        assert archive.read("answers/share.json") == b"{}"
        assert len(archive.namelist()) == len(set(archive.namelist()))
        answers = f"answers: 1, other files: {len(archive.namelist()) - 2}"
    assert answers in said and "Left out: " in said
    assert all(name in said for name in ("data.zip", "linked.py", "other.ipynb"))


@pytest.mark.parametrize("year", [1970, 2128])
def test_a_file_of_any_year_is_packed(folder, year):
    os.utime(folder / "helper.py", ((year - 1970) * 365.25 * 86400,) * 2)
    assert "other files: 2" in pack(NAME)


def test_a_notebook_may_be_named_as_its_file_and_hold_anything(folder):
    cells = [v4.new_code_cell("x = " + "1+" * 6000 + "1"), v4.new_code_cell("'\\udce9'"),
             v4.new_code_cell("", metadata={"nbgrader": None})]  # fmt: skip
    text = json.dumps(v4.new_notebook(cells=cells)).replace("\\\\udce9", "\\udce9")
    (folder / f"{NAME}.ipynb").write_text("\ufeff" + text, encoding="utf-8")
    assert pack(f"{NAME}.ipynb") == pack(f"../{folder.name}/{NAME}")


def test_a_stub_is_said(folder):
    cell = v4.new_code_cell("# Your code here.\nraise NotImplementedError")
    nbformat.write(v4.new_notebook(cells=[cell]), folder / f"{NAME}.ipynb")
    assert "Cells that still wait for your code: 1." in pack(NAME)


@pytest.mark.parametrize(
    "newer", ["answers/share.json", f".ipynb_checkpoints/{NAME}-checkpoint.ipynb"]
)
def test_a_notebook_that_is_not_saved_is_not_packed(folder, newer):
    (folder / newer).parent.mkdir(exist_ok=True)
    (folder / newer).write_text("{}")
    with pytest.raises(ValueError, match=r"was last saved before .* save it in JupyterLab"):
        pack(NAME)
    assert not (folder / f"{NAME}.zip").exists()


def test_mistakes_get_a_sentence(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no tyni.ipynb here"):
        pack("tyni")
    (folder / "answers" / "share.pt").write_text("")
    aged(folder / "answers" / "share.pt", 60)
    with pytest.raises(ValueError, match=r"share.json and share.pt are one answer twice"):
        pack(NAME)
    monkeypatch.setattr(packing, "FILES", 2)
    with pytest.raises(ValueError, match="5 files with 0 MB are too much, 2 with 100 MB may"):
        pack(NAME)
    for text in ("{", "[]", '{"cells": [3]}'):
        (folder / f"{NAME}.ipynb").write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a notebook"):
            pack(NAME)


def test_the_limits_are_the_graders():
    from qlearn.grading import intake

    assert (packing.FILES, packing.TOTAL_MB) == (intake.FILES, intake.TOTAL_MB)
