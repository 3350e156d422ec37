"""`qlearn pack`: the zip file that a learner hands in, with a notebook that is saved."""

import ast
import json
from datetime import datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from qlearn.exercises.reading import FOLDER, KINDS, LIMIT_MB, Answers
from qlearn.system.cache import write_whole
from qlearn.system.lab import COURSE

FILES, TOTAL_MB = 500, 100  # that are graded, as `qlearn.grading.intake` says, which Windows lacks
SAVING_SECONDS = 5  # an answer may be so much newer than the notebook, which is saved as it is run


def pack(exercise: str) -> str:
    """Write ``EXERCISE.zip`` into the working folder: notebook, answers and what lies beside them.

    Returns
    -------
    str
        What is in it, and what is missing, for the learner.

    Raises
    ------
    FileNotFoundError
        When there is no such notebook.
    ValueError
        When it is not saved or damaged, or the files are too large: in one sentence.
    """
    name = f"{exercise}.ipynb"
    places = [Path(), COURSE / "notebooks" / "exercises" / exercise]
    folder = next((place for place in places if (place / name).is_file()), None)
    if folder is None:
        raise FileNotFoundError(f"There is no {name} here: change to the folder of your notebook.")
    answers = Answers(path for path in (folder / FOLDER).glob("*") if path.suffix in KINDS)
    cells = _cells(folder / name)
    _require_saved(folder / name, [answer.path for answer in answers.values()])
    paths = [folder / name, *_others(folder)]
    size = sum(path.stat().st_size for path in paths) / 10**6
    large = [one.path.name for one in answers.values() if one.size_mb > LIMIT_MB]
    if large or size > TOTAL_MB or len(paths) > FILES:
        raise ValueError(
            f"{len(paths)} files with {size:.0f} MB are too much, {FILES} with {TOTAL_MB} MB may "
            f"be handed in: take out what is not needed of {folder.resolve()}."
        )
    for files in answers.files.values():
        if len(files) > 1:
            raise ValueError(f"{' and '.join(path.name for path in files)} are one answer twice: "
                             "remove the one that you do not mean.")  # fmt: skip
    with write_whole(Path(f"{exercise}.zip").resolve()) as unfinished:
        with ZipFile(unfinished, "w", ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, path.relative_to(folder).as_posix())
    saved = datetime.fromtimestamp((folder / name).stat().st_mtime)
    others = len(paths) - 1 - len(answers)
    words = f"{exercise}.zip: the notebook as it was saved at {saved:%H:%M} on {saved:%Y-%m-%d}; "
    words += f"answers: {len(answers)}, other files: {others}; {size:.1f} MB."
    return "\n".join([words, *_missing(cells, set(answers))])


def _cells(path: Path) -> list[str]:
    """Return the source of the code cells that are the learner's."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        own = [cell for cell in cells if cell["cell_type"] == "code"
               and not cell["metadata"].get("nbgrader", {}).get("locked")]  # fmt: skip
        return ["".join(cell["source"]) for cell in own]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(
            f"{path.name} cannot be read as a notebook: open it in JupyterLab and save it again."
        ) from None


def _require_saved(notebook: Path, answers: list[Path]) -> None:
    """Raise ValueError if the notebook was run, or a copy of it kept, after it was saved."""
    checkpoint = notebook.parent / ".ipynb_checkpoints" / f"{notebook.stem}-checkpoint.ipynb"
    newest = notebook.stat().st_mtime + SAVING_SECONDS
    for path in (checkpoint, *answers):
        if path.exists() and path.stat().st_mtime > newest:
            raise ValueError(
                f"{notebook.name} was last saved before {path.name} was written: save it in "
                "JupyterLab (Ctrl+S), and pack again."
            )


def _others(folder: Path) -> list[Path]:
    """Return the files beside the notebook that go with it: no other notebook, nothing hidden."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "__pycache__")) for part in parts)
        if path.is_file() and not path.is_symlink() and not hidden:
            found += [path] if path.suffix not in (".ipynb", ".zip") else []
    return found


def _missing(cells: list[str], there: set[str]) -> list[str]:
    """Return sentences about answers that a cell hands in and that are not there, and stubs."""
    wanted = {}  # names in the order of the notebook
    for cell in cells:
        try:
            calls = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
        except SyntaxError:  # a magic, for example
            continue
        for call in calls:
            named = call.args and isinstance(call.args[0], ast.Constant)
            if named and getattr(call.func, "attr", "") == "submit":
                wanted[call.args[0].value] = None
    lacking = [repr(name) for name in wanted if name not in there]
    stubs = sum("raise NotImplementedError" in cell for cell in cells)
    sentences = [f"Not in it, as no cell has handed it in yet: {', '.join(lacking)}."]
    sentences = sentences if lacking else []
    return sentences + ([f"Cells that still wait for your code: {stubs}."] if stubs else [])
