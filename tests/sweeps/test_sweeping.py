"""`qlearn.sweep`: rows or reasons, never a crash; and each row measured once."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pandas as pd
import psutil
import pytest
import quick_rows
import torch
from torch import nn

from qlearn import data, schemes
from qlearn.sweeps import row_process, rows, sweeping

NUMBERS = ["size_mb", "latency_ms", "speedup", "accuracy", "standard_error", "make_s", "float_ms"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr(row_process, "ROW_TIMEOUT", 900)
    monkeypatch.setattr(row_process, "make_row", quick_rows.make_row)
    return tmp_path


def images(channels=1, size=8, samples=24):
    """Noise in two classes: nothing to learn, but all that a scheme asks of data."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(samples, channels, size, size, generator=generator)
    part = data.Samples(inputs, torch.arange(samples) % 2)
    return data.DataSet(part, part, ("a", "b"))


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2)).eval()


def dies(model, train):
    os._exit(7)


def refuses(model, train):
    raise RuntimeError("not on a Tuesday\nand more lines")


def breaks(model, train):
    return nn.Linear(3, 2).eval()


BAD = {"dies": dies, "refuses": refuses, "breaks": breaks}


def hangs(model, train):
    import time

    time.sleep(60)


def test_each_row_has_numbers_or_a_reason(cache, capsys):
    mine = {"fp32": schemes.ALL["fp32"], "dynamic": schemes.ALL["int8_dynamic"]}
    table = sweeping.sweep(perceptron(), {**mine, **BAD}, images())
    assert "5/5" in capsys.readouterr().out, "there is a progress bar"
    assert list(table.index) == ["fp32", "dynamic", *BAD]
    assert list(table.columns) == sweeping.COLUMNS
    good, bad = table.loc[["fp32", "dynamic"]], table.loc[list(BAD)]
    assert good[NUMBERS].notna().all(axis=None) and (good["reason"] == "").all()
    assert bad[NUMBERS].isna().all(axis=None)
    assert "code 7" in bad.loc["dies", "reason"]
    assert bad.loc["refuses", "reason"] == "RuntimeError: not on a Tuesday"
    assert "fails when it runs" in bad.loc["breaks", "reason"]
    assert good.loc["dynamic", "size_mb"] < good.loc["fp32", "size_mb"]


def test_a_scheme_that_hangs_is_ended(cache, monkeypatch):
    monkeypatch.setattr(row_process, "ROW_TIMEOUT", 8)
    table = sweeping.sweep(perceptron(), {"hangs": hangs}, images())
    assert "no result within 8 s" in table.loc["hangs", "reason"]


def test_a_row_is_measured_once_and_again_when_anything_changed(cache, monkeypatch):
    calls = []

    def measured(task, scheme):
        calls.append(scheme)
        return {"accuracy": float(len(calls)), "reason": ""}, True

    monkeypatch.setattr(sweeping, "run_row", measured)
    model, samples = perceptron(), images()

    def ask(model=model, samples=samples, names=("fp32",), **options):
        return sweeping.sweep(model, names, samples, **options)["accuracy"].iloc[0]

    assert ask() == ask() == 1
    assert ask(perceptron()) == 1, "the same weights are the same model"
    changed = perceptron()
    with torch.no_grad():
        changed[1].bias[0] += 1
    assert ask(changed) == 2
    assert ask(samples=images(samples=26)) == 3
    assert ask(batch=2) == 4
    assert ask(names=["int8_dynamic"]) == 5
    assert ask(names={"any name": schemes.ALL["fp32"]}) == 1, "a row is known by what was done"
    assert ask() == 1
    assert ask(force=True) == ask() == 6, "asked for, it is measured again, and kept"


def test_the_options_of_a_scheme_are_part_of_its_row():
    paths = {rows.path_of("content", scheme) for scheme in schemes.ALL.values()}
    assert len(paths) == len(schemes.ALL)


def test_what_a_scheme_refers_to_is_part_of_its_row():
    def closes_over(bits):
        return lambda model, train: model if bits else train

    def has_default(value):
        return lambda model, train, bits=value: model if bits else train

    def calls(helper):
        return lambda model, train: helper(model)

    schemes_ = [closes_over(2), closes_over(4), has_default(2), has_default(4)]
    schemes_ += [calls(abs), calls(perceptron), calls(torch.Tensor([1])), calls(torch.Tensor([2]))]
    paths = [rows.path_of("content", scheme) for scheme in schemes_]
    assert len(set(paths)) == len(paths)
    assert rows.path_of("content", closes_over(4)) == paths[1]
    assert rows.path_of("content", calls(index for index in "ab")) is None, "it has no bytes"


def test_what_a_model_computes_is_part_of_its_rows():
    class Scaled(nn.Linear):
        alpha = 1.0

        def forward(self, x):
            return self.alpha * super().forward(x.flatten(1)) + self.offset

    def model(alpha=1.0, offset=0.0):
        torch.manual_seed(0)
        made = Scaled(64, 2)
        made.alpha = alpha
        made.register_buffer("offset", torch.tensor(offset), persistent=False)
        return made

    samples = images()
    made = [model(), model(alpha=2.0), model(offset=1.0)]
    digests = [rows.digest_of(one, samples, 1) for one in made]
    assert len(set(digests)) == 3 and None not in digests
    assert rows.digest_of(model(), samples, 1) == digests[0]
    sparse = model()
    sparse.register_buffer("mask", torch.eye(3).to_sparse())
    assert rows.digest_of(sparse, samples, 1) is None, "not kept, and no crash"


def test_what_only_this_moment_refuses_is_not_kept(cache):
    def hungry(model, train):
        raise MemoryError("not now")

    table = sweeping.sweep(perceptron(), {"hungry": hungry}, images())
    assert table["reason"].item() == "MemoryError: not now"
    assert not (cache / "sweeps").exists()


@pytest.mark.long
def test_rows_without_fork(cache, monkeypatch):
    """As on macOS and Windows: each process imports everything anew, so there are few of them."""
    monkeypatch.setattr(row_process, "CONTEXT", multiprocessing.get_context("spawn"))
    table = sweeping.sweep(
        perceptron(), {"dies": dies, "int8_dynamic": schemes.ALL["int8_dynamic"]}, images()
    )
    assert table.loc["int8_dynamic", NUMBERS].notna().all(), table["reason"]
    assert "code 7" in table.loc["dies", "reason"]


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    """Its own modules are found all the same, and what it defines is sent by value."""
    (tmp_path / "mine.py").write_text("def scheme(model, train):\n    return model\n")
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        print("begins")
        import sys
        import torch, qlearn, mine
        part = qlearn.data.Samples(torch.rand(8, 4), torch.arange(8) % 2)
        samples = qlearn.data.DataSet(part, part, ("a", "b"))
        def own(model, train):
            print("not shown")
            return mine.scheme(model, train)
        model = torch.nn.Linear(4, 2).eval()
        table = qlearn.sweep(model, {"own": own, "mine": mine.scheme}, samples)
        print(list(table["reason"]))
        """)
    )
    environment = {**os.environ, "QLEARN_HOME": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.count("begins") == 1 and "['', '']" in done.stdout, done
    assert "not shown" not in done.stdout + done.stderr


def test_what_a_row_started_ends_with_it(cache, tmp_path):
    def starts(model, train):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (tmp_path / "pid").write_text(str(child.pid))
        raise RuntimeError("leaves it behind")

    sweeping.sweep(perceptron(), {"starts": starts}, images())
    try:
        left = psutil.Process(int((tmp_path / "pid").read_text()))
        assert left.status() == psutil.STATUS_ZOMBIE or left.wait(5) is not None
    except psutil.NoSuchProcess:
        pass


def test_integer_inputs_are_a_reason_in_eager_mode(cache):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    part = data.Samples(torch.arange(24 * 3).reshape(24, 3) % 9, torch.arange(24) % 2)
    names = ["fp32", "int8_channel_eager"]
    table = sweeping.sweep(model, names, data.DataSet(part, part, ("a", "b")))
    assert table.loc["fp32", "accuracy"] >= 0
    assert "QuantStub behind the embedding" in table.loc["int8_channel_eager", "reason"]


def test_a_row_that_may_come_out_otherwise_is_not_kept(cache, monkeypatch):
    answers = iter([({"reason": "gave no result"}, False), ({"accuracy": 1.0, "reason": ""}, True)])
    monkeypatch.setattr(sweeping, "run_row", lambda *_: next(answers))
    first, second = (sweeping.sweep(perceptron(), ["fp32"], images()) for _ in range(2))
    assert first["reason"].item() and second["accuracy"].item() == 1


def test_a_row_of_a_busy_machine_is_kept_and_named(cache, monkeypatch):
    answers = iter([{"accuracy": 1.0, "busy": True}, {"accuracy": 1.0, "busy": False}])
    monkeypatch.setattr(sweeping, "run_row", lambda *_: ({"reason": "", **next(answers)}, True))
    first, kept = (sweeping.sweep(perceptron(), ["fp32"], images()) for _ in range(2))
    for table in (first, kept):
        assert "busy when fp32 was measured" in repr(table) and "force=True" in repr(table)
    assert list(kept.columns) == sweeping.COLUMNS
    again = sweeping.sweep(perceptron(), ["fp32"], images(), force=True)
    assert "Note" not in repr(again)


def test_a_damaged_row_is_measured_again(cache, monkeypatch, capsys):
    monkeypatch.setattr(sweeping, "run_row", lambda *_: ({"accuracy": 1.0, "reason": ""}, True))
    sweeping.sweep(perceptron(), ["fp32"], images())
    (file,) = (cache / "sweeps").iterdir()
    file.write_bytes(b"half a row")
    assert sweeping.sweep(perceptron(), ["fp32"], images())["accuracy"].item() == 1
    assert "damaged" in capsys.readouterr().out


def test_after_the_limit_no_row_is_begun_but_kept_ones_are_read(cache, monkeypatch):
    monkeypatch.setattr(sweeping, "run_row", lambda *_: ({"accuracy": 1.0, "reason": ""}, True))
    sweeping.sweep(perceptron(), ["bf16"], images())
    table = sweeping.sweep(perceptron(), ["fp32", "bf16"], images(), limit=0)
    assert pd.isna(table.loc["fp32", "accuracy"]) and table.loc["bf16", "accuracy"] == 1
    assert "not measured" in table.loc["fp32", "reason"]


@pytest.mark.parametrize(
    ("names", "batch", "message"),
    [(["int7"], 1, "no scheme 'int7'"), ([], 1, "empty"), (["fp32"], 0, "batch is 0")],
)
def test_a_wrong_request_is_refused(names, batch, message):
    with pytest.raises(ValueError, match=message):
        sweeping.sweep(perceptron(), names, images(), batch=batch)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        sweeping.sweep(perceptron().train(), ["fp32"], images())


def test_a_plain_torchvision_model_gives_rows_or_reasons(cache):
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=2).eval()
    names = ["fp32", "int8_dynamic", "int8_channel_eager", "int8_channel_fx"]
    table = sweeping.sweep(model, names, images(channels=3, size=32))
    assert table.loc[["fp32", "int8_channel_fx"], NUMBERS].notna().all(axis=None), table["reason"]
    assert "nothing to quantize" in table.loc["int8_dynamic", "reason"]
    assert (table["accuracy"].notna() ^ (table["reason"] != "")).all()


def test_a_class_of_a_notebook_with_unsupported_operators_gives_rows_or_reasons(cache):
    """The class lives in no module that another process could import."""
    code = """
class Peculiar(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 2)

    def forward(self, x):
        x = x.flatten(1)
        if x.sum() > 0:
            x = torch.fft.fft(x).abs()
        return torch.linalg.qr(self.linear(x).exp()).Q * torch.special.i0(self.linear(x))
"""
    space = {"torch": torch, "__name__": "__main__"}
    exec(code, space)
    names = ["fp32", "int8_dynamic", "int8_tensor_eager", "int8_tensor_fx", "int4_weights_torchao"]
    table = sweeping.sweep(space["Peculiar"]().eval(), names, images())
    assert table.loc[["fp32", "int8_dynamic"], "accuracy"].notna().all(), table["reason"]
    reason = table.loc["int8_tensor_eager", "reason"]
    assert "QuantizedCPU" in reason and reason.count("FloatFunctional") == 1
    assert "traced" in table.loc["int8_tensor_fx", "reason"]
    assert (table["accuracy"].notna() ^ (table["reason"] != "")).all()


def generating():
    model = perceptron()
    model.generator = (index for index in range(3))
    return model


def parametrized():
    model = perceptron()
    nn.utils.parametrizations.weight_norm(model[1])
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (generating, "cannot pickle"),
        (parametrized, "remove_parametrizations"),
        (lambda: torch.jit.script(perceptron()), "give the nn.Module that it was made from"),
    ],
)
def test_a_model_that_cannot_be_sent_is_refused_once(make, message):
    with pytest.raises(ValueError, match=f"cannot be sent to another process.*{message}"):
        sweeping.sweep(make(), ["fp32"], images())


X, Y = torch.rand(8, 1, 8, 8), torch.arange(8) % 2


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


PARTS = {
    "iterable": (Endless(), "is a Endless: give a Dataset with __len__"),
    "loader": (torch.utils.data.DataLoader(data.Samples(X, Y)), "is a DataLoader: give a Dataset"),
    "empty": (data.Samples(X[:0], Y[:0]), "holds no samples"),
    "words": ([(image, "cat") for image in X], "no numbers.*number the classes from 0"),
    "an unknown label": ([(image, 2) for image in X], "a label 2, and the model has 2 outputs"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_data_that_cannot_be_swept_is_refused_once(kind):
    part, message = PARTS[kind]
    with pytest.raises(ValueError, match=message):
        sweeping.sweep(perceptron(), ["fp32"], data.DataSet(part, part, ("a", "b")))


@pytest.mark.parametrize("kind", ["dicts", "arrays", "text"])
def test_what_evaluate_takes_is_swept(cache, kind):
    samples = {
        "dicts": [{"image": image, "label": int(label)} for image, label in zip(X, Y, strict=True)],
        "arrays": [(image.numpy(), label.numpy()) for image, label in zip(X, Y, strict=True)],
        "text": torch.utils.data.TensorDataset(*[torch.arange(32).view(8, 4) % 5] * 2),
    }[kind]
    text = nn.Sequential(nn.Embedding(5, 4), nn.Conv1d(4, 5, 1)).eval()  # 4 classes, 5 positions
    model = text if kind == "text" else perceptron()
    table = sweeping.sweep(model, ["fp32"], data.DataSet(samples, samples, ("a", "b")))
    assert table.loc["fp32", "reason"] == "" and list(cache.glob("sweeps/*.json"))
