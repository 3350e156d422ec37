"""What a student gets back: nbgrader's page, without the hidden tests."""

import base64
import copy
import hashlib
import html
import math
import re
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import nbformat
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbgrader.converters import GenerateFeedback
from nbgrader.preprocessors import ClearHiddenTests, GetGrades
from nbgrader.utils import is_grade

from qlearn.grading.course import Course
from qlearn.grading.outputs import sentence

SHOWING_SECONDS = 60  # for a page: highlighting and Markdown can take hours on what is odd
# As PyTorch, ExecuTorch and glog write them: [W1127 10:00:00 file.cpp:12] words
# and ONNX Runtime, in colours: 2026-11-27 10:00:00 [E:onnxruntime:, file.cc:12 function] words
LOG = re.compile(
    r"^(?:[\[IWEFD].*\w\.(?:cpp|cc|cu|h):\d+\].*"
    r"|(?:\x1b\[[\d;]+m)?\d{4}-\d\d-\d\d .*\[[VIWEF]:onnxruntime:.*(?:\n?\x1b\[m)?)\n?",
    re.MULTILINE,
)
# A sentence is longer than a page is wide, and nobody scrolls a printed one.
WRAPPED = "<style>pre {white-space: pre-wrap !important; overflow-wrap: anywhere}</style>"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title></head><body>
<h1>{name}</h1><p>{reason}</p>
<p>The graded notebook cannot be shown here ({problem}). Its points are kept: ask for them.</p>
</body></html>
"""


class HideHiddenTests(ClearHiddenTests):
    """Strips hidden tests, and what they show; the message of an error stays.

    A model that prints would show the inputs that it was tested with.
    """

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Strip one cell."""
        # Work cells are the student's: such lines in them are neither ours nor an error.
        if is_grade(cell) and cell.cell_type == "code" and self._remove_hidden_test_region(cell):
            cell.outputs = [one for one in cell.outputs if one.output_type == "error"]
            for output in cell.outputs:
                output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


class SayUnread(Preprocessor):
    """Leaves out the score of a part that a person has yet to read."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Mark one cell."""
        if is_grade(cell) and cell.metadata.nbgrader.grade_id in resources["unread"]:
            cell.metadata.nbgrader.score = math.nan
        return cell, resources


class Tidy(Preprocessor):
    """Leaves out log lines of C++, and numbers cells on: work and tests have two kernels."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Tidy one cell."""
        if cell.cell_type != "code":
            return cell, resources
        if cell.execution_count is not None:
            cell.execution_count = resources["numbers"] = resources.get("numbers", 0) + 1
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
            if output.output_type == "stream":
                output.text = LOG.sub("", output.text)
        cell.outputs = [one for one in cell.outputs if one.get("text") != ""]
        return cell, resources


class SayLost(Preprocessor):
    """Puts a sentence about each part that lost points at the top."""

    def preprocess(
        self, notebook: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Add a cell when points were lost; those of unread parts are not."""
        lines = []
        for cell in filter(is_grade, notebook.cells):
            graded = cell.metadata.nbgrader
            if graded.score < graded.points:
                errors = [one for one in cell.get("outputs", []) if one.output_type == "error"]
                said = sentence(errors[0]) if errors else graded.get("comment")
                said = html.escape(said or "part of the points was given.")
                name = html.escape(graded.grade_id)
                place = f'<a href="#{name}">{name}</a>'
                lines.append(f"{place}, {graded.score:g} of {graded.points:g}: {said}")
        if lines:
            text = "**Where points were lost.**\n\n<pre>" + "\n".join(lines) + "</pre>"
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))
        return notebook, resources


class SayReason(Preprocessor):
    """Puts the reason why a submission could not be graded at the top."""

    def preprocess(
        self, notebook: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Add a cell when ``resources["reason"]`` is not empty."""
        if resources["reason"]:
            text = f"**Grading stopped.**\n\n<pre>{html.escape(resources['reason'])}</pre>"
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text))
        return notebook, resources


class Feedback:
    """Writes feedback pages with nbgrader's template.

    Parameters
    ----------
    course
        For its configuration.
    hidden_shown
        Whether hidden tests are shown.
    """

    def __init__(self, course: Course, hidden_shown: bool) -> None:
        converter = GenerateFeedback(coursedir=course.folders, parent=course.app)
        self._exporter = converter.exporter_class(parent=converter, config=converter.config)
        hiding = [] if hidden_shown else [HideHiddenTests]
        others = [step for step in converter.preprocessors if step is not GetGrades]
        for step in (*hiding, *others, SayUnread, Tidy, SayLost, SayReason):
            self._exporter.register_preprocessor(step, enabled=True)
        self._grades = GetGrades(parent=self._exporter)
        self._policy = _policy(self._exporter)

    def page(
        self,
        notebook: NotebookNode,
        resources: dict[str, Any],
        reason: str,
        unread: Collection[str],
    ) -> str:
        """Return the page of a graded notebook, or one that says why it cannot be shown.

        Parameters
        ----------
        notebook
            As in ``autograded``.
        resources
            From `ClassGradebook.resources`; call within its `transaction`.
        reason
            Why work was stopped or could not be graded, or empty.
        unread
            Parts that a person has yet to read.
        """
        # Before the rest, which may be given up: it reads the gradebook.
        notebook, resources = self._grades.preprocess(copy.deepcopy(notebook), resources)
        resources = {**resources, "reason": reason, "unread": unread}
        try:
            with _limited(SHOWING_SECONDS):
                page = self._exporter.from_notebook_node(notebook, resources)[0]
                page = page.replace("Score: nan /", "not read yet, of")
                page = page.replace("</head>", f"{WRAPPED}\n</head>", 1)
                return page.replace("<head>", f"<head>\n{self._policy}", 1)
        except Exception as error:  # whatever nbconvert raises at what a learner wrote
            problem = f"{type(error).__name__}: {str(error)[:200]}"
        words = {"name": resources["unique_key"], "reason": reason, "problem": problem}
        return PAGE.format(**{key: html.escape(word) for key, word in words.items()})


def _policy(exporter: HTMLExporter) -> str:
    """Return what lets a page run the template's own scripts, load MathJax, and nothing else."""
    names = {"notebook": "", "score": 0, "max_score": 0, "late_penalty": 0}
    resources = {"reason": "", "unread": (), "nbgrader": names}
    empty = exporter.from_notebook_node(nbformat.v4.new_notebook(), resources)[0]
    scripts = re.findall(r"<script[^>]*>(.+?)</script>", empty, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()) for one in scripts)
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    mathjax = "/".join(exporter.mathjax_url.split("/")[:3])
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; font-src data: {mathjax}; script-src {mathjax} {allowed}; "
        "base-uri 'none'; form-action 'none'\">"
    )


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so long; only the main thread, where a class is graded, can."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes longer than {seconds} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
