"""The cache folder, and files and folders in it that are never half written."""

import contextlib
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A temporary file lives for the seconds that writing takes; an older one was left by a crash.
STALE_SECONDS = 60


def home() -> Path:
    """Return the cache folder: ``QLEARN_HOME`` when set, else the platform's user cache."""
    chosen = os.environ.get("QLEARN_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qlearn", appauthor=False)


def source_digest(*names: str) -> str:
    """Return a hash of PyTorch's version and of the text of some modules of this package.

    What they made is kept under it, and made anew when one of them has changed.

    Parameters
    ----------
    names
        Paths of the modules in the package, without ``.py``.
    """
    from importlib.metadata import version

    digest = hashlib.sha256(version("torch").encode())
    for name in names:
        digest.update((Path(__file__).parents[1] / f"{name}.py").read_bytes())
    return digest.hexdigest()


def save_atomically(value: Any, path: Path) -> None:
    """Write ``value`` with ``torch.save`` so that ``path`` is either whole or absent.

    The temporary file is in the same folder, because a rename is atomic only within one file
    system. Temporary files that an interrupted run left behind are removed.

    Raises
    ------
    OSError
        If the folder cannot be written to, or has no room.
    """
    import torch  # not above: who only asks for the folder need not pay for it

    # Not into the file at once: where the disk is full, PyTorch raises a RuntimeError about itself.
    content = io.BytesIO()
    torch.save(value, content)

    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.tmp"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.getbuffer())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def making(place: Path) -> Iterator[Path]:
    """Give a path beside ``place``; what the block makes there takes its place if it succeeds.

    Parameters
    ----------
    place
        A file or a folder that is not there yet. Another process that makes the same one may be
        quicker: then what it made stays.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as scratch:
        unfinished = Path(scratch) / place.name
        yield unfinished
        try:
            os.replace(unfinished, place)
        except OSError:
            if not place.exists():
                raise
