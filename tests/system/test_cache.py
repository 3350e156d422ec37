"""What is kept is known by everything that decided it, and is whole or not there."""

import shutil

import pytest

from qlearn.system import cache

ENTRIES = ("qlearn.sweeps.sweeping", "qlearn.sweeps.few_bits", "qlearn.pretrained")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, whose text may be changed."""
    copy = tmp_path / "qlearn"
    shutil.copytree(cache.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "page"))
    monkeypatch.setattr(cache, "PACKAGE", copy)
    return copy


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_changed_line_in_any_module_within_reach_changes_the_key(entry, package):
    keys = {cache.source_digest(entry)}
    files = cache.reachable(entry)
    for file in files:
        with open(package.parent / file, "a") as text:
            text.write("# another line\n")
        keys.add(cache.source_digest(entry))
    assert len(keys) == 1 + len(files)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_module_out_of_reach_does_not_change_it(entry, package):
    before = cache.source_digest(entry)
    with open(package / "grading" / "report.py", "a") as text:
        text.write("# another line\n")
    assert cache.source_digest(entry) == before


@pytest.mark.parametrize(
    ("entry", "modules"),
    {
        # Loaders and split decide a row; so does the process that measures it.
        "qlearn.sweeps.sweeping": {"data/common", "sweeps/row_process", "benchmarking", "training"},
        "qlearn.sweeps.few_bits": {"data/common", "data/images", "quantization/equalization"},
        "qlearn.pretrained": {"models", "data/text", "training", "system/threads"},
    }.items(),
)
def test_what_is_imported_inside_functions_is_within_reach(entry, modules):
    found = {path.as_posix() for path in cache.reachable(entry)}
    assert {f"qlearn/{name}.py" for name in modules} <= found


def test_the_libraries_that_compute_are_in_the_key(monkeypatch):
    before = cache.source_digest("qlearn.models")
    monkeypatch.setattr(cache, "version", lambda name: "another" if name == "torchao" else "1")
    first = cache.source_digest("qlearn.models")
    monkeypatch.setattr(cache, "version", lambda name: "1")
    assert len({before, first, cache.source_digest("qlearn.models")}) == 3


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "folder" / "file.txt"
    for text in ("first", "second"):
        with cache.write_whole(file) as unfinished:
            unfinished.write_text(text)
        assert file.read_text() == text
    with pytest.raises(RuntimeError), cache.write_whole(file) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert file.read_text() == "second" and [*file.parent.iterdir()] == [file]


def test_a_folder_is_not_taken_for_a_file_that_was_written(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OSError), cache.write_whole(tmp_path / "model.onnx") as unfinished:
        unfinished.write_text("content")


def test_of_two_that_make_a_folder_the_first_wins(tmp_path):
    folder = tmp_path / "folder"
    with cache.write_whole(folder) as second:
        second.mkdir()
        (second / "by").write_text("second")
        with cache.write_whole(folder) as first:
            first.mkdir()
            (first / "by").write_text("first")
    assert (folder / "by").read_text() == "first" and [*tmp_path.iterdir()] == [folder]
