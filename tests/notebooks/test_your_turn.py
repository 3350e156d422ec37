"""What lessons answer to the lines that learners write in them: right ones, and wrong ones.

A cell of a learner and the check below it run with those cells of the lesson that they need.
"""

import ast
import builtins
import dis
import json
from functools import cache
from pathlib import Path
from types import CodeType

import matplotlib.pyplot as plt
import pytest
import torch
from your_turns import RIGHT, WRONG

import qlearn

LESSONS = Path(__file__).parents[2] / "notebooks"
LEFT = "Left alone: the lesson goes on with the reference."


@cache
def cells_of(lesson):
    """(Id, source) of a lesson's code cells."""
    (path,) = LESSONS.glob(f"{lesson}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(c["id"], "".join(c["source"])) for c in cells if c["cell_type"] == "code"]


def names(source):
    """(Bound, changed, used) names of a cell; what its functions use counts as used."""
    code, bound, used = compile(source, "cell", "exec"), set(), set()
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME":
            bound.add(step.argval)
        elif step.opname == "LOAD_NAME" and step.argval not in bound:
            used.add(step.argval)
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    while inner:
        body = inner.pop()
        inner += [c for c in body.co_consts if isinstance(c, CodeType)]
        loads = [s for s in dis.get_instructions(body) if s.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
        used |= {s.argval for s in loads} - bound
    targets = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store)
    ]
    changed = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return bound, changed, used


def needed(cells, wanted):
    """The cells that bind what is wanted, or what those use, in the order of the lesson."""
    chosen = []
    for cell in reversed(cells):
        bound, changed, used = names(cell)
        if wanted & (bound | changed):
            chosen.append(cell)
            wanted = (wanted - bound) | used
    return chosen[::-1]


@pytest.fixture(scope="module")
def prepared(base_models):
    """Turn → the namespace in which its cell is written, made once, on one thread."""
    made, patch, threads = {}, pytest.MonkeyPatch(), torch.get_num_threads()
    torch.set_num_threads(1)
    patch.setattr(torch, "set_num_threads", lambda number: None)

    def of(turn):
        if turn not in made:
            cells = dict(cells_of(turn[1:3]))
            before = list(cells).index(f"{turn}-check")
            ways = [*RIGHT[turn], *(code for code, _ in WRONG[turn]), cells[f"{turn}-check"]]
            wanted = names("\n".join(ways))[2] - set(dir(builtins))
            made[turn] = space = {"__name__": "__main__"}
            for source in needed(list(cells.values())[:before], wanted):
                exec(source, space)
            plt.close("all")
        return dict(made[turn])

    yield of
    patch.undo()
    torch.set_num_threads(threads)


def answered(turn, code, prepared, capsys):
    """What the lesson prints below a learner's cell."""
    space = prepared(turn)
    sources = dict(cells_of(turn[1:3]))
    capsys.readouterr()
    exec(code if code is not None else sources[f"{turn}-code"], space)
    exec(sources[f"{turn}-check"], space)
    return capsys.readouterr().out.strip()


def test_every_turn_of_the_lessons_is_in_the_bank():
    found = [
        cell.removesuffix("-check")
        for path in LESSONS.glob("*.ipynb")
        for cell, source in cells_of(path.name[:2])
        if "qlearn.your_turn(" in source
    ]
    assert sorted(found) == sorted(RIGHT)
    assert all(sum(turn.startswith(f"l{n:02}") for turn in found) >= 2 for n in range(1, 11))


@pytest.mark.parametrize("turn", RIGHT)
def test_left_alone_says_so(turn, prepared, capsys):
    assert answered(turn, None, prepared, capsys) == LEFT


@pytest.mark.parametrize("turn", RIGHT)
def test_a_right_way_is_right(turn, prepared, capsys):
    for code in RIGHT[turn]:
        assert answered(turn, code, prepared, capsys) == "Right.", code


@pytest.mark.parametrize(
    "turn, code, says",
    [
        pytest.param(turn, code, says, id=f"{turn}-{number}")
        for turn, ways in WRONG.items()
        for number, (code, says) in enumerate(ways)
    ],
)
def test_a_wrong_way_gets_a_counterexample(turn, code, says, prepared, capsys):
    said = answered(turn, code, prepared, capsys)
    assert said.startswith("Not yet: ") and said.count("\n") == 0, said
    assert says in said


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda x: (x, x), "returns 2 values instead of 1"),
        (lambda x: None if x else 1, "it is None"),
        (lambda x: [x, x], "has shape (2,) instead of ()"),
        (lambda x: float("nan") * x, "is nan instead of"),
        (lambda: 1, "stops with TypeError"),
        (3, "stops with TypeError: 'int' object is not callable"),
    ],
)
def test_what_is_no_answer_at_all_gets_a_sentence(wrong, says, capsys):
    qlearn.your_turn("01 double", wrong, qlearn.against(lambda x: 2 * x, [{"x": 1.5}]))
    said = capsys.readouterr().out
    assert said.startswith("Not yet: with x = 1.5 ") and says in said


def test_a_function_that_returns_a_number_was_written(capsys):
    qlearn.your_turn("01 double", lambda x: 7, qlearn.against(lambda x: 2 * x, [{"x": 1.5}]))
    assert capsys.readouterr().out == "Not yet: with x = 1.5 it is 7 instead of 3.\n"
