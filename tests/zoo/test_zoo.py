"""Every small module × all that can be done with it: right numbers, or a sentence of ours."""

import re
from functools import cache

import modules
import pytest
import table
import torch
import ways

# QAT moves the weights, and layer_errors gives the worst layer.
# The least SQNR of outputs against the float model's, in dB; of other ways INT8.
INT8 = 18
LEAST = {"fp32": 200, "bf16": 20, "fp16": 35, "compare": 200, "submit": 60, "torchscript": 60,
         "executorch": 60, "onnx": 60, "int4_weights_packed": 6, "int4_weights_torchao": 6,
         "int4_qat": 3, "int8_qat": 8, "layer_errors": 10,
         # Attention's softmax, written by hand, is quantized too.
         "int8_tensor_eager": 15, "int8_channel_eager": 15}  # fmt: skip
# An exception's name that no sentence comes before.
UNEXPLAINED = re.compile(r"(^|[^(])\b\w*(Error|Exception|Unsupported): ")
CELLS = [(name, way) for name in modules.ZOO for way in ways.WAYS]
QUICK = [(n, way) for n, way in CELLS if modules.ZOO[n].short and way not in ways.LOWERED]
REST = [(n, way) for n, way in CELLS
        if (n, way) not in QUICK and (way not in ways.LOWERED or n in table.LOWERED)]  # fmt: skip
PAGE = table.read()


@cache
def subject(name: str) -> ways.Subject:
    return ways.subject(*modules.make(name))


def check(name: str, way: str) -> None:
    found, listed = ways.run(way, subject(name)), PAGE.get(name, {}).get(way)
    if listed and torch.backends.quantized.engine == "x86":
        assert isinstance(found, str) == listed.startswith("["), f"the page says {listed}: {found}"
    if isinstance(found, str):
        assert len(found) > 40 and "\n" not in found and not UNEXPLAINED.search(found), found
    else:
        whole = subject(name).inputs.dtype in (torch.float32, torch.float64, torch.int64)
        assert found >= (LEAST.get(way, INT8) if whole else INT8)


@pytest.mark.parametrize("name, way", QUICK)
def test_a_module_comes_out_right_or_is_refused(name, way):
    check(name, way)


@pytest.mark.long
@pytest.mark.parametrize("name, way", REST)
def test_another_module_comes_out_right_or_is_refused(name, way):
    check(name, way)


def test_the_zoo_is_large_and_a_third_of_it_is_quick():
    assert len(modules.ZOO) >= 40 and 0.25 < len(QUICK) / len(CELLS) < 0.4


def test_the_page_has_whole_rows_of_every_kind():
    text = table.PAGE.read_text(encoding="utf-8")
    assert sorted(sum(table.COLUMNS.values(), ())) == sorted(ways.WAYS)
    assert "?" not in text
    for columns in table.COLUMNS.values():
        assert "\n| module | " + " | ".join(columns) + " |\n" in text
    assert PAGE.keys() == modules.ZOO.keys()
    numbers = {cell for row in PAGE.values() for cell in row.values() if cell[0] == "["}
    assert all(f"\n{number[1:-1]}. " in text for number in numbers)
