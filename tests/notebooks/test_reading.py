"""What a lesson asks of its reader: words are defined before they are used, minutes are counted."""

import json
import re
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

# A term, and the lesson in which it first appears, in bold, with its meaning.
WORDS = {
    "scale": 0,
    "observer": 0,
    "calibration": 0,
    "engine": 0,
    "qconfig": 0,
    "eager": 0,
    "fused": 0,
    "VNNI": 0,
    "deprecated": 0,
    "torchao": 0,
    "depthwise": 0,
    "TorchScript": 0,
    "scripted": 0,
    "frozen": 0,
    "PT2E": 0,
    "ExecuTorch": 0,
    "XNNPACK": 0,
    "ONNX": 0,
    "rounding error": 1,
    "clipping error": 1,
    "E4M3": 1,
    "requantization": 1,
    "stubs": 3,
    "dead channels": 3,
    "straight-through estimator": 4,
    "lowering": 6,
    "delegate": 6,
    "dominated": 7,
    "Pareto front": 7,
    "validation set": 7,
    "mixed precision": 8,
    "cross-layer equalization": 8,
    "bias correction": 8,
    "AdaRound": 8,
    "LSQ": 8,
    "tensor subclass": 9,
}


def sections(path):
    """(Text, lines of code, whether it is marked as deeper) of a lesson, but for its sources."""
    deeper = {2: False, 3: False}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            continue  # folded: a figure is looked at
        if cell["cell_type"] == "code":
            yield (
                "",
                len([line for line in source.splitlines() if line.strip()]),
                any(deeper.values()),
            )
            continue
        for part in re.split(r"^(?=#{1,3} )", source, flags=re.MULTILINE):
            heading = re.match(r"(#{1,3}) (.*)", part)
            if heading and "Sources" in heading[2]:
                return
            if heading:
                level = max(2, len(heading[1]))
                deeper |= {each: False for each in (2, 3) if each > level}
                deeper[level] = "deeper" in heading[2]
            yield part, 0, any(deeper.values())


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_minutes_are_counted_as_lesson_00_says(path):
    minutes = 0.0
    for text, lines, deeper in sections(path):
        read = re.sub(r"<details>.*?</details>|```.*?```|\]\([^)]*\)", "", text, flags=re.DOTALL)
        words, predictions = (
            len(re.findall(r"[^\W_]+(?:['.-][^\W_]+)*", read)),
            read.count("Predict"),
        )
        turns = read.count("**Your turn.**")
        minutes += (not deeper) * (words / 120 + lines / 15 + predictions / 2 + 3 * turns)
    first = next(text for text, _, _ in sections(path) if text)
    time = re.search(r"\*\*Time\*?\*?:.*", first, re.DOTALL)[0]
    stated = sum(map(int, re.findall(r"(\d+)\s+minutes", time)))
    assert abs(minutes - stated) <= 0.2 * stated, f"{minutes:.0f} counted, {stated} stated"


def test_no_lesson_uses_a_word_before_it_is_defined():
    texts = [" ".join(text for text, _, _ in sections(path)) for path in LESSONS]
    texts = [re.sub(r"`[^`]*`|\]\([^)]*\)", "", text).lower() for text in texts]
    for word, lesson in WORDS.items():
        used = rf"(?<![\w-]){re.escape(word.lower())}(?![\w-])"
        for path, text in zip(LESSONS[:lesson], texts, strict=False):
            assert not re.search(used, text), (
                f"{path.stem} uses {word!r}, which {lesson:02} defines"
            )
        body = texts[lesson].split("**you need:**")[-1]  # the goals before it name what is to come
        first = re.search(used, body)
        assert first, f"{lesson:02} does not define {word!r}"
        before = body[: first.start()]
        assert before.count("**") % 2 == 1, f"{lesson:02}: {word!r} comes before its definition"


def test_the_index_of_terms_holds_each_word_with_its_lesson():
    index = (LESSONS[0].parent / "terms.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| \[(\d\d)\]", index, re.MULTILINE))
    assert {word: int(lesson) for word, lesson in rows.items()} == WORDS
    assert list(rows) == sorted(rows, key=str.lower)
