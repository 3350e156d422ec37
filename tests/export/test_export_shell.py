"""`qlearn export`: what it writes and prints, and the exit code that scripts rely on."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from qlearn import data, evaluate, pretrained
from qlearn.cli import app
from qlearn.export.arm import runner


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.fixture
def program(tmp_path):
    """A small exported program, saved."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (torch.rand(2, 12),), dynamic_shapes=batch)
    torch.export.save(exported, tmp_path / "small.pt2")
    return tmp_path / "small.pt2"


def test_a_course_model_in_both_precisions(run):
    result = run("small_cnn", "--to", "onnx,lite", "--output", "files")
    assert result.exit_code == 0, result.output
    names = [
        "small_cnn.app",
        "small_cnn.fp32.onnx",
        "small_cnn.fp32.ptl",
        "small_cnn.int8.onnx",
        "small_cnn.int8.ptl",
    ]
    assert sorted(os.listdir("files")) == names
    assert all(name in result.output for name in names)
    assert os.path.getsize("files/small_cnn.int8.onnx") < 0.4 * os.path.getsize(
        "files/small_cnn.fp32.onnx"
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder and the report of an int8 ExecuTorch file of the small CNN."""
    folder = tmp_path_factory.mktemp("exported")
    words = ["export", "small_cnn", "--to", "executorch", "--output", str(folder)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_the_accuracy_is_the_files_on_the_whole_test_set(exported):
    row = next(line for line in exported[1].splitlines() if "fp32.pte" in line)
    share, error = (float(n) / 100 for n in re.search(r"([\d.]+)% ± ([\d.]+)%", row).groups())
    test = data.digits().test
    _, loader = data.loaders(data.digits())
    expected = evaluate(pretrained.small_cnn(), loader)
    assert abs(share - expected) < 0.002
    assert abs(error - np.sqrt(expected * (1 - expected) / len(test))) < 0.001
    assert f"on all {len(test)} test samples" in exported[1]


def test_what_an_app_needs_is_beside_the_file(exported):
    folder = exported[0] / "small_cnn.app"
    assert (folder / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    about = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    assert about["input"] == {"shape": [1, 1, 28, 28], "type": "float32"}
    assert about["output"]["shape"] == [1, 10] and "28×28" in about["preprocessing"]["words"]
    values = np.fromfile(folder / "example.bin", np.float32)
    image, label = data.digits().test[0]
    assert np.array_equal(values, image.flatten().numpy())
    assert np.fromfile(folder / "expected.small_cnn.int8.pte.bin", np.float32).argmax() == label
    for name in ("load.kt", "load.swift"):
        text = (folder / name).read_text()
        assert "Never compiled nor run" in text and "$" not in text
        assert "small_cnn.int8.pte" in text and "1, 1, 28, 28" in text


def expect_output(printed: str, exported: Path) -> None:
    wanted = np.fromfile(exported / "small_cnn.app/expected.small_cnn.int8.pte.bin", np.float32)
    np.testing.assert_allclose([float(n) for n in printed.split()], wanted, atol=1e-3)


def test_the_python_lines_run(exported):
    folder = exported[0] / "small_cnn.app"
    command = [sys.executable, folder / "load.py", exported[0] / "small_cnn.int8.pte"]
    done = subprocess.run([*command, folder / "example.bin"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expect_output(re.sub(r"(?m)^[^-\d].*$", "", done.stdout), exported[0])


def test_the_cpp_lines_run_on_arm(arm_tools, exported, tmp_path):
    folder, program = exported[0] / "small_cnn.app", tmp_path / "load"
    _, loader, *libraries = runner.build("aarch64")
    home = libraries[-1].parents[1]
    command = ["aarch64-linux-gnu-g++", *runner.list_arguments(home, folder / "load.cpp", program)]
    subprocess.run(command, check=True)
    search = ":".join({str(library.parent) for library in libraries})
    emulated = ["qemu-aarch64", "-cpu", runner.CPU, loader, "--library-path", search, program]
    inputs = [exported[0] / "small_cnn.int8.pte", folder / "example.bin"]
    done = subprocess.run([*emulated, *inputs], capture_output=True, text=True, check=True)
    expect_output(done.stdout, exported[0])


@pytest.mark.parametrize("name", ["phrase_lstm", "language_model"])
def test_the_preprocessing_of_texts_is_enough_to_make_the_input(name):
    """By the data and the words alone, as an app would do it."""
    from qlearn.export.app_files import PREPROCESSING

    told = json.loads(json.dumps(PREPROCESSING[name]))
    text = "for x in  naïve:\n  中pass"
    if name == "phrase_lstm":
        kept = " ".join(text.split())[: told["length"]]
        ids = [told["alphabet"].get(character, told["unknown"]) for character in kept]
        ids = [told["padding"]] * (told["length"] - len(ids)) + ids
        assert ids == data.encode(text).tolist()
        return
    ids, rest = [], text
    while rest:
        found = [piece for piece in told["pieces"] if rest.startswith(piece)]
        longest = max(found, key=len, default=None)
        ids += [] if longest is None else [told["pieces"].index(longest)]
        rest = rest[len(longest or " ") :]
    assert ids == data.encode_text(text).tolist()


def test_dynamic_int8_for_an_lstm(run):
    result = run("phrase_lstm", "--to", "onnx", "--int8", "--dynamic")
    assert result.exit_code == 0, result.output
    assert os.path.getsize("exported/phrase_lstm.int8.onnx") < 0.4e6
    result = run("phrase_lstm", "--to", "executorch", "--dynamic")
    assert result.exit_code == 2 and "it goes with --to onnx" in result.output


def test_an_exported_program_as_it_is(run, program):
    result = run(program, "--to", "executorch,torchscript")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("exported")) == ["small.app", "small.pt", "small.pte"]


def test_a_program_in_16_bits_is_written(run):
    model = nn.Linear(4, 3).bfloat16().eval()
    example = (torch.rand(1, 4).bfloat16(),)
    torch.export.save(torch.export.export(model, example), "half.pt2")
    result = run("half.pt2", "--to", "torchscript")
    assert result.exit_code == 0, result.output
    assert os.path.getsize("exported/half.app/example.bin") == 8


def test_one_refused_format_leaves_the_others(run, program):
    class Sorts(nn.Module):
        def forward(self, x):
            return torch.sort(x)[0]

    torch.export.save(torch.export.export(Sorts(), (torch.rand(2, 3),)), "sorts.pt2")
    result = run("sorts.pt2", "--to", "executorch,onnx")
    assert result.exit_code == 1
    assert "sorts.pte was not written." in result.output and "aten::sort" in result.output
    assert sorted(os.listdir("exported")) == ["sorts.app", "sorts.onnx"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vgg"], "There is no model 'vgg': name one of resnet18"),
        (["absent.pt2"], "There is no model 'absent.pt2'"),
        (["mlp", "--to", "tflite"], "There is no format 'tflite': choose from executorch"),
        (["small.pt2", "--int8"], "no inputs to calibrate with"),
        (["damaged.pt2"], "cannot be read as an exported program"),
    ],
)
def test_mistakes_get_a_sentence_and_no_file(words, sentence, run, program):
    program.with_name("damaged.pt2").write_bytes(program.read_bytes()[:300])
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.output and "Traceback" not in result.output
    assert not os.path.exists("exported")


def test_a_pickle_hidden_in_a_program_is_not_run(run, program, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    buffer = io.BytesIO()
    torch.save(Bomb(), buffer, pickle_module=pickle)
    source = zipfile.ZipFile(program)
    with zipfile.ZipFile("bomb.pt2", "w") as target:
        replaced = 0
        for name in source.namelist():
            data = source.read(name)
            if "sample_inputs" in name:
                data, replaced = buffer.getvalue(), replaced + 1
            target.writestr(name, data)
    assert replaced
    result = run("bomb.pt2", "--to", "torchscript")
    assert not (tmp_path / "ran").exists(), result.output
    assert result.exit_code == 2, result.output
