"""Sizes are exact, comparisons paired, and a model that cannot run is named."""

import copy
import functools
import io
import timeit

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.benchmark import Timer

import qlearn
from qlearn import benchmarking


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return qlearn.models.MLP().eval()


class Clock:
    """Time that passes while a model works, and only then: however busy this machine is."""

    now = 0.0

    def __call__(self):
        return self.now

    def works(self, seconds):
        def model(x):
            self.now += seconds

        return model


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(benchmarking, "Timer", functools.partial(Timer, timer=made))
    for name in ("timeit", "repeat"):
        function = functools.partial(getattr(timeit, name), timer=made)
        monkeypatch.setattr(benchmarking.timeit, name, function)
    return made


def dynamic(model):
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})


def test_the_mlp_of_the_tutorials_is_not_082_mb(mlp):
    parameters = 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    # Four bytes a parameter, and a few kB of the file format.
    assert 0 < qlearn.model_size(mlp) - parameters * 4 / 1e6 < 0.01


def test_size_counts_packed_weights_that_parameters_does_not(mlp):
    quantized = dynamic(mlp)
    assert sum(p.numel() for p in quantized.parameters()) == 0
    assert 0.24 < qlearn.model_size(quantized) / qlearn.model_size(mlp) < 0.28


def test_size_of_a_scripted_model_is_that_of_its_file(mlp, tmp_path):
    scripted = torch.jit.script(dynamic(mlp))
    scripted.save(tmp_path / "model.pt")
    size = (tmp_path / "model.pt").stat().st_size / 1e6
    assert qlearn.model_size(scripted) == pytest.approx(size, rel=0.01)


def test_size_of_a_static_model(mlp):
    wrapped = torch.ao.quantization.QuantWrapper(mlp).eval()
    wrapped.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = torch.ao.quantization.prepare(wrapped)
    prepared(torch.rand(8, 1, 28, 28))
    converted = torch.ao.quantization.convert(prepared)
    assert 0.24 < qlearn.model_size(converted) / qlearn.model_size(mlp) < 0.28


def test_size_of_a_torchao_model(mlp):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantized = copy.deepcopy(mlp)
    quantize_(quantized, Int8WeightOnlyConfig())
    buffer = io.BytesIO()
    torch.save(quantized.state_dict(), buffer)
    assert qlearn.model_size(quantized) == pytest.approx(len(buffer.getvalue()) / 1e6)
    assert 0.24 < qlearn.model_size(quantized) / qlearn.model_size(mlp) < 0.30


def test_latency_measures_the_thread_count_that_was_asked_for(mlp):
    measured = qlearn.latency(mlp, torch.rand(1, 1, 28, 28), threads=1, min_run_time=0.05)
    assert measured.task_spec.num_threads == 1
    assert measured.median > 0


def test_latency_is_the_time_of_one_call(clock):
    measured = qlearn.latency(clock.works(0.002), torch.rand(1), min_run_time=0.1)
    assert measured.median == pytest.approx(0.002)


def test_compare_against_itself_finds_no_difference(mlp):
    _, test = qlearn.loaders(qlearn.data.digits())
    table = qlearn.compare(
        {"fp32": mlp, "same": copy.deepcopy(mlp)}, torch.rand(16, 1, 28, 28), test, seconds=0.2
    )
    assert list(table.index) == ["fp32", "same"]
    same = table.loc["same"]
    assert same.size_ratio == 1 and same.agreement == 1
    assert same.accuracy_change == 0 and same.standard_error == 0
    assert table.loc["fp32", ["speedup", "speedup_low", "speedup_high"]].tolist() == [1, 1, 1]


def test_compare_finds_the_ratio_of_two_known_times(clock):
    models = {"slow": clock.works(0.012), "fast": clock.works(0.003)}
    table = qlearn.compare(models, torch.rand(1), seconds=0.3)
    ratios = table.loc["fast", ["speedup", "speedup_low", "speedup_high"]].tolist()
    assert ratios == pytest.approx([4, 4, 4])
    assert table["latency_ms"].tolist() == pytest.approx([12, 3])


def test_compare_pairs_the_samples(mlp):
    class Opposite(nn.Module):
        def forward(self, x):
            return -mlp(x)

    _, test = qlearn.loaders(qlearn.data.digits())
    table = qlearn.compare(
        {"a": mlp, "b": Opposite().eval()}, torch.rand(1, 1, 28, 28), test, seconds=0.1
    )
    a, b = table.loc["a"], table.loc["b"]
    assert b.agreement == 0
    assert b.accuracy_change == pytest.approx(b.accuracy - a.accuracy)
    assert 0 < b.standard_error < 0.05
    assert qlearn.evaluate(mlp, test) == pytest.approx(a.accuracy)


def test_compare_counts_every_position_of_a_text():
    truth = torch.arange(6).reshape(2, 3) % 2
    logits = torch.nn.functional.one_hot(truth, 2).float().transpose(1, 2)
    wrong = logits.clone()
    wrong[0, :, 0] = logits[0, :, 0].flip(0)
    models = {"right": lambda x: logits, "one wrong": lambda x: wrong}
    table = benchmarking.compare(models, truth, [(truth, truth)], seconds=0.01)
    assert table["accuracy"].tolist() == [1, pytest.approx(5 / 6)]
    assert table.loc["one wrong", "agreement"] == pytest.approx(5 / 6)


def test_compare_takes_functions_and_says_that_their_size_is_unknown(mlp):
    table = qlearn.compare({"f": lambda x: mlp(x)}, torch.rand(1, 1, 28, 28), seconds=0.1)
    assert np.isnan(table.loc["f", "size_mb"])


def test_compare_names_the_model_that_cannot_run(mlp):
    q = torch.ao.nn.quantized.Linear(784, 10)  # no stub before it
    message = r"'static' fails when it runs: a quantized layer .*quantized::linear"
    with pytest.raises(ValueError, match=message):
        qlearn.compare(
            {"fp32": mlp, "static": nn.Sequential(nn.Flatten(), q).eval()}, torch.rand(1, 1, 28, 28)
        )


class Caches(nn.Module):
    """Makes in its first call what it keeps: a tensor, and a lazy layer's weights."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.LazyLinear(3), None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.ones(x.shape[1])
        return self.layer(x * self.scale)


def test_a_model_can_be_trained_after_its_first_call_was_timed():
    model = Caches().eval()
    benchmarking.latency(model, torch.rand(4, 8), min_run_time=0.001)
    qlearn.fit(model, [(torch.rand(4, 8), torch.arange(4) % 3)], epochs=1)


def test_compare_refuses_training_mode_and_nothing(mlp):
    with pytest.raises(ValueError, match="'m' is in training mode"):
        qlearn.compare({"m": mlp.train()}, torch.rand(1, 1, 28, 28))
    with pytest.raises(ValueError, match="models to compare by name"):
        qlearn.compare({}, torch.rand(1, 784))


def test_compare_takes_an_exported_graph_which_refuses_eval(mlp):
    x = torch.rand(2, 1, 28, 28)
    graph = torch.export.export(mlp, (x,)).module()
    compiled = torch.compile(graph, backend="eager")
    assert list(qlearn.compare({"graph": graph, "compiled": compiled}, x, seconds=0.01).index)
    with pytest.raises(ValueError, match="'m' is in training mode"):
        qlearn.compare({"m": torch.compile(mlp.train(), backend="eager")}, x)


def test_rounds_are_interleaved():
    calls = []
    runs = {name: functools.partial(calls.append, name) for name in "ab"}
    times = benchmarking.interleaved_times(runs, seconds=1e-9)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("ab", 20)
    rounds = list(zip(*2 * [iter(calls[-2 * benchmarking.ROUNDS :])], strict=True))
    assert all(sorted(round_) == ["a", "b"] for round_ in rounds)
    assert {round_[0] for round_ in rounds} == {"a", "b"}, "the order within a round changes"


def test_what_is_slow_is_timed_once_a_round_and_nothing_is_called_besides(clock):
    called = []
    slow = clock.works(0.5)
    qlearn.compare({"slow": lambda x: called.append(slow(x))}, torch.rand(1), seconds=1)
    assert len(called) == 1 + 2 + 3 + benchmarking.ROUNDS  # seen to run, warmed up, estimated


def test_the_bootstrap_interval_covers_the_median_as_often_as_it_says():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = benchmarking.bootstrap_interval(random.normal(2, 0.1, benchmarking.ROUNDS))
        inside += low <= 2 <= high
    assert 0.90 <= inside / 200 <= 1.0
