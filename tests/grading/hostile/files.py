"""Notebooks that are not what they should be."""

import copy
import json

import nbformat

from hostile import EARNED, NOTHING, Attack
from hostile.exercise import HONEST, released

HONEST_WORK = {name.replace("-", "_"): code for name, code in HONEST.items()}


def _spoiled(change, points=EARNED, reason="", work=HONEST_WORK):
    """A notebook as JSON, after a change to it; honest work unless said otherwise."""
    made = json.loads(nbformat.writes(released(**work)))
    change(made)
    return Attack(json.dumps(made).encode(), points, reason)


def _cell(made, name):
    return next(c for c in made["cells"] if c["id"] == f"cell-{name}")


def _set(name, **values):
    return lambda made: _cell(made, name).update(values)


def _twice(name, **values):
    def change(made):
        made["cells"].insert(0, {**copy.deepcopy(_cell(made, name)), **values})

    return change


def _without(*names):
    def change(made):
        made["cells"] = [c for c in made["cells"] if c["id"][5:] not in names]

    return change


def _add(cell, times=1):
    return lambda made: made["cells"].extend([cell] * times)


def _code(text, **metadata):
    return {"cell_type": "code", "source": text, "metadata": metadata, "outputs": [],
            "execution_count": None, "id": "mine"}  # fmt: skip


def _points(made):
    for cell in made["cells"]:
        if "points" in cell["metadata"].get("nbgrader", {}):
            cell["metadata"]["nbgrader"]["points"] = 100


def _outputs(made):
    result = {"output_type": "execute_result", "data": {"text/plain": "3"}, "metadata": {},
              "execution_count": 1}  # fmt: skip
    for cell in made["cells"]:
        cell["outputs"] = [result]


SCRIPT = "<script>fetch('/formgrader')</script>"
SHOWN = f"""
from IPython.display import HTML, Javascript, display
display(HTML({SCRIPT!r}), Javascript("1"))
display({{"image/png": 'no" onload="1', "image/svg+xml": "<svg>", "text/html": "x"}}, raw=True)
"""
LINKS = """
[a](javascript:alert(1)) [b](java&#115;cript:alert(1)) <javascript:alert(1)> [c][d] ![e][d]
$\\href{javascript:alert(1)}{f}$ [g](data:text/html;base64,PHNjcmlwdD4=) [h](%6Aavascript:x)

[d]: <JavaScript:alert(1)> "title"
"""
SLOW = ("\\begin{a}" * 10**5, "[" * 9 * 10**5, "\n".join([">" * 10**4] * 90), "*a **b" * 10**5)
SHADOWS = ("ipykernel_launcher.py", "ipykernel.py", "IPython/__init__.py", "random.py", "json.py",
           "ipython_config.py", "ipython_kernel_config.py", "jupyter_config.py", "zmq.py",
           ".ipython/profile_default/startup/first.py", "sitecustomize.py", "usercustomize.py",
           "qlearn/__init__.py", "debugpy.py", "matplotlib.py")  # fmt: skip
UNDONE = {"work": {}}
FILES = {
    "edited_tests": _spoiled(_set("test-1", source="pass"), NOTHING, **UNDONE),
    "removed_tests": _spoiled(_without("test-1", "hidden-1", "test-2"), NOTHING, **UNDONE),
    "removed_everything": _spoiled(lambda made: made.update(cells=[]), NOTHING),
    "removed_given_cells": _spoiled(_without("given")),
    "test_turned_into_markdown": _spoiled(
        _set("test-1", cell_type="markdown", source="passed"), NOTHING, **UNDONE
    ),
    "test_turned_into_work": _spoiled(
        lambda made: _cell(made, "test-1")["metadata"]["nbgrader"].update(solution=True),
        NOTHING, **UNDONE,
    ),  # fmt: skip
    "more_points": _spoiled(_points),
    "duplicated_tests": _spoiled(_twice("test-1", source="1 / 0")),
    "duplicated_work": _spoiled(_twice("work-1", source="hand_in('first', 41)")),
    "duplicated_cell_ids": _spoiled(
        lambda made: [cell.update(id="cell-given") for cell in made["cells"]]
    ),
    "no_cell_ids": _spoiled(lambda made: [cell.pop("id") for cell in made["cells"]]),
    "pretended_outputs": _spoiled(_outputs, NOTHING, **UNDONE),
    "foreign_grade_ids": _spoiled(
        _add(_code("1", nbgrader={"grade_id": "bonus", "grade": True, "points": 99}))
    ),
    "hostile_metadata": _spoiled(
        lambda made: [cell.update(metadata={"nbgrader": []}) for cell in made["cells"][2:4]]
    ),
    "hostile_grade_id": _spoiled(_add(_code("1", nbgrader={"grade_id": {"a": ["../../x"]}}))),
    "wrong_kernel": _spoiled(
        lambda made: made.update(metadata={"kernelspec": {"name": "/bin/sh", "language": "R"}})
    ),
    "added_cells": _spoiled(_add(_code("x = 1\nassert x"))),
    "scripts_in_text": _spoiled(
        _set("explain", source=f"{SCRIPT} <img src=x onerror=alert(1)>",
             attachments={'a" onload="x': {"image/svg+xml": SCRIPT, "image/png": '"><script>'}})
    ),
    "missing_attachment": _spoiled(_set("explain", source="![x](attachment:none)")),
    "svg_attachment": _spoiled(
        _set("explain", source="![x](attachment:a.svg)",
             attachments={"a.svg": {"image/svg+xml": SCRIPT}})
    ),
    "links_that_do": _spoiled(_set("explain", source=LINKS)),
    "slow_texts": _spoiled(
        lambda made: made["cells"].extend({"cell_type": "markdown", "source": s} for s in SLOW)
    ),
    "many_full_cells": _spoiled(_add(_code("print('x' * 10**5)"), 50)),
    "scripts_in_outputs": _spoiled(_add(_code(SHOWN))),
    "scripts_in_raw_cells": _spoiled(
        _add({"cell_type": "raw", "source": SCRIPT, "metadata": {"format": "text/html"}})
    ),
    "lone_surrogates": _spoiled(_set("work-1", source="hand_in('first', 42)  # \ud800")),
    "ten_thousand_cells": _spoiled(_add(_code("1"), 10_000), NOTHING, "more than 2000"),
    "huge_cell": _spoiled(_add(_code("#" * 2_000_000)), NOTHING, "more than 1000 kB"),
    "huge_notebook": Attack(b"[" + b" " * 51_000_000 + b"]", NOTHING, "more than 50 MB"),
    "cells_that_are_no_cells": _spoiled(lambda made: made["cells"].extend([1, None, [], {}])),
    "sources_that_are_no_texts": _spoiled(_add({"cell_type": "code", "source": {"a": 1}})),
    "nbformat_3": _spoiled(
        lambda made: made.update(nbformat=3, worksheets=[made.pop("cells")]),
        NOTHING, "nbformat 4",
    ),
    "nbformat_99": _spoiled(lambda made: made.update(nbformat=99), NOTHING, "nbformat 4"),
    "no_json": Attack(b"{'cells': []}", NOTHING, "damaged"),
    "deep_notebook": Attack(b'{"cells":' + b"[" * 10**6, NOTHING, "too deep|damaged"),
    "no_notebook": Attack(b"[1, 2]", NOTHING, "no list of cells"),
    "empty_file": Attack(b"", NOTHING, "damaged"),
    "utf_16": Attack(nbformat.writes(released()).encode("utf-16"), NOTHING, "UTF-8"),
    "binary": Attack(bytes(range(256)), NOTHING, "UTF-8"),
    "artifacts_handed_in": Attack(
        nbformat.writes(released()).encode(), NOTHING,
        files=(("answers/first.json", b"42"), ("./answers/second.json", b"7")),
    ),
    "modules_handed_in": Attack(
        nbformat.writes(released()).encode(), NOTHING,
        files=(("json.py", b"load = lambda f: 42"), ("sitecustomize.py", b"1 / 0")),
    ),
    "launcher_handed_in": Attack(
        nbformat.writes(released(**HONEST_WORK)).encode(), EARNED,
        files=tuple((name, b"raise SystemExit('mine')") for name in SHADOWS),
    ),
    "own_module_handed_in": Attack(
        nbformat.writes(released(
            work_1="import mine\nhand_in('first', mine.x)", work_2=HONEST_WORK["work_2"]
        )).encode(), EARNED, files=(("mine.py", b"x = 42"),),
    ),
    "path_that_leaves": Attack(
        nbformat.writes(released(**HONEST_WORK)).encode(), NOTHING, "leaves its folder",
        files=(("../../tmp/x", b"x"),),
    ),
    "absolute_path": Attack(
        nbformat.writes(released(**HONEST_WORK)).encode(), NOTHING, "leaves its folder",
        files=(("/tmp/x", b"x"),),
    ),
    "path_over_a_file": Attack(
        nbformat.writes(released(**HONEST_WORK)).encode(), NOTHING, "cannot be named",
        files=(("a", b"x"), ("a/b", b"x")),
    ),
}  # fmt: skip
