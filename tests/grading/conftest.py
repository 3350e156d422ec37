"""What the tests of grading share: bubblewrap, and a short folder for temporary files."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from twenty import Cluster

from qlearn.grading.sandbox import SandboxUnavailable, require


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Without it a test skips on a user's machine, and fails in CI."""
    try:
        require()
    except SandboxUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must not skip what needs the sandbox: {error}")
        pytest.skip(str(error))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch):
    """An empty folder that holds every temporary file; sockets in it have short paths."""
    folder = tempfile.mkdtemp(prefix="qt-")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.end()


@pytest.fixture
def cluster(workshop):
    return workshop.address
