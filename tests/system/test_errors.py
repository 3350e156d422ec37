"""What the errors of PyTorch and its runtimes mean, in sentences."""

import sys

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import prune

from qlearn import schemes
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


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Last(nn.Module):
    """An LSTM and a head."""

    def __init__(self, **options):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True, **options)
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def pruned():
    layer = nn.Linear(4, 2)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def padded():
    layer = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(50, 2))


def scheme(name, model, inputs=ROWS):
    with torch.no_grad():
        model = nn.Sequential(model).eval()
        model(inputs)
    return schemes.ALL[name](model, [(inputs, torch.arange(len(inputs)) % 2)])


KINDS = {
    "a packed weight": (tied, "used outside that layer.*holds it packed"),
    "two types": (lambda: LINEAR(ROWS.double()), "call float\\(\\)"),
    "two types in a convolution": (lambda: nn.Conv2d(1, 1, 1)(torch.rand(1, 1, 2, 2).half()),
                                   "call float\\(\\)"),
    "another shape": (lambda: LINEAR(torch.rand(2, 5)), "shape that the model takes"),
    "two inputs": (lambda: nn.Bilinear(4, 4, 2)(ROWS), "several inputs"),
    "control flow": (lambda: torch.fx.symbolic_trace(Branches()),
                     "decides in Python.*in the line `return x if x.shape"),
    "a pruned layer": (lambda: scheme("int8_dynamic", pruned()), 'prune.remove\\(layer, "weight"'),
    "an old weight norm": (lambda: scheme("int8_dynamic", nn.utils.weight_norm(nn.Linear(4, 2))),
                           "remove_weight_norm"),
    "len": (lambda: torch.fx.symbolic_trace(Function(lambda x: x * len(x))), "x.shape\\[0\\]"),
    "circular padding": (lambda: scheme("int8_channel_fx", padded(), torch.rand(8, 1, 5, 5)),
                         "padding_mode='circular'"),
    "no bias": (lambda: scheme("int8_dynamic", Last(bias=False), torch.rand(8, 3, 4)), "bias=True"),
    "projections": (lambda: scheme("int8_dynamic", Last(proj_size=2), torch.rand(8, 3, 4)),
                    "proj_size"),
    "constant inputs": (lambda: torch.linalg.cholesky(torch.ones(2, 2)), "constant, or so large"),
    "complex numbers": (lambda: torch.aminmax(ROWS * 1j), "view_as_real"),
    "no 16 bits": (lambda: torch.fft.fft(ROWS.bfloat16()), "not compute in BFloat16.*float\\(\\)"),
    "a memory format": (lambda: ROWS.contiguous(memory_format=torch.channels_last),
                        "number of a tensor's dimensions"),
    "a norm without statistics": (lambda: nn.utils.fuse_conv_bn_eval(
        nn.Conv2d(1, 1, 1).eval(), nn.BatchNorm2d(1, track_running_stats=False).eval()
    ), "running statistics"),
    "the fast path": (lambda: torch.no_grad()(encoder())(torch.rand(1, 3, 4)), "fastpath_enabled"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_error_has_a_meaning(kind):
    run, meaning = KINDS[kind]
    with pytest.raises(
        ValueError, match=f"(fails|the model): .*{meaning}.*\\(\\w*Error: "
    ) as raised:
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
