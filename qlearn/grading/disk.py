"""What a kernel keeps on the disk, also in files that are in no folder."""

import os
import random
import stat
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

FILES_READ = 2000  # open files that are looked at: a thousand take milliseconds


def folder_use(folders: Iterable[Path], most: int) -> tuple[int, int]:
    """Return bytes and number of the files in folders; links are not followed.

    Parameters
    ----------
    folders
        Any.
    most
        Stop counting beyond so many.
    """
    size = count = 0
    waiting = list(map(str, folders))
    while waiting and count <= most:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if count > most:
                        break
        except FileNotFoundError:
            continue
        except OSError:  # a path that is too long, or a folder that was closed to us
            count = most + 1
    return size, count


def unlinked(pids: list[int], device: int) -> int:
    """Return the bytes of files on a disk that processes have open and that are in no folder.

    Of so many open files as can be looked at in milliseconds, which are not always the same.

    Parameters
    ----------
    pids
        The processes.
    device
        Number of the disk, as in ``st_dev``.
    """
    sizes: dict[int, int] = {}
    paths = (f"/proc/{pid}/fd" for pid in random.sample(pids, len(pids)))
    opened = (f"{path}/{name}" for path in paths for name in _listed(path))
    for path in islice(opened, FILES_READ):
        with suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == device:
                sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
