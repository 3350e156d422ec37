"""Size, latency and accuracy of models, measured so that they can be compared."""

import io
import math
import timeit
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Measurement, Timer, set_torch_threads

from qlearn.calibration import require_eval
from qlearn.system.devices import device_of, name_device, place, require_values, synchronize
from qlearn.system.errors import explain, explained, require_positive, require_whole
from qlearn.system.machine_load import LoadMeter, NotedTable, note_on
from qlearn.training import collect, require_logits, require_numbers

ROUNDS = 20  # of compare(): each model is timed once a round, in a new order
RESAMPLES = 2000  # of the bootstrap
MEGABYTE = 10**6


def model_size(model: nn.Module) -> float:
    """Size of a model's saved state in MB (10**6 bytes).

    The state is written to memory as it would be to disk: this is right for float, dynamic,
    static and torchao models, whose packed weights ``parameters()`` does not count. A
    TorchScript model is saved whole, its code included. What is no module, or holds no numbers
    (on the meta device), is a ValueError.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"a {type(model).__name__} has no saved state: give an nn.Module.")
    require_values(model)
    buffer = io.BytesIO()
    if isinstance(model, torch.jit.ScriptModule):
        torch.jit.save(model, buffer)
    else:
        torch.save(model.state_dict(), buffer)
    return buffer.getbuffer().nbytes / MEGABYTE


def latency(
    model: Callable[..., Any],
    inputs: Tensor | tuple,
    threads: int | None = None,
    min_run_time: float = 0.5,
) -> Measurement:
    """Time a model's forward pass with ``torch.utils.benchmark``, after a warm-up.

    Parameters
    ----------
    model
        A module in eval mode, or any function of the inputs.
    inputs
        One tensor, or a tuple of arguments.
    threads
        Intra-op threads; PyTorch's current setting if not given.
    min_run_time
        Seconds to measure for, at least.

    Returns
    -------
    torch.utils.benchmark.Measurement
        ``median`` and ``iqr`` in seconds a call; it prints itself.

    Raises
    ------
    ValueError
        If the model is in training mode, or fails on the inputs; if there are none, or no time.
    """
    require_positive("min_run_time", min_run_time)
    run = _run("the model", model, inputs)
    timer = Timer("run()", globals={"run": run}, num_threads=_count(threads))
    timer.timeit(3)
    return timer.blocked_autorange(min_run_time=min_run_time)


def compare(
    models: Mapping[str, Callable[..., Any]],
    inputs: Tensor | tuple,
    test: Iterable | None = None,
    threads: int | None = None,
    seconds: float = 1.0,
) -> pd.DataFrame:
    """Measure models side by side; the first is what the others are compared with.

    Every model is run once before anything is timed. Then come ``ROUNDS`` rounds, in each of
    which each model is timed once, in random order: a machine that slows down slows all alike.

    Parameters
    ----------
    models
        Name → module in eval mode, or any function of the inputs (its size is then unknown).
    inputs
        What to time the models on: a tensor, or a tuple of arguments.
    test
        A loader of (inputs, labels) or a data set; without it there are no columns about accuracy.
    threads
        Intra-op threads; PyTorch's current setting if not given.
    seconds
        To spend on timing each model, about.

    Returns
    -------
    pandas.DataFrame
        One row a model: ``size_mb`` (10**6 bytes) and ``size_ratio`` (first / this);
        ``latency_ms``, the median over rounds, with its quartiles ``q1_ms`` and ``q3_ms``;
        ``speedup``, the median over rounds of the ratio first / this within a round, with a 95 %
        bootstrap interval ``speedup_low`` … ``speedup_high``. With ``test``: ``accuracy`` in
        [0, 1]; ``accuracy_change`` against the first, with its ``standard_error`` (of the mean
        of paired differences over test samples); ``agreement``, the share of samples on which
        both predict the same class. Under the table stands a note when the machine was too busy
        for the times to be right; ``attrs`` holds it as ``"note"``, beside ``"threads"``,
        ``"engine"``, the quantized engine that was set, and ``"devices"``, by model.

    Raises
    ------
    ValueError
        If there is no model, or one cannot run: the message names it and says why; if there are
        no inputs, or no time to measure.
    """
    if not models or not isinstance(models, Mapping):
        raise ValueError('Give the models to compare by name, as {"fp32": a, "int8": b}.')
    require_positive("seconds", seconds)
    threads = _count(threads)
    runs = {name: _run(name, model, inputs) for name, model in models.items()}
    meter = LoadMeter()
    with set_torch_threads(threads):
        times = interleaved_times(runs, seconds)
    note = note_on(meter.read(), threads, times)
    table = _speeds(models, times)
    if test is not None:
        table = table.join(_accuracies(models, test))
    table.attrs = {
        "note": note,
        "threads": threads,
        "engine": torch.backends.quantized.engine,
        "devices": {name: name_device(model) for name, model in models.items()},
    }
    return table


def _count(threads: int | None) -> int:
    """Return how many threads are meant; PyTorch's current setting by None."""
    if threads is None:
        return torch.get_num_threads()
    require_whole("threads", threads)
    return threads


def _speeds(
    models: Mapping[str, Callable[..., Any]], times: Mapping[str, np.ndarray]
) -> NotedTable:
    """Size and speed of each model, and their ratios to the first."""
    first, *_ = models
    rows = {}
    for name, model in models.items():
        low, high = bootstrap_interval(times[first] / times[name])
        q1, median, q3 = 1e3 * np.percentile(times[name], [25, 50, 75])
        rows[name] = {
            "size_mb": model_size(model) if isinstance(model, nn.Module) else math.nan,
            "latency_ms": median,
            "q1_ms": q1,
            "q3_ms": q3,
            "speedup": np.median(times[first] / times[name]),
            "speedup_low": low,
            "speedup_high": high,
        }
    table = NotedTable.from_dict(rows, orient="index").rename_axis("model")
    table.insert(1, "size_ratio", table["size_mb"].iloc[0] / table["size_mb"])
    return table


def interleaved_times(
    runs: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, np.ndarray]:
    """Time each function once a round for ``ROUNDS`` rounds, each round in a random order.

    About ``seconds`` are spent on each in all, but no call is cut short. Returned are, by name,
    ``ROUNDS`` times in seconds a call.
    """
    calls = {}
    for name, run in runs.items():
        timeit.timeit(run, number=2)  # TorchScript optimizes itself in its first calls
        once = min(timeit.repeat(run, number=1, repeat=3))
        calls[name] = max(1, round(seconds / ROUNDS / once))
    order = np.random.default_rng(0)
    times = {name: np.empty(ROUNDS) for name in runs}
    for round_ in range(ROUNDS):
        for name in order.permutation(list(runs)):
            # The call before has left another model in the caches. Filling them again is no part of
            # a call, unless the call is so long that a round has time for one only.
            if calls[name] > 1:
                runs[name]()
            times[name][round_] = timeit.timeit(runs[name], number=calls[name]) / calls[name]
    return times


def bootstrap_interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median (Efron and Tibshirani 1993, chapter 13).

    Parameters
    ----------
    ratios
        One value a round.
    """
    from scipy.stats import bootstrap

    if np.ptp(ratios) == 0:
        return float(ratios[0]), float(ratios[0])
    result = bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=0, vectorized=True
    )
    return tuple(map(float, result.confidence_interval))


def _run(name: str, model: Callable[..., Any], inputs: Tensor | tuple) -> Callable[[], Any]:
    """Return a function that runs a model, and has been seen to run."""
    if not callable(model) or isinstance(model, type):
        raise ValueError(f"{name!r} is {model!r}: give a model, or a function of the inputs.")
    if not isinstance(inputs, Tensor | tuple):
        raise ValueError(
            f"The inputs are a {type(inputs).__name__}: give a batch as one tensor, or a tuple of "
            "arguments."
        )
    if isinstance(inputs, Tensor) and inputs.numel() == 0:
        raise ValueError("The inputs hold no sample: give a batch of at least one.")
    require_values(model)
    device = device_of(model)
    arguments = [
        place(part, device) for part in (inputs if isinstance(inputs, tuple) else [inputs])
    ]
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        require_eval(getattr(model, "_orig_mod", model), repr(name))  # what torch.compile wraps

    # What a model makes in its first call, a cache or a lazy layer's weights, has to be trainable
    # afterwards, which a tensor of inference_mode() is not.
    @torch.no_grad()
    def run() -> Any:
        outputs = model(*arguments)
        synchronize(device)
        return outputs

    try:
        run()
    except Exception as error:
        raise ValueError(
            f"{name!r} fails when it runs: {explain(error)}. Call it once on these inputs and fix "
            "it before you compare."
        ) from error
    return run


def _accuracies(models: Mapping[str, Callable[..., Any]], test: Iterable) -> pd.DataFrame:
    """Accuracy of each model, and its change against the first with its standard error."""

    def predicted_classes(inputs: Tensor, labels: Tensor) -> Tensor:
        outputs = [model(place(inputs, device_of(model))) for model in models.values()]
        # Of a text each position has a class.
        logits = [require_numbers(require_logits(found, labels)) for found in outputs]
        return torch.stack([found.argmax(1).flatten().cpu() for found in logits], dim=1)

    # All models on one pass over the samples: a loader may shuffle them.
    with torch.no_grad(), explained("a model fails on the test samples"):
        columns, truth = collect(predicted_classes, test)
    classes, truth = dict(zip(models, columns.T, strict=True)), truth.flatten()
    base, *_ = classes.values()
    rows = {}
    for name, predicted in classes.items():
        difference = (predicted == truth).double() - (base == truth).double()
        rows[name] = {
            "accuracy": (predicted == truth).double().mean().item(),
            "accuracy_change": difference.mean().item(),
            "standard_error": difference.std().item() / math.sqrt(len(truth)),
            "agreement": (predicted == base).double().mean().item(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
