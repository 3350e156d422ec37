"""The notebook that is graded: the author's cells, and of the student's only what is work.

Test cells, given text, metadata and outputs never come from what was handed in. The reference
solution and the hidden tests are in none of the cells that the learner's kernel gets.
"""

import copy
import functools
import json
from typing import Any

import nbformat
from nbformat import NotebookNode

from qlearn.grading.markdown import INLINED, Texts
from qlearn.grading.outputs import text
from qlearn.grading.scratch import Refused

NOTEBOOK_MB = 50
CELLS = 2000
CELL_KB = 1000
ADDED = "added-"


def is_test(cell: NotebookNode) -> bool:
    """Say whether a cell's points come from what it says when it runs.

    Parameters
    ----------
    cell
        Of the source, or of what `joined` returned.
    """
    graded = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and graded.get("grade", False) and not graded.get("solution")


@functools.lru_cache(maxsize=4)
def read_source(content: bytes) -> NotebookNode:
    """Read the author's notebook; do not change what this returns.

    Parameters
    ----------
    content
        UTF-8 JSON.
    """
    return nbformat.reads(content.decode(), as_version=4)


@functools.lru_cache(maxsize=4)
def released(content: bytes) -> NotebookNode:
    """Return the author's notebook without solutions and hidden tests; do not change it.

    Parameters
    ----------
    content
        UTF-8 JSON.
    """
    from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme, ClearSolutions

    notebook = copy.deepcopy(read_source(content))
    notebook.metadata.setdefault("kernelspec", {}).setdefault("language", "python")
    for step in (ClearSolutions(), ClearHiddenTests(), ClearMarkScheme()):
        notebook, _ = step.preprocess(notebook, {})
    return notebook


def joined(source: bytes, submitted: bytes) -> NotebookNode:
    """Return the source's notebook with a student's work, without outputs.

    Cells stay in the student's order, and cells that the student added stay where they are.
    Of two cells with one ``grade_id`` the last one counts, as in nbgrader; the other runs as an
    added cell. What was deleted is there again: given cells as they were released, work cells
    with the released stub.

    Parameters
    ----------
    source
        The author's notebook.
    submitted
        The student's: anything.

    Raises
    ------
    Refused
        When it is no notebook, or larger than a notebook can reasonably be.
    """
    given = {_key(cell): cell for cell in released(source).cells}
    tests = {_key(cell): cell for cell in read_source(source).cells if is_test(cell)}
    cells: list[tuple[str | None, NotebookNode]] = []
    texts = Texts()
    for key, cell in _recognized(_read(submitted), given):
        if key is None and (_is_noise(cell) or _same(cell, given)):
            continue
        taken = _taken(given[key], cell, texts) if key else _added(cell, len(cells), texts)
        cells.append((key, tests.get(key, taken)))
    _restore(cells, {key: tests.get(key, cell) for key, cell in given.items()})
    notebook = nbformat.v4.new_notebook(metadata=copy.deepcopy(read_source(source).metadata))
    notebook.nbformat_minor = 5
    notebook.cells = [_clean(cell) for _, cell in cells]
    return notebook


def untouched(source: bytes) -> NotebookNode:
    """Return the source's notebook with nobody's work.

    Parameters
    ----------
    source
        The author's notebook.
    """
    return joined(source, nbformat.writes(nbformat.v4.new_notebook()).encode())


def unwritten(source: bytes, notebook: NotebookNode, student: str) -> list[str]:
    """Return notices on paragraphs that are as they were given, beside texts that were added."""
    texts = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "markdown"}
    if not any(name.startswith(ADDED) for name in texts):
        return []
    return [
        f"{student}: {cell.metadata.nbgrader.grade_id} is as it was given, beside added texts: "
        "look whether one of them is meant."
        for cell in released(source).cells
        if cell.metadata.get("nbgrader", {}).get("grade") and texts.get(cell.id) == cell.source
    ]


def _read(submitted: bytes) -> list[dict[str, Any]]:
    """Return the cells, each a dict with texts where texts are expected."""
    if len(submitted) > NOTEBOOK_MB * 10**6:
        raise Refused(f"The notebook has more than {NOTEBOOK_MB} MB.")
    try:
        notebook = json.loads(submitted.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Refused("The notebook is no text in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        kind = "too deep" if isinstance(error, RecursionError) else "damaged"
        raise Refused(f"The notebook is no JSON that can be read: it is {kind}.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Refused("The notebook has no list of cells; it must be of nbformat 4.")
    if notebook.get("nbformat") != 4:
        raise Refused("The notebook is not of nbformat 4: it must be saved in JupyterLab again.")
    if len(notebook["cells"]) > CELLS:
        raise Refused(f"The notebook has {len(notebook['cells'])} cells, more than {CELLS}.")
    return [_plain(cell) for cell in notebook["cells"] if isinstance(cell, dict)]


def _plain(cell: dict[str, Any]) -> dict[str, Any]:
    source = cell.get("source", "")
    source = "".join(map(text, source)) if isinstance(source, list) else text(source)
    if cell.get("cell_type") == "markdown":
        source = INLINED.sub("data:image", source)
    if len(source) > CELL_KB * 1000:
        raise Refused(f"A cell of the notebook has more than {CELL_KB} kB of text.")
    metadata = cell.get("metadata")
    graded = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = graded.get("grade_id") if isinstance(graded, dict) else None
    return {
        "cell_type": cell.get("cell_type"),
        "source": source.replace("\0", ""),
        "attachments": cell.get("attachments"),
        "keys": [f"graded {text(name)}", f"cell {text(cell.get('id'))}"],
    }


def _key(cell: NotebookNode) -> str:
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    return f"graded {name}" if name else f"cell {cell.id}"


def _recognized(
    cells: list[dict[str, Any]], given: dict[str, NotebookNode]
) -> list[tuple[str | None, dict[str, Any]]]:
    """Pair each cell with the key of the author's cell that it stands for.

    A cell that has lost its metadata may have kept its id, and one without an id its text.
    """
    named = {key for cell in cells for key in cell["keys"] if key in given}
    by_id = {f"cell {cell.id}": key for key, cell in given.items() if key not in named}
    by_text = {cell.source: key for key, cell in given.items() if key.startswith("cell ")}
    pairs, seen = [], set()
    for cell in reversed(cells):
        keys = [key for key in cell["keys"] if key in given]
        key = keys[0] if keys else by_id.get(cell["keys"][1]) or by_text.get(cell["source"])
        pairs.append((None if key in seen else key, cell))
        seen.add(key)
    return pairs[::-1]


def _is_noise(cell: dict[str, Any]) -> bool:
    """Say whether an added cell is nothing to keep; raw cells would be shown as HTML."""
    return cell["cell_type"] not in ("code", "markdown") or not cell["source"].strip()


def _same(cell: dict[str, Any], given: dict[str, NotebookNode]) -> bool:
    """Say whether a second cell is a mere copy of one of the author's."""
    return any(key in given and given[key].source == cell["source"] for key in cell["keys"])


def _taken(given: NotebookNode, cell: dict[str, Any], texts: Texts) -> NotebookNode:
    """Return the author's cell with what of the student's counts."""
    graded = given.metadata.get("nbgrader", {})
    taken = copy.deepcopy(given)
    mine = graded.get("solution") or (not graded and given.cell_type == "code")
    if not mine or cell["source"] == given.source:
        return taken
    taken.source = cell["source"]
    if given.cell_type == "markdown":
        taken.attachments = texts.pictures(cell["attachments"])
        taken.source = texts.harmless(taken.source, taken.attachments)
    return taken


def _added(cell: dict[str, Any], number: int, texts: Texts) -> NotebookNode:
    name, source = f"{ADDED}{number}", cell["source"]
    if cell["cell_type"] == "code":
        return nbformat.v4.new_code_cell(source, id=name)
    pictures = texts.pictures(cell["attachments"])
    source = texts.harmless(source, pictures)
    return nbformat.v4.new_markdown_cell(source, id=name, attachments=pictures)


def _restore(cells: list[tuple[str | None, NotebookNode]], given: dict[str, NotebookNode]) -> None:
    """Put each of the author's cells that is missing after the one that it followed."""
    before = None
    for key, cell in given.items():
        places = [place for place, (name, _) in enumerate(cells) if name == key]
        if not places:
            names = [name for name, _ in cells]
            cells.insert(names.index(before) + 1 if before else 0, (key, cell))
        before = key


def _clean(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    if cell.metadata.get("nbgrader"):
        cell.metadata.nbgrader.cell_type = cell.cell_type  # as nbgrader's releases have it
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell
