"""Train a classifier and measure its accuracy."""

import math
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qlearn.data.batches import as_labels, as_loader, batches_of
from qlearn.system.errors import explained, require_positive, require_whole

if TYPE_CHECKING:
    from pandas import DataFrame

# Without tqdm's batches per second: with them the longest numbers do not fit 80 columns.
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def fit(
    model: nn.Module,
    train_loader: DataLoader | Dataset,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    on_epoch: Callable[[nn.Module, int], None] | None = None,
) -> "DataFrame":
    """Train a classifier in place, with Adam and cross entropy, under one progress bar.

    Parameters
    ----------
    model
        A float model or one prepared for quantization-aware training; maps inputs to
        logits, N×classes, or N×classes×positions for a text. It is put in training mode, and left
        in evaluation mode.
    train_loader
        Batches of (inputs, labels), N or N×positions, or a data set, which is shuffled anew every
        epoch. They are moved to the model's device.
    epochs
        Passes over the data.
    learning_rate
        Adam's.
    on_epoch
        Called as ``on_epoch(model, epoch)`` before each epoch, counted from 1, with the model in
        training mode: the place to freeze observers or batch norm.

    Returns
    -------
    DataFrame
        One row an epoch: ``epoch`` from 1, mean ``loss``, ``accuracy`` in [0, 1] on the training
        batches as they were met, ``seconds``.

    Raises
    ------
    ValueError
        If ``epochs`` or ``learning_rate`` is not positive, the loader or the model has nothing to
        train, the inputs or the first outputs are no numbers, or the outputs are no logits.
    FloatingPointError
        If the loss becomes infinite or not a number.
    """
    from pandas import DataFrame
    from tqdm import tqdm

    train_loader = as_loader(train_loader, shuffle=True)
    _check(model, train_loader, epochs, learning_rate)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = []
    bar = tqdm(total=epochs * len(train_loader), file=sys.stdout, ncols=80, bar_format=BAR)
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            if on_epoch is not None:
                on_epoch(model, epoch)
            bar.set_description(f"epoch {epoch}/{epochs}")
            start = time.perf_counter()
            loss, accuracy = _epoch(model, train_loader, optimizer, bar)
            history.append((epoch, loss, accuracy, time.perf_counter() - start))
    finally:
        bar.close()
        model.eval()
    return DataFrame(history, columns=["epoch", "loss", "accuracy", "seconds"])


def _check(model: nn.Module, loader: DataLoader, epochs: int, learning_rate: float) -> None:
    require_whole("epochs", epochs)
    require_positive("learning_rate", learning_rate)
    try:
        length = len(loader)
    except TypeError as error:
        raise ValueError(
            "The training loader does not know its length, so it may be used up after one epoch: "
            "give a DataLoader of a set that has a length, or a list of batches."
        ) from error
    if length == 0:
        raise ValueError("The training loader holds no batches; give it a set with samples.")
    require_float32(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "The model has no parameters to train; a converted model has none, so train the float "
            "model or the one that prepare_qat returned."
        )
    with explained("the model cannot be trained"):
        model.train()


def _epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, bar
) -> tuple[float, float]:
    """Train for one pass; return the mean loss and the accuracy on the way."""
    total, correct, seen = 0.0, 0, 0
    for inputs, labels in batches_of(loader, model):
        labels = as_labels(labels, inputs)
        if not len(labels):
            raise ValueError("a batch of the training loader holds no samples: leave it out.")
        optimizer.zero_grad()
        with explained("the model fails"):
            logits = require_logits(model(inputs), labels)
        labels = labels.to(logits.device)
        loss = nn.functional.cross_entropy(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            _explain_loss(value, inputs, logits, optimizer)
        with explained("the model cannot be trained"):
            loss.backward()
        optimizer.step()
        total += value * labels.numel()
        correct += int((logits.argmax(1) == labels).sum())
        seen += labels.numel()  # a text has a label at every position
        bar.set_postfix_str(f"loss {total / seen:.3f}, accuracy {correct / seen:.3f}", False)
        bar.update()
    return total / seen, correct / seen


def _explain_loss(
    value: float, inputs: Tensor, logits: Tensor, optimizer: torch.optim.Optimizer
) -> NoReturn:
    """Say why a loss is not finite: the inputs, the weights at the start, or the training."""
    if not inputs.isfinite().all():
        raise ValueError(
            "the inputs of a batch are not finite: look for the samples that hold a NaN or an "
            "infinite value."
        )
    if not optimizer.state and not logits.isfinite().all():  # before the first step
        raise ValueError(
            "the model's outputs are not finite before it is trained: look for a weight that is "
            "not isfinite(), or build the model anew."
        )
    raise FloatingPointError(
        f"The loss became {value}; build the model anew and train it with a lower "
        f"learning_rate than {optimizer.param_groups[0]['lr']:g}."
    )


def evaluate(model: Callable[[Tensor], Tensor], loader: Iterable) -> float:
    """Return the share of samples whose largest logit is at the label.

    The model is left as it was: evaluation mode holds for the call only, no gradient is made, and
    fake quantization does not learn ranges from the test set. (A model that
    ``prepare`` returned for calibration does: its observers see whatever it runs on.)

    Parameters
    ----------
    model
        Any callable from inputs to N×classes logits: a module (float, prepared, quantized,
        scripted, exported) or a function around another runtime.
    loader
        Batches of (inputs, labels), or a data set. They are moved to the model's device.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    ValueError
        If the loader holds no samples, or the outputs are no logits.
    """
    with explained("the model fails"):
        return accuracy(*predict(model, loader))


def predict(model: Callable[[Tensor], Tensor], loader: Iterable) -> tuple[Tensor, Tensor]:
    """Return outputs and labels of all samples, as `evaluate` sees them."""

    def logits(inputs: Tensor, labels: Tensor) -> Tensor:
        return require_numbers(require_logits(model(inputs), labels))

    with _evaluation_mode(model), torch.no_grad():
        return collect(logits, loader, model)


def collect(
    run: Callable[[Tensor, Tensor], Tensor], loader: Iterable, model: object = None
) -> tuple[Tensor, Tensor]:
    """Return what ``run(inputs, labels)`` gives for each batch, and the labels of all samples."""
    pairs = []
    for inputs, given in batches_of(loader, model):
        labels = as_labels(given, inputs)
        pairs.append((run(inputs, labels).cpu(), labels.cpu()))
    if not sum(len(labels) for _, labels in pairs):
        raise ValueError("The test loader holds no samples; give it a set with samples.")
    outputs, labels = zip(*pairs, strict=True)
    return torch.cat(outputs), torch.cat(labels)


def require_logits(outputs: object, labels: Tensor | None = None) -> Tensor:
    """Return a classifier's outputs, or raise a ValueError if they are no N×classes tensor."""
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else None
    dimensions = 3 if labels is not None and labels.dim() == 2 else 2  # of a text, at each position
    if shape is None or len(shape) != dimensions or shape[1] < 2:
        found = f"a tensor of shape {shape}" if shape is not None else f"a {type(outputs).__name__}"
        raise ValueError(
            f"the model returns {found}, not one tensor of N×classes logits, of two classes or "
            "more: wrap it in a module that does (cat([-x, x], 1) makes two of a single logit x)."
        )
    if outputs.is_quantized:
        raise ValueError(
            "the model returns a quantized tensor, and logits are floats: end it with a "
            "DeQuantStub, or dequantize its output."
        )
    wrong = [] if labels is None else labels[(labels < 0) | (labels >= shape[1])].tolist()
    if wrong:
        raise ValueError(
            f"there is a label {wrong[0]}, and the model has {shape[1]} outputs: number the "
            "classes from 0, and give the model an output for each."
        )
    return outputs


def require_numbers(outputs: Tensor) -> Tensor:
    """Return outputs, or raise a ValueError if one of them is not a number."""
    if outputs.is_meta:
        raise ValueError(
            "the model's outputs are on the meta device, which holds no numbers: give the model "
            "its weights, and inputs on the CPU."
        )
    if outputs.isnan().any():
        raise ValueError(
            "the model's outputs are not a number (NaN): look for the first layer whose output "
            "isnan(), or for a weight or an input that is."
        )
    return outputs


def require_float32(model: nn.Module) -> None:
    """Raise a ValueError when a model's parameters are floats of another precision."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if kinds:
        raise ValueError(
            f"the model's weights are {', '.join(map(str, kinds))}: call float() on it first, "
            "since only float32 models are trained and quantized here."
        )


def accuracy(logits: Tensor, classes: Tensor) -> float:
    """Return the share of rows whose largest logit is at the class, a label or a prediction."""
    return (logits.argmax(1) == classes).double().mean().item()


@contextmanager
def _evaluation_mode(model: Callable[[Tensor], Tensor]):
    """Switch training mode and the learning of ranges off for a while, module by module."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    # The flags are set one by one because eval() raises on an exported model.
    training = [module for module in modules if getattr(module, "training", False)]
    observing = [module.observer_enabled for module in modules if _is_fake_quantize(module)]
    enabled = [switch.clone() for switch in observing]
    try:
        for module in training:
            module.training = False
        for switch in observing:
            switch.zero_()
        yield
    finally:
        for module in training:
            module.training = True
        for switch, was in zip(observing, enabled, strict=True):
            switch.copy_(was)


def _is_fake_quantize(module: nn.Module) -> bool:
    return isinstance(getattr(module, "observer_enabled", None), Tensor)
