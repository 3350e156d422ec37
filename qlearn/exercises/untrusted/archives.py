"""Zip archives that PyTorch reads, looked at before anything in them is loaded."""

import io
from pathlib import Path

import torch

UNPACKED_MB = 200  # an honest file of 100 MB unpacks to little more: only its code is compressed


def open_archive(source: Path | bytes) -> torch._C.PyTorchFileReader:
    """Open an archive with PyTorch's own reader, which is the one that loads it later.

    Raises
    ------
    ValueError
        When it unpacks to more than ``UNPACKED_MB``, or holds a part twice.
    RuntimeError
        When it is no archive.
    """
    place = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    reader = torch._C.PyTorchFileReader(place)
    names = reader.get_all_records()
    if len(set(names)) < len(names):
        raise ValueError("it holds a part twice")
    size = sum(reader.get_record_size(name) for name in names) / 10**6
    if size > UNPACKED_MB:
        raise ValueError(f"it unpacks to {size:.0f} MB, and the limit is {UNPACKED_MB}")
    return reader
