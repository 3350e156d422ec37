"""Groups of near-identical work, for a person to look at; nothing here is a judgement."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist
from scipy.sparse.csgraph import connected_components

from qlearn.grading import intake
from qlearn.grading.course import Course
from qlearn.grading.folders import digest
from qlearn.grading.notebooks import is_test, joined, released
from qlearn.grading.scratch import ANSWERS
from qlearn.grading.scratch import Refused as Damaged

ALIKE = 0.9  # share of tokens in common from which two are listed
TOKENS = 50  # shorter work is the same by itself
# A line of IPython's; IPython takes the square of their number to read them.
MAGIC = re.compile(
    r"^([ \t]*(?:[\w.,]+ *= *)?)(?:!(?!=).*|%\w.*|\?.*|[\w.%]+\?{1,2}[ \t]*$)", re.MULTILINE
)
WORDS = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP)


class Group(NamedTuple):
    """Students whose work is alike: the smallest share of tokens, or the artifacts in common."""

    students: tuple[str, ...]
    alike: float
    artifacts: tuple[str, ...]

    @property
    def what(self) -> str:
        """What is alike, in words."""
        return ", ".join(self.artifacts) or f"{self.alike:.0%} of the code"


def groups(course: Course, exercise: str) -> list[Group]:
    """Return who handed in near-identical work of an exercise.

    Names that the learner gave, comments and layout do not count. Artifacts are compared by their
    content; what more than half of the class has in common follows from the exercise.
    """
    source = course.source(exercise).read_bytes()
    tokens, digests = {}, {}
    for student, place in course.submissions(exercise).items():
        try:
            files, _ = intake.read(course.submitted, place, f"{exercise}.ipynb")
            tokens[student] = tokens_of(work(source, files.pop(f"{exercise}.ipynb")))
        except (intake.Refused, Damaged, OSError):
            continue  # its verdict says so
        digests[student] = {name: digest(content) for name, content in files.items()
                            if Path(name).parts[0] == ANSWERS}  # fmt: skip
    return [*_alike(tokens), *_shared(digests)]


def report(exercise: str) -> None:
    """Print the groups of an exercise of the working folder's course."""
    found = groups(Course.here(), exercise)
    print("\nNear-identical work, for a person to look at: there may be good reasons.")
    for group in found:
        print(f"{', '.join(map(intake.shown, group.students))}: {group.what}")
    if not found:
        print("None was found.")


def work(source: bytes, submitted: bytes) -> list[str]:
    """Return the code that a student wrote: cells that were to be written, and added ones."""
    given = {cell.id: cell.source for cell in released(source).cells}
    return [
        cell.source for cell in joined(source, submitted).cells
        if cell.cell_type == "code" and not is_test(cell)
        and (cell.id not in given or cell.metadata.get("nbgrader", {}).get("solution"))
        and cell.source != given.get(cell.id)
    ]  # fmt: skip


def tokens_of(cells: list[str]) -> list[str]:
    """Return the tokens of some code, with one word for every name that the code itself binds."""
    parsed = [_parsed(cell) for cell in cells]
    nodes = [node for _, tree in parsed for node in ast.walk(tree)]
    own = {node.id for node in nodes if isinstance(node, ast.Name)
           and isinstance(node.ctx, ast.Store)}  # fmt: skip
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found = [""]
    for code, _ in parsed:
        # What cannot be parsed may end in the middle of a token.
        with suppress(SyntaxError, tokenize.TokenError):
            for token in tokenize.generate_tokens(io.StringIO(code).readline):
                if token.type in WORDS:
                    named = token.string in own and found[-1] != "."
                    found.append("own" if named else token.string)
    return found[1:]


def _parsed(cell: str) -> tuple[str, ast.AST]:
    """Return a cell's code in one layout, and its tree; as it is where that cannot be."""
    from IPython.core.inputtransformer2 import TransformerManager

    cell = MAGIC.sub(r"\1None", re.sub(r"\A\s*%%.*", "", cell))  # first the magic of a whole cell
    try:
        tree = ast.parse(TransformerManager().transform_cell(cell))
        return ast.unparse(tree), tree
    except Exception:  # such as a RecursionError at a long sum
        return cell, ast.Module([], [])


def _alike(tokens: Mapping[str, list[str]]) -> list[Group]:
    students = [student for student, found in tokens.items() if len(found) >= TOKENS]
    if not students:
        return []
    texts = [tokens[student] for student in students]
    shares = cdist(texts, texts, scorer=Indel.normalized_similarity, score_cutoff=ALIKE)
    count, labels = connected_components(shares >= ALIKE, directed=False)
    found = []
    for label in range(count):
        (places,) = np.nonzero(labels == label)
        if len(places) > 1:
            links = shares[np.ix_(places, places)]
            found.append(Group(tuple(students[place] for place in places),
                               float(links[links >= ALIKE].min()), ()))  # fmt: skip
    return found


def _shared(digests: Mapping[str, Mapping[str, str]]) -> list[Group]:
    """Return who has the same artifacts, as files."""
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for student, files in digests.items():
        for name, content in files.items():
            holders[name, content].append(student)
    names: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (name, _), students in holders.items():
        total = sum(name in files for files in digests.values())
        if 1 < len(students) <= total / 2:
            names[tuple(students)].append(name)
    return [Group(students, 1.0, tuple(sorted(some))) for students, some in names.items()]
