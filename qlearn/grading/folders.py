"""Folders that are there whole or not at all, and digests of what is in them."""

import functools
import hashlib
import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path

import qlearn
from qlearn.grading.records import Exercise, Submission

LIBRARIES = ("torch", "torchvision", "torchao", "executorch", "onnxruntime", "nbgrader", "pandas")


def place(folder: Path, files: Mapping[str, bytes], mode: int) -> None:
    """Put a folder with these files in the place of the one that is there.

    Parameters
    ----------
    folder
        Where.
    files
        Contents by path relative to it.
    mode
        Permissions of the files.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for left in (new, old):  # of a call that was killed
        if left.exists():
            shutil.rmtree(left)
    try:
        for name, content in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        shutil.rmtree(old)


def digest(*parts: bytes) -> str:
    """Return the SHA-256 of some contents, which tells ("ab", "c") from ("a", "bc")."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def digest_of(file: Path) -> str | None:
    """Return the `digest` of a file's content, or None when it is not there."""
    return digest(file.read_bytes()) if file.is_file() else None


def content_of(submission: Submission, exercise: Exercise) -> str:
    """Return the digest of all that a score depends on, limits apart."""
    files = sorted(submission.files.items())
    rest = [part for name, content in files for part in (name.encode(), content)]
    rest += [submission.learner.encode()] if submission.learner else []
    return digest(_package(), exercise.source, submission.notebook, *rest)


@functools.cache
def _package() -> bytes:
    """Digest of this package's code and of the versions that it measures with."""
    root = Path(qlearn.__file__).parent
    paths = sorted([*root.rglob("*.py"), *root.rglob("*.toml")])
    code = [part for p in paths for part in (str(p.relative_to(root)).encode(), p.read_bytes())]
    versions = [importlib.metadata.version(name).encode() for name in LIBRARIES]
    return digest(*code, *versions).encode()
