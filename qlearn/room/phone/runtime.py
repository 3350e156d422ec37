"""onnxruntime-web, the engine in the phone's browser: fetched once by npm, kept in the cache."""

import gzip
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from qlearn.system.cache import home, write_whole
from qlearn.system.tools import run_tool

HERE = Path(__file__).parent
_PACKAGE = json.loads((HERE / "package.json").read_text(encoding="utf-8"))
VERSION: str = _PACKAGE["dependencies"]["onnxruntime-web"]
SHA256: dict[str, str] = _PACKAGE["sha256"]
NPM_TIMEOUT = 300  # seconds


def fetch_runtime(folder: str | Path | None = None) -> Path:
    """Return the cache's folder with the files of onnxruntime-web; fill it if it is not there.

    They are copied from ``folder``, or else fetched by npm. Each is kept compressed (``.gz``), as
    it is sent: the largest has 14 MB, and 3.7 MB compressed.
    """
    cached = home() / "phone" / f"onnxruntime-web-{VERSION}"
    if folder is not None:
        _copy(Path(folder), cached)
    elif not all((cached / f"{name}.gz").is_file() for name in SHA256):
        with tempfile.TemporaryDirectory() as scratch:
            _copy(_install(Path(scratch)), cached)
    return cached


def _copy(source: Path, cached: Path) -> None:
    """Verify the files of ``source`` and put them, compressed, into the cache's folder."""
    contents = {}
    for name, expected in SHA256.items():
        try:
            contents[name] = (source / name).read_bytes()
        except OSError:
            raise FileNotFoundError(
                f"{source} lacks {name}: it must hold {', '.join(SHA256)}, which are in dist/ of "
                f"the npm package onnxruntime-web {VERSION}."
            ) from None
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            raise ValueError(
                f"{source / name} is not the file of onnxruntime-web {VERSION} (its SHA-256 "
                "differs): take the files of exactly that version."
            )
    for name, content in contents.items():
        with write_whole(cached / f"{name}.gz") as unfinished:
            unfinished.write_bytes(gzip.compress(content))


def _install(scratch: Path) -> Path:
    """Run ``npm ci`` in an empty folder and return the folder of the files."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The page needs onnxruntime-web {VERSION}, which npm fetches, and npm is missing: "
            "install Node.js, or give a folder that holds its files (--runtime FOLDER)."
        )
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, scratch)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    failure = (
        f"npm could not fetch onnxruntime-web {VERSION} ({{reason}}): connect to the network, or "
        "give a folder that holds its files (--runtime FOLDER)."
    )
    run_tool(command, failure, NPM_TIMEOUT, scratch)
    return scratch / "node_modules" / "onnxruntime-web" / "dist"
