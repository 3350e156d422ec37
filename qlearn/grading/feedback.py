"""What a student gets back: nbgrader's page, without the hidden tests."""

import html
from typing import Any

import nbformat
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbgrader.converters import GenerateFeedback
from nbgrader.preprocessors import ClearHiddenTests
from nbgrader.utils import is_grade

from qlearn.grading.course import Course


class HideHiddenTests(ClearHiddenTests):
    """Strips hidden tests, and the lines of them that a traceback shows; the message stays."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Strip one cell."""
        # Work cells are the student's: such lines in them are neither ours nor an error.
        if is_grade(cell) and cell.cell_type == "code" and self._remove_hidden_test_region(cell):
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


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
        for step in (*hiding, *converter.preprocessors, SayReason):
            self._exporter.register_preprocessor(step, enabled=True)

    def page(self, notebook: NotebookNode, resources: dict[str, Any], reason: str) -> str:
        """Return the page of a graded notebook.

        Parameters
        ----------
        notebook
            As in ``autograded``.
        resources
            From `ClassGradebook.resources`; call within its `transaction`.
        reason
            Why work was stopped or could not be graded, or empty.
        """
        page, _ = self._exporter.from_notebook_node(notebook, {**resources, "reason": reason})
        return page
