"""Whether every base model is in the cache, known without the seconds that PyTorch's import costs.

The names of their files are PyTorch's to compute (``pretrained.path``), so they are written down
once they are all there, under a key of everything that they are computed from.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qlearn.system.cache import home, source_digest, write_whole


def complete() -> bool:
    """Return whether the list is there, and every file on it."""
    path = _path()
    try:
        names = path.read_text().split()
    except OSError:
        return False
    return all((path.parent / name).exists() for name in names)


def record(files: Iterable[Path]) -> None:
    """Write down that these files are all there are."""
    # Where that cannot be written, the only loss is that time is spent to find out again.
    with suppress(OSError), write_whole(_path()) as unfinished:
        unfinished.write_text("\n".join(file.name for file in files))


def _path() -> Path:
    return home() / "models" / f"all-{source_digest('qlearn.pretrained')[:10]}.txt"
