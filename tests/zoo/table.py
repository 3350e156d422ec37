"""Write notebooks/teach/supported.md anew: what PyTorch can quantize how, found in the zoo.

.venv/bin/python tests/zoo/table.py takes some ten minutes.
"""

import re
import warnings
from pathlib import Path

import modules
import torch
import ways
from tqdm import tqdm

from qlearn import schemes

PAGE = Path(__file__).parents[2] / "notebooks/teach/supported.md"
FILES = ("submit", "torchscript", "executorch", "executorch_int8", "onnx", "onnx_int8")
COLUMNS = {
    "Schemes": tuple(schemes.ALL),
    "Functions": tuple(way for way in ways.FUNCTIONS if way not in FILES),
    "Files": FILES,
}
HEAD = """# What is supported

Small modules of the kinds that people bring (`tests/zoo/modules.py`), and what becomes of each:
the SQNR of its outputs against the float model's in dB ("=": equal; `sensitivity` and
`layer_errors`: the worst layer; `mixed_precision`: all layers in 8 bits), or, in brackets, the
number of the reason below, or "?" where it has not been run. QAT trains for two epochs and so
moves the weights: its dB say little. PyTorch {version}, engine {engine}.

Made by `python tests/zoo/table.py`; `tests/zoo/test_zoo.py` checks what it says.
"""


def short(sentence: str) -> str:
    """Leave out what depends on the module: layers, shapes, lines of code, exceptions."""
    sentence = re.sub(r" \(\w*(Error|Exception|Fault|Fail)\w*: .*\)", "", sentence)
    sentence = re.sub(r", in the line `.*?`(?=:)", "", sentence)
    sentence = re.sub(r"^[\w.]+ stayed float", "a layer stayed float", sentence)
    return sentence.rstrip(".").replace("|", "\\|")


def write(results: dict[str, dict[str, float | str]]) -> None:
    """Write the page from what each way found for each module."""
    reasons: dict[str, int] = {}

    def cell(found: float | str | None) -> str:
        if found is None:
            return "?"
        if isinstance(found, str):
            return f"[{reasons.setdefault(short(found), len(reasons) + 1)}]"
        return "=" if found > 200 else f"{found:.0f}"

    parts = [
        HEAD.format(
            version=torch.__version__.partition("+")[0], engine=torch.backends.quantized.engine
        )
    ]
    for title, columns in COLUMNS.items():
        lines = [
            f"## {title}",
            "",
            f"| module | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for name, found in results.items():
            lines.append(f"| {name} | {' | '.join(cell(found.get(way)) for way in columns)} |")
        parts.append("\n".join(lines) + "\n")
    said = "\n".join(f"{number}. {reason}." for reason, number in reasons.items())
    PAGE.write_text("\n".join([*parts, f"## Reasons\n\n{said}\n"]), encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    for name in tqdm(modules.ZOO):
        subject = ways.subject(*modules.make(name))
        found[name] = {way: ways.run(way, subject) for way in ways.WAYS}
    write(found)
