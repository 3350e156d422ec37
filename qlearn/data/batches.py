"""Whatever holds samples – a loader, a set, a tensor, dicts – as batches of inputs and labels."""

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from qlearn.data.common import DataSet
from qlearn.system.devices import device_of, place, require_values

SIZE = 64  # samples a batch, of what comes without batches
LABELS = ("label", "labels", "target", "targets", "y")  # keys of a batch that is a dict


def batches_of(
    samples: Iterable, model: object = None, limit: int | None = None
) -> Iterator[tuple[Tensor, object]]:
    """Go through whatever holds samples, a batch at a time, on the device of a model.

    Parameters
    ----------
    samples
        A loader, a list of batches, a data set, a tensor of inputs, or a pair of inputs and labels.
    model
        On its device the inputs are put; they stay where they are when it is no module.
    limit
        Batches to go through; all when None.

    Yields
    ------
    tuple
        Inputs, and whatever goes with them as labels, or None; `as_labels` makes class numbers.

    Raises
    ------
    ValueError
        If something is no batch of inputs, or the model holds no numbers.
    """
    require_values(model)
    device, batches = device_of(model), iter(as_loader(samples))
    for _ in itertools.count() if limit is None else range(limit):
        try:
            batch = next(batches, None)
        except (TypeError, RuntimeError) as error:
            if "default_collate" not in str(error) and "stack expects" not in str(error):
                raise
            raise ValueError(
                "the samples of the set do not form a batch: make each input a tensor, all of one "
                f"shape, with the set's transform ({str(error).splitlines()[0][:160]})."
            ) from error
        if batch is None:
            return
        inputs, labels = split_batch(batch)
        yield place(inputs, device), labels


def as_loader(samples: Iterable, shuffle: bool = False) -> Iterable:
    """Return something to take batches from; a set, a tensor or a pair of them is put in a loader.

    Raises
    ------
    ValueError
        If it has a train and a test part, or nothing to iterate over.
    """
    if isinstance(samples, DataSet):
        raise ValueError("This data set has a train and a test part: give .train or .test of it.")
    if isinstance(samples, tuple) and len(samples) == 2 and _is_pair(*samples):
        samples = TensorDataset(as_tensor(samples[0]), as_labels(samples[1], samples[0]))
    if isinstance(samples, Tensor | np.ndarray):
        samples = TensorDataset(as_tensor(samples))
    if isinstance(samples, Dataset):
        # An empty set has no batches; to shuffle it is an error of PyTorch's.
        shuffle = shuffle and not isinstance(samples, IterableDataset) and len(samples) > 0
        # From its own generator, so that the caller's random numbers stay as they are; and without
        # a last training batch of one sample, as in loaders().
        generator = torch.Generator().manual_seed(0)
        single = shuffle and len(samples) > SIZE and len(samples) % SIZE == 1
        return DataLoader(samples, SIZE, shuffle=shuffle, generator=generator, drop_last=single)
    passes = hasattr(samples, "__iter__") or hasattr(samples, "__getitem__")
    if not passes or isinstance(samples, str | Mapping | nn.Module):
        raise ValueError(
            f"a {type(samples).__name__} holds no batches: give a DataLoader, a Dataset or a list "
            "of (inputs, labels)."
        )
    return samples


def _is_pair(inputs: object, labels: object) -> bool:
    """Tell inputs and labels of a whole set from two batches of inputs."""
    arrays = all(isinstance(part, Tensor | np.ndarray) for part in (inputs, labels))
    return arrays and inputs.ndim > 1 and labels.ndim == 1 and len(inputs) == len(labels)


def split_batch(batch: object) -> tuple[Tensor, object]:
    """Return inputs and labels (or None) of a batch: a tensor, a pair or a dict.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(batch, Mapping):
        inputs = [key for key in batch if key not in LABELS]
        if len(inputs) != 1 or len(batch) > 2:
            raise ValueError(
                f"a batch is a dict of {', '.join(map(str, batch))}, and which are the inputs is "
                "not clear: give batches of (inputs, labels), and wrap a model of several inputs."
            )
        batch = [batch[inputs[0]], *(batch[key] for key in batch if key in LABELS)]
    if isinstance(batch, Tensor | np.ndarray):
        batch = [batch]
    if not isinstance(batch, list | tuple) or len(batch) not in (1, 2):
        parts = f" of {len(batch)} parts" if isinstance(batch, list | tuple) else ""
        raise ValueError(
            f"a batch is a {type(batch).__name__}{parts}: give batches of (inputs, labels)."
        )
    inputs = as_tensor(batch[0])
    if inputs.ndim == 0:
        raise ValueError("the inputs are single numbers: give batches of (inputs, labels).")
    return inputs, batch[1] if len(batch) == 2 else None


def as_tensor(values: object) -> Tensor:
    """Return a tensor or an array as a tensor, or raise a ValueError."""
    if isinstance(values, np.ndarray):
        # PyTorch takes no array that is read backwards.
        values = torch.as_tensor(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise ValueError(
            f"the inputs of a batch are a {type(values).__name__}: give one tensor, of samples."
        )
    return values


def as_labels(values: object, inputs: Tensor | np.ndarray) -> Tensor:
    """Return class numbers as int64, however they were stored: one an input, or one a character.

    Raises
    ------
    ValueError
        If there are none, or they are no class numbers.
    """
    if values is None:
        raise ValueError("the batches hold no labels: give batches of (inputs, labels).")
    count = len(inputs)
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the labels of a batch are no numbers ({str(values)[:60]}): number the classes from 0."
        ) from error
    if labels.ndim == 0:
        raise ValueError("there are single samples in place of batches: put them in a DataLoader.")
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,) and labels.shape != inputs.shape:
        raise ValueError(
            f"the labels of a batch of {count} inputs have shape {tuple(labels.shape)}: give one "
            "class number for each (argmax(1) makes it of one-hot labels)."
        )
    whole = labels.to(torch.int64)
    if (whole != labels).any():
        raise ValueError("there are labels that are no whole numbers: number the classes from 0.")
    return whole
