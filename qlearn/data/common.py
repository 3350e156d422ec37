"""What all data sets share: their type, the split and the loaders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qlearn.system.errors import require_whole


@dataclass(frozen=True)
class DataSet:
    """A training set, a test set and the names of the classes.

    Items of ``train`` and ``test`` are pairs of an input tensor and an int label, an index into
    ``classes``.
    """

    train: Dataset
    test: Dataset
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Samples(Dataset):
    """A data set held in memory.

    Attributes
    ----------
    inputs
        All inputs, N×….
    labels
        All labels, N, int64.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one input and its label."""
        return self.inputs[index], int(self.labels[index])


def require_data_set(data: object) -> None:
    """Raise a ValueError when something has no train and test part, or these hold no samples."""
    if not all(hasattr(data, part) for part in ("train", "test")) or isinstance(data, nn.Module):
        raise ValueError(
            f"a {type(data).__name__} is no data set with a train and a test part: give one of "
            "qlearn.data, or qlearn.data.DataSet(train, test, classes)."
        )
    for name, part in (("train", data.train), ("test", data.test)):
        # A loader has a length and no samples; an IterableDataset, samples and no length.
        if not hasattr(part, "__len__") or not hasattr(part, "__getitem__"):
            raise ValueError(
                f"the {name} part of the data is a {type(part).__name__}: give a Dataset with "
                "__len__ and __getitem__, or a list of (input, label)."
            )
        if len(part) == 0:
            raise ValueError(f"the {name} part of the data holds no samples: give it some.")


def split(
    inputs: Tensor,
    labels: Sequence[int],
    classes: Sequence[str],
    test_share: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """Split samples into train and test, with the same share of every class in both."""
    from sklearn.model_selection import train_test_split

    labels = torch.as_tensor(labels, dtype=torch.int64)
    parts = train_test_split(
        range(len(labels)), test_size=test_share, stratify=labels.numpy(), random_state=seed
    )
    train, test = (Samples(inputs[part], labels[part]) for part in map(sorted, parts))
    return DataSet(train, test, tuple(classes))


def loaders(dataset: DataSet, batch_size: int = 64, seed: int = 0) -> tuple[DataLoader, DataLoader]:
    """Return the loaders that ``fit`` and ``evaluate`` take.

    Parameters
    ----------
    dataset
        Any of this package's sets.
    batch_size
        Samples a batch; the last batch may hold fewer. A last training batch of a single sample
        is left out, for batch norm's sake.
    seed
        Fixes the order in which the training samples are shuffled.

    Returns
    -------
    tuple of DataLoader
        The training loader, shuffled anew every epoch, and the test loader, in order.

    Raises
    ------
    ValueError
        If ``dataset`` is none or has an empty part, or ``batch_size`` is less than 1.
    """
    require_data_set(dataset)
    require_whole("batch_size", batch_size)
    # A last batch of one sample has no variance: batch norm on 1×1 feature maps refuses it.
    single = len(dataset.train) > batch_size > 1 and len(dataset.train) % batch_size == 1
    train = DataLoader(
        dataset.train,
        batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        drop_last=single,
    )
    # Every pass over a loader draws a number; from its own generator, so that measuring an accuracy
    # does not change what a later random step of the caller gives.
    return train, DataLoader(dataset.test, batch_size, generator=torch.Generator())
