"""What is read from ExecuTorch files, whole and damaged: no damage ends the process."""

import random
from collections import Counter

import pytest
import torch
from torch import nn

from qlearn import export

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contents")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    return {
        precision: export.executorch(model, IMAGE, folder / f"{precision}.pte", inputs).path
        for precision, inputs in (("fp32", None), ("int8", [IMAGE]))
    }


def test_layers_scales_delegates_and_leftovers(files):
    float32, int8 = (export.executorch_contents(files[name]) for name in ("fp32", "int8"))
    assert Counter(float32.layers) == {"float conv": 1, "float linear": 1}
    assert Counter(int8.layers) == {"static conv": 1, "static linear": 1}
    assert not float32.scales and all(0 < scale < 1 for scale in int8.scales) and int8.scales
    assert float32.delegates == int8.delegates == 1
    assert not float32.leftovers and not int8.leftovers


def test_leftover_operators_are_counted(tmp_path):
    class Counts(nn.Module):
        def forward(self, x):
            return torch.cumsum(torch.cumsum(x.flatten(1), 1), 1)

    made = export.executorch(Counts(), IMAGE, tmp_path / "sums.pte")
    assert made.leftovers["aten::cumsum.out"] == 2
    assert export.executorch_contents(made).leftovers == made.leftovers


@pytest.mark.parametrize("data", [b"", b"ET12", b"x" * 500, b"PK\x03\x04" + bytes(100)])
def test_other_files_are_refused(data, tmp_path):
    (tmp_path / "file.pte").write_bytes(data)
    with pytest.raises(ValueError):
        export.executorch_contents(tmp_path / "file.pte")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_truncated_files_are_refused(share, files, tmp_path):
    data = files["int8"].read_bytes()
    (tmp_path / "file.pte").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError):
        export.executorch_contents(tmp_path / "file.pte")


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_are_refused_or_do_no_harm(seed, files, tmp_path):
    """A flip in a weight or in padding cannot be noticed; anywhere else it is a ValueError."""
    data = bytearray(files["int8"].read_bytes())
    chance = random.Random(seed)
    for _ in range(20):
        data[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
    (tmp_path / "file.pte").write_bytes(data)
    try:
        contents = export.executorch_contents(tmp_path / "file.pte")
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        assert isinstance(contents.layers, list)
