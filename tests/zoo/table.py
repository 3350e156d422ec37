"""Write notebooks/teach/supported.md anew: what PyTorch can quantize how, found in the zoo.

.venv/bin/python tests/zoo/table.py works on one core; a program or file of another runtime takes
seconds for each module.
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
COLUMNS = {
    "Schemes": tuple(way for way in schemes.ALL if way not in ways.LOWERED),
    "Functions": ("compare", "sensitivity", "layer_errors", "mixed_precision"),
    "Files": ("submit", "torchscript", *ways.LOWERED),
}
HEAD = """# What is supported

Small modules of the kinds that people bring (`tests/zoo/modules.py`), and what becomes of each:
the SQNR of its outputs against the float model's in dB ("=": equal; `sensitivity` and
`layer_errors`: the worst layer; `mixed_precision`: all layers in 8 bits), or, in brackets, the
number of the reason why it is refused. The modules are untrained, and QAT moves their weights for
two epochs: its dB say little. PyTorch {version}, engine {engine}.

Made by `python tests/zoo/table.py`; `tests/zoo/test_zoo.py` checks each cell anew, but for most
programs and files of other runtimes, which take seconds each: it makes those of {lowered} modules.
"""
# Modules whose programs and files the tests make, one of each kind: each takes seconds, and this
# script makes all when the page is written anew.
LOWERED = ("conv_bn_relu", "depthwise", "transposed", "conv3d", "residual", "shared_linear",
           "tied_weights", "attention", "text_cnn")  # fmt: skip
Results = dict[str, dict[str, float | str]]  # of each module and way, dB or why it is refused


def short(sentence: str) -> str:
    """Leave out what depends on the module: layers, shapes, types, lines of code, exceptions."""
    sentence = re.sub(r" \((\w+): .*\)", "", sentence)
    sentence = re.sub(r", in the line `.*?`(?=[:,])", "", sentence)
    sentence = re.sub(r"^[\w. ]+ stayed float", "a layer stayed float", sentence)
    sentence = re.sub(r"(does not take) \w+ weights of shape .*", r"\1 its weights", sentence)
    sentence = re.sub(r"(a tensor of shape) \(.*?\)", r"\1 …", sentence)
    sentence = re.sub(r"(weights are) torch\.\w+", r"\1 not float32", sentence)
    return sentence.rstrip(".").replace("|", "\\|")


def summary(results: Results) -> str:
    """Count, for each way, the modules that it takes, and give the median of their dB."""
    lines = ["| way | modules | taken | median dB |", "|---|---|---|---|"]
    for way in sum(COLUMNS.values(), ()):
        cells = [found[way] for found in results.values()]
        taken = sorted(cell for cell in cells if not isinstance(cell, str))
        middle = f"{taken[len(taken) // 2]:.0f}" if taken and taken[len(taken) // 2] < 200 else "="
        lines.append(f"| {way} | {len(cells)} | {len(taken)} | {middle if taken else '–'} |")
    return "## In short\n\n" + "\n".join(lines) + "\n"


def write(results: Results) -> None:
    """Write the page from what each way found for each module."""
    reasons: dict[str, int] = {}

    def cell(found: float | str) -> str:
        if isinstance(found, str):
            return f"[{reasons.setdefault(short(found), len(reasons) + 1)}]"
        return "=" if found > 200 else f"{found:.0f}"

    version, engine = torch.__version__.partition("+")[0], torch.backends.quantized.engine
    head = HEAD.format(version=version, engine=engine, lowered=len(LOWERED))
    parts = [head, summary(results)]
    for title, columns in COLUMNS.items():
        lines = [f"## {title}", "", f"| module | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for name, found in results.items():
            lines.append(f"| {name} | {' | '.join(cell(found[way]) for way in columns)} |")
        parts.append("\n".join(lines) + "\n")
    said = "\n".join(f"{number}. {reason}." for reason, number in reasons.items())
    PAGE.write_text("\n".join([*parts, f"## Reasons\n\n{said}\n"]), encoding="utf-8")


def read() -> dict[str, dict[str, str]]:
    """Return the page's cells, of each module and way."""
    text, results = PAGE.read_text(encoding="utf-8"), {}
    for title, columns in COLUMNS.items():
        part = text.partition(f"## {title}\n")[2].partition("## ")[0]
        for name, row in re.findall(r"^\| (\w+) \| (.+) \|$", part, re.M)[1:]:
            cells = dict(zip(columns, row.split(" | "), strict=True))
            results.setdefault(name, {}).update(cells)
    return results


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    for name in tqdm(modules.ZOO):
        subject = ways.subject(*modules.make(name))
        found[name] = {way: ways.run(way, subject) for way in ways.WAYS}
    write(found)
