"""What tests of artifacts share: a folder to hand in to, pictures and a model."""

import pytest

import qlearn


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "answers"


@pytest.fixture(scope="module")
def images():
    return next(iter(qlearn.loaders(qlearn.data.digits())[1]))[0]


@pytest.fixture(scope="module")
def cnn(base_models):
    return qlearn.pretrained.small_cnn()
