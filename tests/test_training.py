import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.ao.quantization import MinMaxObserver, QuantWrapper, get_default_qat_qconfig, prepare_qat
from torch.utils.data import TensorDataset

import qlearn
from qlearn import data, models
from qlearn.training import accuracy, evaluate, fit, predict


@pytest.fixture
def loaders():
    return data.loaders(data.digits())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.MLP()


def equal_states(one: nn.Module, state: dict) -> bool:
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_fit_learns_and_tells_its_history(model, loaders, capsys):
    train, test = loaders
    before = evaluate(model, test)
    history = fit(model, train, epochs=3)
    assert list(history.columns) == ["epoch", "loss", "accuracy", "seconds"]
    assert history.epoch.tolist() == [1, 2, 3]
    assert history.loss.is_monotonic_decreasing and history.accuracy.is_monotonic_increasing
    assert (history.seconds > 0).all()
    assert before < 0.3 and evaluate(model, test) > 0.85
    assert not model.training
    printed = capsys.readouterr()
    assert "epoch 3/3: 100%" in printed.out and "accuracy" in printed.out and not printed.err
    assert printed.out.count("\n") == 1, "one bar for the whole run"
    assert max(len(line) for line in printed.out.replace("\n", "\r").split("\r")) <= 80


def test_the_longest_numbers_fit_a_line_of_80_columns(capsys):
    """1,320 batches, 11 epochs, a loss of hundreds: each part is whole."""
    torch.manual_seed(0)
    samples = TensorDataset(torch.randn(120, 4) * 1e3, torch.arange(120) % 2)
    fit(nn.Linear(4, 2), torch.utils.data.DataLoader(samples), epochs=11, learning_rate=1e-9)
    last = capsys.readouterr().out.strip().split("\r")[-1]
    parts = r"epoch 11/11: 100%\|.+\| 1320/1320 \[\d\d:\d\d<00:00, "
    parts += r"loss \d{3}\.\d{3}, accuracy 0\.\d{3}]"
    assert re.fullmatch(parts, last) and len(last) <= 80, last


def test_a_text_has_a_label_at_every_position():
    torch.manual_seed(0)
    ids = torch.randint(5, (40, 7))
    model = nn.Sequential(nn.Embedding(5, 5), Transposed())
    samples = torch.utils.data.DataLoader(TensorDataset(ids, (ids + 1) % 5), 8)
    history = fit(model, samples, epochs=30, learning_rate=0.1)
    assert evaluate(model, samples) == 1 and history.accuracy.iloc[-1] == 1
    difference = nn.functional.cross_entropy(model(ids), (ids + 1) % 5).item()
    assert history.loss.iloc[-1] == pytest.approx(difference, rel=0.2)


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_fit_repeats_itself_given_the_seeds():
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        model = models.MLP()
        fit(model, data.loaders(data.digits(), seed=3)[0], epochs=1)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_on_epoch_comes_before_each_epoch_in_training_mode(model, loaders):
    calls = []

    def freeze_in_the_second(model, epoch):
        calls.append((epoch, model.training))
        if epoch == 2:
            model.fc1.requires_grad_(False)
            calls.append(model.fc1.weight.clone())

    fit(model, loaders[0], epochs=2, on_epoch=freeze_in_the_second)
    assert calls[0] == (1, True) and calls[1] == (2, True)
    # Adam skips a parameter without a gradient, so what is frozen stays as it was.
    assert torch.equal(calls[2], model.fc1.weight)


def test_fit_explains_what_cannot_be_trained(model, loaders):
    train, _ = loaders
    with pytest.raises(ValueError, match="epochs is 0"):
        fit(model, train, epochs=0)
    digits = data.digits()
    nothing = data.Samples(digits.train.inputs[:0], digits.train.labels[:0])
    with pytest.raises(ValueError, match="holds no batches"):
        fit(model, torch.utils.data.DataLoader(nothing), epochs=1)
    with pytest.raises(ValueError, match="no parameters to train"):
        fit(model.requires_grad_(False), train, epochs=1)


def test_fit_stops_at_a_loss_that_is_not_a_number(model, loaders):
    with pytest.raises(FloatingPointError, match="lower learning_rate than 1e\\+30"):
        fit(model, loaders[0], epochs=2, learning_rate=1e30)
    assert not model.training


ROWS = torch.rand(16, 8)


def overwrites(y):
    y = y.exp()
    y += 1
    return y


def spoilt(value):
    model = nn.Linear(8, 5)
    nn.init.constant_(model.bias, value)
    return model


UNTRAINABLE = {
    "no gradient": (lambda: Returns(make=torch.Tensor.detach), ROWS, "leave torch.no_grad"),
    "in place": (lambda: Returns(make=overwrites), ROWS, "in place.*gives a new tensor"),
    "an empty batch": (lambda: nn.Linear(8, 5), ROWS[:0], "holds no samples: leave it out"),
    "NaN inputs": (lambda: nn.Linear(8, 5), ROWS * math.nan, "inputs of a batch are not finite"),
    "NaN weights": (lambda: spoilt(math.nan), ROWS, "not finite before it is trained"),
    "infinite weights": (lambda: spoilt(math.inf), ROWS, "not finite before it is trained"),
    "one sample": (
        lambda: nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5)), ROWS[:1], "drop_last=True"
    ),
    "exported": (
        lambda: torch.export.export(Returns(), (ROWS,)).module(), ROWS, "no training mode"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNTRAINABLE)
def test_fit_says_what_keeps_a_model_from_being_trained(kind):
    make, inputs, message = UNTRAINABLE[kind]
    with pytest.raises(ValueError, match=message):
        fit(make(), [(inputs, torch.arange(len(inputs)) % 5)], epochs=1)


def test_a_model_without_numbers_is_refused_by_all_that_measures():
    with torch.device("meta"):
        model = nn.Linear(8, 5).eval()
    batches = [(ROWS, torch.arange(16) % 5)]
    for function in (
        lambda: fit(model, batches, epochs=1),
        lambda: evaluate(model, batches),
        lambda: qlearn.compare({"a": model}, ROWS),
        lambda: qlearn.latency(model, ROWS),
        lambda: qlearn.model_size(model),
    ):
        with pytest.raises(ValueError, match="meta device and hold no numbers: build it on the"):
            function()


def test_evaluate_counts_the_largest_logit_at_the_label():
    logits = torch.eye(4).repeat(5, 1)
    labels = torch.arange(4).repeat(5)
    labels[:5] = (labels[:5] + 1) % 4
    loader = torch.utils.data.DataLoader(TensorDataset(logits, labels), batch_size=3)
    assert evaluate(nn.Identity(), loader) == pytest.approx(15 / 20)
    assert evaluate(lambda x: x, loader) == pytest.approx(15 / 20), "any callable will do"
    with pytest.raises(ValueError, match="holds no samples"):
        evaluate(nn.Identity(), [])


def test_predict_gives_outputs_and_labels_in_the_loaders_order(model, loaders):
    _, test = loaders
    logits, labels = predict(model, test)
    images, wanted = next(iter(test))
    assert torch.equal(labels[: len(wanted)], wanted) and len(labels) == len(test.dataset)
    torch.testing.assert_close(logits[: len(images)], model(images).detach())
    assert not logits.requires_grad
    assert accuracy(logits, labels) == evaluate(model, test)
    assert accuracy(logits, logits.argmax(1)) == 1
    with pytest.raises(ValueError, match="holds no samples"):
        predict(model, [(torch.empty(0, 1, 28, 28), torch.empty(0, dtype=torch.int64))])


def test_evaluate_leaves_modes_weights_and_statistics_alone(loaders):
    model = models.SmallCNN().train()
    model.bn1.eval()
    before = copy.deepcopy(model.state_dict())
    seen = []
    model.bn2.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(model, loaders[1])
    assert not any(seen), "it measures in evaluation mode"
    assert model.training and model.bn2.training and not model.bn1.training
    assert equal_states(model, before)


def test_evaluate_restores_the_mode_after_an_error(model, loaders):
    model.train()
    model.fc3.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluate(model, loaders[1])
    assert model.training and model.fc1.training


def test_fake_quantization_learns_no_range_from_the_test_set(model, loaders):
    prepared = QuantWrapper(model.train())
    prepared.qconfig = get_default_qat_qconfig(torch.backends.quantized.engine)
    prepared = prepare_qat(prepared)
    fit(prepared, loaders[0], epochs=1)
    before = copy.deepcopy(prepared.state_dict())
    assert evaluate(prepared, loaders[1]) > 0.6
    assert equal_states(prepared, before)


def test_evaluate_takes_scripted_and_exported_models(model, loaders):
    _, test = loaders
    fit(model, loaders[0], epochs=1)
    expected = evaluate(model, test)
    example = (data.digits().test.inputs[:4],)
    batch = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    forms = {
        "scripted": torch.jit.script(copy.deepcopy(model).train()),
        "frozen": torch.jit.freeze(torch.jit.script(model)),
        "exported": torch.export.export(model, example, dynamic_shapes=batch).module(),
    }
    for form, other in forms.items():
        assert evaluate(other, test) == pytest.approx(expected, abs=0.003), form
    assert forms["scripted"].training


class Returns(nn.Module):
    def __init__(self, outputs=5, make=lambda y: y):
        super().__init__()
        self.fc, self.make = nn.Linear(8, outputs), make

    def forward(self, x):
        return self.make(self.fc(x))


NO_LOGITS = {
    "dict": Returns(make=lambda y: {"logits": y}),
    "tuple": Returns(make=lambda y: (y, y)),
    "one logit": Returns(1),
    "no second dimension": Returns(1, lambda y: y[:, 0]),
    "map": Returns(make=lambda y: y[..., None, None].expand(-1, -1, 4, 4)),
    "sequence": Returns(make=lambda y: y[:, None].expand(-1, 6, -1)),
}


@pytest.mark.parametrize("kind", NO_LOGITS)
def test_outputs_that_are_no_logits_are_refused_by_all(kind, tmp_path, monkeypatch):
    """One check stands before all that measures a classifier."""
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = NO_LOGITS[kind].eval(), torch.rand(8, 8), torch.arange(8) % 5
    batches, samples = [(inputs, labels)], data.common.Samples(inputs, labels)
    for function in (
        lambda: fit(model, batches, epochs=1),
        lambda: evaluate(model, batches),
        lambda: qlearn.compare({"a": model}, inputs, batches, seconds=0.001),
        lambda: qlearn.sensitivity(model, batches, batches),
        lambda: qlearn.sweep(model, ["fp32"], data.DataSet(samples, samples, tuple("abcde"))),
        lambda: qlearn.submit("a", model, inputs),
    ):
        with pytest.raises(ValueError, match="returns a .*, not one tensor of N×classes logits"):
            function()


def test_labels_that_no_output_has_are_refused():
    batches = [(torch.rand(5, 8), torch.arange(1, 6))]
    for function in (lambda m: fit(m, batches, epochs=1), lambda m: evaluate(m, batches)):
        with pytest.raises(ValueError, match="a label 5, and the model has 5 outputs"):
            function(Returns())


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_models_that_are_not_float32_are_told_to_be_so(dtype):
    model, labels = Returns().to(dtype), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"weights are torch\.\w+: call float\(\)"):
        fit(model, [(torch.rand(4, 8, dtype=dtype), labels)], epochs=1)
    with pytest.raises(ValueError, match=r"different types: call float\(\)"):
        evaluate(model, [(torch.rand(4, 8), labels)])
    for function in (qlearn.schemes.static_fx, lambda m, d: qlearn.sensitivity(m.eval(), d, d)):
        with pytest.raises(ValueError, match=r"weights are torch\.\w+: call float\(\)"):
            function(model.eval(), [(torch.rand(4, 8), labels)])


class Elsewhere(nn.Module):
    """A stand-in for a model on a GPU: it takes inputs on its device only."""

    def __init__(self):
        super().__init__()
        self.there = nn.Parameter(torch.empty(1, device="meta"))
        self.bias = nn.Parameter(torch.zeros(3))
        self.devices = []

    def forward(self, x):
        self.devices.append(x.device.type)
        return self.bias.expand(len(x), 3)


def test_batches_are_moved_to_the_models_device():
    samples = data.Samples(torch.rand(70, 4), torch.arange(70) % 3)
    model = Elsewhere().eval()
    assert evaluate(model, samples) == pytest.approx(24 / 70)
    fit(model, samples, epochs=1)
    table = qlearn.compare({"a": model}, samples.inputs[:2], test=samples, seconds=0.001)
    model.observer = MinMaxObserver()
    assert qlearn.calibrate(model.eval(), samples) == 70
    assert set(model.devices) == {"meta"}
    assert table.attrs["devices"] == {"a": "meta"} and table.accuracy["a"] > 0.3


def test_what_runs_on_an_accelerator_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    model = Elsewhere().eval()
    qlearn.compare({"a": model, "cpu": nn.Linear(4, 3).eval()}, torch.rand(2, 4), seconds=0.001)
    assert len(waited) == len(model.devices) > 20


X, Y = torch.rand(130, 1, 28, 28), torch.arange(130) % 10
LOADER = torch.utils.data.DataLoader(TensorDataset(X, Y), 32)


class Dicts(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"pixel_values": X[index], "labels": int(Y[index])}


@pytest.mark.parametrize(
    "samples",
    [
        TensorDataset(X, Y),
        data.Samples(X, Y),
        (X, Y),
        (X.numpy(), Y.numpy()),
        [(X, Y.to(torch.int32))],
        [(X, Y.double())],
        [(X, Y[:, None])],
        [(X, Y.tolist())],
        [(X.numpy()[..., ::-1][..., ::-1], Y.numpy().astype("uint8"))],
        [{"image": X, "label": Y}],
        Dicts(),
        ((x, y) for x, y in LOADER),
    ],
)
def test_whatever_holds_samples_gives_the_same_accuracy(model, samples):
    assert evaluate(model, samples) == evaluate(model, LOADER)


def test_inputs_that_are_not_whole_in_memory_are_right(model):
    flat = nn.Module()
    flat.forward = lambda x: model(x.view(-1, 1, 28, 28))
    turned = X.transpose(2, 3).contiguous().transpose(2, 3)
    assert evaluate(flat, [(turned, Y)]) == evaluate(model, LOADER)
    table = qlearn.compare({"flat": flat.eval()}, turned, test=TensorDataset(X, Y), seconds=0.001)
    assert table.accuracy["flat"] == evaluate(model, LOADER)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (data.DataSet(TensorDataset(X, Y), TensorDataset(X, Y), ("a",)), "give .train or .test"),
        (data.Samples(X[:0], Y[:0]), "holds no (batches|samples)"),
        ([X], "hold no labels"),
        (X, "hold no labels"),
        (TensorDataset(X), "hold no labels"),
        ([(X, Y, Y)], "tuple of 3 parts: give batches of .inputs, labels."),
        ([(X, nn.functional.one_hot(Y))], "shape .130, 10..*argmax"),
        ([(X, Y[:5])], "130 inputs have shape .5,."),
        ([(X, Y + 0.5)], "no whole numbers"),
        ([(X, ["cat"] * 130)], "no numbers .*number the classes from 0"),
        ([(X[0], 3)], "single samples .*DataLoader"),
        ([{"input_ids": X, "attention_mask": X, "labels": Y}], "dict of input_ids, attention_mask"),
        ([((X, X), Y)], "a tuple: give one tensor"),
        ([("cat", 1)], "a str: give one tensor"),
        (7, "a int holds no batches"),
        ("photos", "a str holds no batches"),
        (torch.utils.data.StackDataset([X[0], X[0, :, :9]], [0, 1]), "all of one shape"),
        (torch.utils.data.StackDataset([object(), object()], [0, 1]), "make each input a tensor"),
    ],
)
def test_what_holds_no_labelled_batches_is_refused_in_a_sentence(model, samples, message):
    for function in (evaluate, lambda m, s: fit(m, s, epochs=1)):
        with pytest.raises(ValueError, match=message):
            function(model, samples)


def test_fit_shuffles_a_set_and_refuses_what_is_used_up(model):
    seen = []
    samples = data.Samples(X[:, :, :1, :1].flatten(1), Y)
    net = nn.Linear(1, 10)
    net.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][:, 0]))
    fit(net, samples, epochs=2)
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:])), "anew every epoch"
    with pytest.raises(ValueError, match="does not know its length"):
        fit(model, (batch for batch in LOADER), epochs=2)


@pytest.mark.parametrize("samples", [X, X.numpy(), TensorDataset(X, Y), TensorDataset(X), LOADER])
def test_calibrate_counts_samples_of_a_tensor_or_a_set(samples):
    prepared = nn.Sequential(MinMaxObserver(), nn.Identity()).eval()
    shapes = []
    prepared.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    assert qlearn.calibrate(prepared, samples) == 130
    assert all(shape[1:] == (1, 28, 28) for shape in shapes)
    assert qlearn.calibrate(prepared, samples, batches=1) in (32, 64)
