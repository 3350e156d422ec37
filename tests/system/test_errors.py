"""What the errors of PyTorch and its runtimes mean, in sentences."""

import sys

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

from qlearn.system.errors import explain, explained, name_error

ROWS, LINEAR = torch.rand(2, 4), nn.Linear(4, 4)


class Branches(nn.Module):
    def forward(self, x):
        return x if x.shape[0] > 1 else -x


def encoder():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return quantize_dynamic(nn.TransformerEncoder(layer, 1).eval(), {nn.Linear})


def tied():
    packed = quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})[0]
    return nn.functional.linear(packed(ROWS), packed.weight)


KINDS = {
    "a packed weight": (tied, "used outside that layer.*holds it packed"),
    "two types": (lambda: LINEAR(ROWS.double()), "call float\\(\\)"),
    "two types in a convolution": (lambda: nn.Conv2d(1, 1, 1)(torch.rand(1, 1, 2, 2).half()),
                                   "call float\\(\\)"),
    "another shape": (lambda: LINEAR(torch.rand(2, 5)), "shape that the model takes"),
    "two inputs": (lambda: nn.Bilinear(4, 4, 2)(ROWS), "several inputs"),
    "control flow": (lambda: torch.fx.symbolic_trace(Branches()),
                     "decides in Python.*in the line `return x if x.shape"),
    "the fast path": (lambda: torch.no_grad()(encoder())(torch.rand(1, 3, 4)), "fastpath_enabled"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_error_has_a_meaning(kind):
    run, meaning = KINDS[kind]
    with pytest.raises(ValueError, match=f"it fails: .*{meaning}.*\\(\\w*Error: ") as raised:
        with explained("it fails"):
            run()
    assert raised.value.__cause__ is not None and "\n" not in str(raised.value)


def test_an_unknown_error_keeps_its_name_and_gets_a_line_of_the_author():
    with pytest.raises(ValueError, match="it fails: KeyError: 'x', in the line `{}\\[\"x\"\\]`."):
        with explained("it fails"):
            {}["x"]


def test_sentences_of_this_package_and_errors_of_the_system_pass():
    with pytest.raises(ValueError, match="^the first reason: ") as raised:
        with explained("the second reason"), explained("the first reason"):
            LINEAR(torch.rand(2, 5))
    assert explain(raised.value) == str(raised.value).rstrip(".")
    with pytest.raises(FileNotFoundError, match="no such"), explained("it fails"):
        raise FileNotFoundError("no such file")


def test_a_name_is_one_short_line():
    assert name_error(RuntimeError("\x1b[31mfirst\x1b[0m\nsecond")) == "RuntimeError: first"
    assert name_error(RuntimeError("word " * 99)).endswith(" …")
    assert name_error(RuntimeError()) == "RuntimeError: no message"


def test_the_traceback_that_a_traced_model_prints_is_held_back(capsys):
    class Views(nn.Module):
        def forward(self, x):
            return x.transpose(0, 1).view(-1)

    with pytest.raises(ValueError, match="it fails: .*flatten"), explained("it fails"):
        torch.fx.symbolic_trace(Views())(torch.rand(2, 3))
    assert capsys.readouterr().err == ""
    with explained("it fails"):
        print("a warning", file=sys.stderr)
    assert capsys.readouterr().err == "a warning\n"
