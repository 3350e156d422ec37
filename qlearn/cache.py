"""The cache folder, and files in it that are never half written."""

import os
import time
from pathlib import Path
from typing import Any

import torch

# A temporary file lives for the seconds that writing takes; an older one was left by a crash.
STALE_SECONDS = 60


def home() -> Path:
    """Return the cache folder: ``QLEARN_HOME`` when set, else the platform's user cache."""
    chosen = os.environ.get("QLEARN_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qlearn", appauthor=False)


def save_atomically(value: Any, path: Path) -> None:
    """Write ``value`` with ``torch.save`` so that ``path`` is either whole or absent.

    The temporary file is in the same folder, because a rename is atomic only within one file
    system. Temporary files that an interrupted run left behind are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.tmp"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(value, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
