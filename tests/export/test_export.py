import logging
import os
import warnings

import pytest
import torch
from torch import nn

from qlearn import data, export, models, pretrained
from qlearn.benchmarking import compare
from qlearn.export import common

WRITERS = {
    "onnx": (export.onnx, export.onnx_session),
    "executorch": (export.executorch, export.executorch_method),
}


@pytest.fixture(scope="module")
def loaders():
    return data.loaders(data.digits(), batch_size=32)


@pytest.fixture(scope="module")
def model():
    return pretrained.small_cnn()


SUFFIXES = {"executorch": ".pte", "onnx": ".onnx"}


@pytest.fixture(scope="module")
def files(model, loaders, tmp_path_factory):
    """Both precisions of both formats, each written once for all tests of this module."""
    folder = tmp_path_factory.mktemp("export")
    train, test = loaders
    example = next(iter(test))[0]
    calibration = [next(iter(train)), next(iter(train))[0]]  # a pair and a bare tensor
    written = {}
    for name, (write, _) in WRITERS.items():
        for precision, inputs in (("fp32", None), ("int8", calibration)):
            written[name, precision] = write(
                model, example, folder / f"{precision}{SUFFIXES[name]}", inputs
            )
    return written


@pytest.mark.parametrize("name", WRITERS)
def test_fp32_file_computes_what_the_model_does(name, files, model, loaders):
    images, _ = next(iter(loaders[1]))
    run = WRITERS[name][1](files[name, "fp32"], threads=1)
    torch.testing.assert_close(run(images), model(images).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WRITERS)
def test_int8_file_is_a_quarter_and_predicts_alike(name, files, model, loaders):
    images, labels = next(iter(loaders[1]))
    run = WRITERS[name][1](files[name, "int8"], threads=1)
    outputs, reference = run(images), model(images).detach()
    assert (outputs.argmax(1) == reference.argmax(1)).float().mean() >= 0.95
    assert not torch.equal(outputs, reference)  # it is quantized, not a copy
    assert files[name, "int8"].size_mb / files[name, "fp32"].size_mb < 0.35
    assert files[name, "int8"].top1 >= 0.95
    assert 25 < files[name, "int8"].sqnr_db < 60 < files[name, "fp32"].sqnr_db


def test_a_report_is_a_path_and_a_line(files):
    made = files["executorch", "int8"]
    assert made.size_mb == os.path.getsize(made) / 10**6
    assert str(made).count("\n") == 0 and "int8.pte: 0." in str(made)
    assert "delegates 1, left over: nothing" in str(made)
    assert files["onnx", "int8"].delegates is None and "delegates" not in str(files["onnx", "int8"])


@pytest.mark.parametrize("name", WRITERS)
def test_another_batch_size_gets_a_sentence(name, files):
    run = WRITERS[name][1](files[name, "fp32"])
    with pytest.raises(ValueError, match=r"of shape \(5, 1, 28, 28\): .*another shape or batch"):
        run(torch.rand(5, 1, 28, 28))
    with pytest.raises(ValueError, match="of different types"):
        run(torch.rand(32, 1, 28, 28, dtype=torch.float64))


@pytest.mark.parametrize("name", WRITERS)
def test_an_example_may_be_any_view(name, tmp_path):
    view = torch.rand(8, 4).T
    layer = torch.nn.Sequential(torch.nn.Linear(8, 3)).eval()
    made = WRITERS[name][0](layer, view, tmp_path / f"view{SUFFIXES[name]}", check=[view])
    assert torch.allclose(WRITERS[name][1](made)(view), layer(view), atol=1e-5)


def test_only_finished_files_are_left(files):
    folder = next(iter(files.values())).path.parent
    assert sorted(os.listdir(folder)) == sorted(made.path.name for made in files.values())


def test_onnx_int8_has_unsigned_activations_and_weights_per_channel(files):
    import onnx
    from onnx import TensorProto

    graph = onnx.load(files["onnx", "int8"].path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations
    assert {constants[node.input[2]].data_type for node in activations} == {TensorProto.UINT8}
    weights = [t for t in constants.values() if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    assert len(weights) == 3
    values = [onnx.numpy_helper.to_array(tensor) for tensor in weights]
    assert max(abs(value.astype(int)).max() for value in values) == 64  # x86 without VNNI
    scales = [list(t.dims) for t in constants.values() if list(t.dims) in ([32], [64])]
    assert [32] in scales and [64] in scales


def test_model_and_its_mode_stay(loaders, tmp_path):
    model = models.MLP().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export.onnx(model, next(iter(loaders[1]))[0], tmp_path / "mlp.onnx")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_loaded_files_can_be_compared(files, model, loaders):
    images, _ = next(iter(loaders[1]))
    runs = {"eager": model} | {
        name: WRITERS[name][1](files[name, "int8"], threads=1) for name in WRITERS
    }
    table = compare(runs, images, seconds=0.01)
    assert list(table.index) == ["eager", "onnx", "executorch"]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [([], "No calibration batch"), ([torch.zeros(4, 3, 28, 28)], "same shape")],
)
def test_calibration_that_does_not_fit(name, calibration, sentence, model, tmp_path):
    target = tmp_path / f"kept{SUFFIXES[name]}"
    target.write_text("an older file")
    with pytest.raises(ValueError, match=sentence):
        WRITERS[name][0](model, torch.zeros(2, 1, 28, 28), target, calibration)
    assert target.read_text() == "an older file"
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.parametrize("name", WRITERS)
def test_missing_paths_are_named(name, tmp_path):
    write, load = WRITERS[name]
    with pytest.raises(FileNotFoundError, match="make it first"):
        write(nn.Identity(), torch.zeros(1), tmp_path / "absent" / "file")
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        write(nn.Identity(), torch.zeros(1), tmp_path)
    with pytest.raises(FileNotFoundError, match=f"qlearn.export.{name}"):
        load(tmp_path / "absent")


def test_calibration_batches_are_cut_to_the_example():
    batches = common.calibration_inputs(
        [torch.zeros(5, 3), (torch.ones(2, 3), None)], torch.zeros(2, 3)
    )
    assert [(len(batch), batch.mean().item()) for batch in batches] == [(2, 0), (2, 0), (2, 1)]


def test_quiet_holds_back_all_channels(capfd):
    with export.quiet():
        print("python")
        os.write(1, b"c++")
        os.write(2, b"c++")
        logging.getLogger("exporter").warning("log")
        warnings.warn("warning", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert not logging.root.manager.disable
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_quiet_shows_what_was_said_before_an_error(capfd):
    with pytest.raises(RuntimeError, match="broken"), export.quiet():
        os.write(2, b"the reason\n")
        raise RuntimeError("broken")
    assert "the reason" in capfd.readouterr().err


def test_dynamic_onnx_quantizes_an_lstm(tmp_path):
    model, phrases = pretrained.phrase_lstm(), data.phrases()
    inputs = torch.stack([phrases.test[index][0] for index in range(64)])
    whole = export.onnx(model, inputs[:1], tmp_path / "fp32.onnx")
    made = export.onnx(
        model, inputs[:1], tmp_path / "int8.onnx", check=inputs.split(1), dynamic=True
    )
    assert made.size_mb < 0.3 * whole.size_mb and 30 < made.sqnr_db < 60 and made.top1 > 0.9
    with pytest.raises(ValueError, match="leave the calibration inputs out"):
        export.onnx(model, inputs[:1], tmp_path / "x.onnx", inputs.split(1), dynamic=True)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.LayerNorm(8), nn.Conv1d(4, 4, 3)])
def test_dynamic_onnx_says_when_nothing_was_quantized(module, tmp_path):
    with pytest.raises(ValueError, match="Nothing in the model was quantized dynamically"):
        export.onnx(module.eval(), torch.rand(1, 4, 8), tmp_path / "x.onnx", dynamic=True)
    assert not list(tmp_path.iterdir())
