import copy
import re

import pytest
import torch
from torch import nn
from torch.ao.quantization import QuantWrapper, get_default_qat_qconfig, prepare_qat
from torch.utils.data import TensorDataset

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
