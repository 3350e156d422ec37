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
    given = Path(exercise.removesuffix(".ipynb"))
    exercise, name = given.name, f"{given.name}.ipynb"
    places = [given.parent, COURSE / "notebooks" / "exercises" / exercise]
    folder = next((place for place in places if (place / name).is_file()), None)
    if folder is None:
        raise FileNotFoundError(f"There is no {name} here: change to the folder of your notebook.")
    cells = _cells(folder / name)
    candidates = sorted(path for path in (folder / FOLDER).glob("[!.]*") if path.is_file())
    answers = Answers(path for path in candidates if path.suffix in KINDS)
    handed_in = [answer.path for answer in answers.values()]
    _require_saved(folder / name, handed_in)
    beside, left = _others(folder)
    # Answers come first, and once: they go with the notebook even where they are links.
    paths = list(dict.fromkeys([folder / name, *handed_in, *beside]))
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
    _write(Path(f"{exercise}.zip").resolve(), paths, folder)
    saved = datetime.fromtimestamp((folder / name).stat().st_mtime)
    others = len(paths) - 1 - len(answers)
    words = f"{exercise}.zip: the notebook as it was saved at {saved:%H:%M} on {saved:%Y-%m-%d}; "
    words += f"answers: {len(answers)}, other files: {others}; {size:.1f} MB."
    left = [there for there in left if there not in (name, f"{exercise}.zip", FOLDER)]
    said = [f"Left out: {', '.join(left)} (links, archives and other notebooks)."] if left else []
    return "\n".join([words, *_missing(cells, set(answers)), *said])


def _write(archive: Path, paths: list[Path], folder: Path) -> None:
    with write_whole(archive) as unfinished:
        # ZIP knows the years 1980 to 2107 only: a file of another time gets the nearest.
        with ZipFile(unfinished, "w", ZIP_DEFLATED, strict_timestamps=False) as file:
            for path in paths:
                file.write(path, path.relative_to(folder).as_posix())


def _cells(path: Path) -> list[str]:
    """Return the source of the code cells that are the learner's."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
        own = [cell for cell in cells if cell["cell_type"] == "code"
               and not (cell["metadata"].get("nbgrader") or {}).get("locked")]  # fmt: skip
        return ["".join(cell["source"]) for cell in own]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
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


def _others(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files beside the notebook that go with it, and what does not; nothing hidden."""
    found, left = [], []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if any(part.startswith((".", "__pycache__")) for part in place.parts):
            continue
        # What a link leads to may lie anywhere, and be of somebody else.
        if path.is_symlink() or path.suffix.lower() in (".ipynb", ".zip"):
            left.append(place.as_posix())
        elif path.is_file():
            found.append(path)
    return found, left


def _missing(cells: list[str], there: set[str]) -> list[str]:
    """Return sentences about answers that a cell hands in and that are not there, and stubs."""
    wanted = {}  # names in the order of the notebook
    for cell in cells:
        try:
            calls = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # a magic, for example
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
