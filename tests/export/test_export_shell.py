"""`qlearn export`: what it writes and prints, and the exit code that scripts rely on."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from qlearn.cli import app


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


def test_an_exported_program_as_it_is(run, program):
    result = run(program, "--to", "executorch,torchscript")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("exported")) == ["small.pt", "small.pte"]


def test_one_refused_format_leaves_the_others(run, program):
    class Sorts(nn.Module):
        def forward(self, x):
            return torch.sort(x)[0]

    torch.export.save(torch.export.export(Sorts(), (torch.rand(2, 3),)), "sorts.pt2")
    result = run("sorts.pt2", "--to", "executorch,onnx")
    assert result.exit_code == 1
    assert "sorts.pte was not written." in result.output and "aten::sort" in result.output
    assert os.listdir("exported") == ["sorts.onnx"]


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
