"""One process at a time makes a file of the cache; others wait for it and see how far it is."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOOK_SECONDS = 0.3  # between two looks at how far the other process is, and between two notes


@contextmanager
def turn(file: Path, name: str) -> Iterator[None]:
    """Hold the lock of ``file`` while the block runs; wait for it under a progress bar.

    The operating system releases the lock when its holder dies, whatever it died of. So whoever
    gets a turn must look first whether ``file`` is there by now. Where the cache can hold no lock
    (a full or read-only disk), the block runs without: what it makes cannot be kept there either.

    Parameters
    ----------
    file
        What is made in this turn; the lock and the progress stand beside it.
    name
        What to call it in the line for those who wait.
    """
    lock = FileLock(f"{file}.lock")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _wait(lock, file, name)
    try:
        yield
    finally:
        if lock.is_locked:
            _note(file).unlink(missing_ok=True)
            lock.release()


def taken(file: Path) -> bool:
    """Return whether a process is making ``file`` now."""
    lock = FileLock(f"{file}.lock", blocking=False)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock:
            return False
    except Timeout:
        return True


class Counted:
    """Batches of a loader, counted in a file for those who wait.

    Parameters
    ----------
    loader
        Has a length, and can be iterated more than once.
    passes
        How often it will be, in all.
    file
        What the batches are for, as in ``turn``.
    """

    def __init__(self, loader: Iterable, passes: int, file: Path) -> None:
        self.loader, self.total, self.note = loader, passes * len(loader), _note(file)
        self.done, self.noted = 0, 0.0

    def __len__(self) -> int:
        """Return how many batches a pass has."""
        return len(self.loader)

    def __iter__(self) -> Iterator:
        """Yield the loader's batches; note beforehand how many are done."""
        for batch in self.loader:
            if time.monotonic() - self.noted > LOOK_SECONDS:
                self.noted = time.monotonic()
                with suppress(OSError):  # a full disk: the bar of who waits stands still
                    self.note.write_text(f"{self.done} {self.total}")
            yield batch
            self.done += 1


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.progress")


def _wait(lock: FileLock, file: Path, name: str) -> None:
    """Acquire the lock; meanwhile show what its holder notes."""
    from tqdm import tqdm

    print(f"Another process is training {name}; this one waits for it.")
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} batches"
    with tqdm(file=sys.stdout, ncols=80, bar_format=form, desc=f"waiting for {name}") as bar:
        bar.total = 1  # until the other process notes how many
        while not lock.is_locked:
            with suppress(OSError, ValueError):  # absent, or being written just now
                bar.n, bar.total = map(int, _note(file).read_text().split())
            bar.refresh()
            with suppress(Timeout):
                lock.acquire(timeout=LOOK_SECONDS)
