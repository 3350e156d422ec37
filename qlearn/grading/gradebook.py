"""nbgrader's gradebook, written by the coordinator alone: one transaction per submission.

Scores and late penalties are saved by nbgrader's own preprocessors. Each of them opens the
gradebook and commits several times; here they work within one transaction, so that a grade is there
whole or not at all, and beside it what was graded, so that it is not graded twice.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import nbgrader.api
import sqlalchemy
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import AssignLatePenalties, OverwriteCells, SaveAutoGrades, SaveCells
from sqlalchemy.orm import scoped_session, sessionmaker

from qlearn.grading.course import Course
from qlearn.grading.folders import digest

LOCK_TIMEOUT = 30  # seconds to wait for another program that writes to the gradebook
UNREADABLE = "The gradebook cannot be read"
_USERS = ("savecells", "overwritecells", "saveautogrades", "latesubmissions", "getgrades")

_records = sqlalchemy.Table(
    "qlearn_verdict",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("exercise", sqlalchemy.String(128), primary_key=True),
    sqlalchemy.Column("student", sqlalchemy.String(128), primary_key=True),
    # Digest of what was graded and with what, its limits, and digests of what came of it.
    sqlalchemy.Column("content", sqlalchemy.String(64)),
    sqlalchemy.Column("limits", sqlalchemy.Text),
    sqlalchemy.Column("autograded", sqlalchemy.String(64)),
    sqlalchemy.Column("feedback", sqlalchemy.String(64)),
    sqlalchemy.Column("hidden_shown", sqlalchemy.Boolean),
    # Digest of the scores and comments that the feedback shows; a person may give others.
    sqlalchemy.Column("given", sqlalchemy.String(64)),
    sqlalchemy.Column("reason", sqlalchemy.Text),
    sqlalchemy.Column("seconds", sqlalchemy.Float),  # that grading took, on the clock
)


class ClassGradebook(Gradebook):
    """A gradebook that stays open, in which everything happens within `transaction`.

    Parameters
    ----------
    course
        Whose gradebook.
    """

    def __init__(self, course: Course) -> None:
        _create(course)
        super().__init__(course.folders.db_url, course.folders.course_id)
        self.course = course
        if self.engine.dialect.name == "sqlite":

            @sqlalchemy.event.listens_for(self.engine, "connect")
            def _(connection: Any, _record: Any) -> None:
                connection.isolation_level = None  # or Python decides where transactions begin
                connection.execute(f"PRAGMA busy_timeout = {round(LOCK_TIMEOUT * 1000)}")

            @sqlalchemy.event.listens_for(self.engine, "begin")
            def _(connection: sqlalchemy.Connection) -> None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")

            self.db.remove()
            self.engine.dispose()
        with self.engine.begin() as connection:
            _records.create(connection, checkfirst=True)
            there = sqlalchemy.inspect(connection).get_columns(_records.name)
            for column in {*_records.columns.keys()} - {one["name"] for one in there}:
                kind = _records.columns[column].type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {_records.name} ADD {column} {kind}")

    def close(self) -> None:
        """Do nothing: nbgrader's preprocessors close the gradebook that they are given."""

    @contextmanager
    def transaction(self) -> Iterator[sqlalchemy.Connection]:
        """Keep all that happens within, or nothing if it raises."""
        with ExitStack() as stack:
            connection = stack.enter_context(self.engine.begin())
            # Commits of the session write, and only the transaction's end keeps.
            session = sessionmaker(
                bind=connection, future=True, join_transaction_mode="rollback_only"
            )
            self.db = scoped_session(session)
            stack.callback(self.db.remove)
            stack.enter_context(warnings.catch_warnings())
            # nbgrader adds a submission before its notebooks, which does no harm.
            warnings.filterwarnings("ignore", ".*not in session", sqlalchemy.exc.SAWarning)
            stack.enter_context(_own_errors())
            for name in _USERS:
                module = importlib.import_module(f"nbgrader.preprocessors.{name}")
                stack.enter_context(patch.object(module, "Gradebook", lambda _url: self))
            yield connection

    def register(self, exercise: str, source: bytes) -> NotebookNode:
        """Save an exercise's cells and points as ``nbgrader generate_assignment`` does.

        Returns
        -------
        NotebookNode
            The exercise without solutions, its hidden tests still there.

        Raises
        ------
        RuntimeError
            When cells came or went since submissions were graded.
        """
        converter = GenerateAssignment(coursedir=self.course.folders, parent=self.course.app)
        exporter = NotebookExporter(parent=converter, config=converter.config)
        for step in converter.preprocessors[: converter.preprocessors.index(SaveCells) + 1]:
            exporter.register_preprocessor(step)
        notebook = nbformat.reads(source.decode(), as_version=4)
        with self.transaction():
            self.update_or_create_assignment(exercise)
            released, _ = exporter.from_notebook_node(notebook, self.resources(exercise, "."))
        return nbformat.reads(released, as_version=4)

    def resources(self, exercise: str, student: str) -> dict[str, Any]:
        """Return what nbgrader's preprocessors want to know about a notebook."""
        names = {"assignment": exercise, "notebook": exercise, "student": student}
        return {"unique_key": exercise, "nbgrader": {**names, "db_url": self.course.folders.db_url}}

    def records(self, exercise: str) -> dict[str, dict[str, Any]]:
        """Return by student what was graded, where the gradebook still has the submission."""
        with self.transaction() as connection:
            kept = {found.student_id for found in self.assignment_submissions(exercise)}
            rows = connection.execute(
                sqlalchemy.select(_records).where(_records.c.exercise == exercise)
            )
            return {row.student: row._asdict() for row in rows if row.student in kept}

    def save(self, record: dict[str, Any], notebook: NotebookNode, timestamp: Any) -> NotebookNode:
        """Save the grades of an executed notebook; call within `transaction`.

        Parameters
        ----------
        record
            ``exercise``, ``student``, and the rest of what `records` returns.
        notebook
            Work of the student, and outputs of all cells.
        timestamp
            When it was handed in, or None.

        Returns
        -------
        NotebookNode
            The notebook as nbgrader keeps it.
        """
        exercise, student = record["exercise"], record["student"]
        self.update_or_create_student(student)
        when = {} if timestamp is None else {"timestamp": timestamp}
        self.update_or_create_submission(exercise, student, **when)
        resources = self.resources(exercise, student)
        for step in (OverwriteCells, SaveAutoGrades, AssignLatePenalties):
            notebook, resources = step(parent=self.course.app).preprocess(notebook, resources)
        return notebook

    def unread(self, exercise: str, student: str) -> list[str]:
        """Return the parts that a person has yet to read; call within `transaction`."""
        notebook = self.find_submission_notebook(exercise, exercise, student)
        waiting = [grade for grade in notebook.grades if grade.needs_manual_grade]
        return [one.name for one in waiting if one.auto_score is one.manual_score is None]

    def given(self, exercise: str, student: str) -> str:
        """Return a digest of scores, comments and penalty; call within `transaction`."""
        notebook = self.find_submission_notebook(exercise, exercise, student)
        grades = sorted((one.name, one.score, one.needs_manual_grade) for one in notebook.grades)
        comments = sorted((comment.name, comment.comment) for comment in notebook.comments)
        return digest(repr((grades, comments, notebook.late_submission_penalty)).encode())

    def remember(self, record: dict[str, Any]) -> None:
        """Save what was graded; call within `transaction`."""
        same = (_records.c.exercise == record["exercise"]) & (
            _records.c.student == record["student"]
        )
        connection = self.db.connection()
        connection.execute(sqlalchemy.delete(_records).where(same))
        connection.execute(sqlalchemy.insert(_records).values(**record))


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what the database raised, where nbgrader logs it and raises another."""
    with patch.object(nbgrader.api.app_log, "disabled", True):
        try:
            yield
        except nbgrader.api.InvalidEntry as error:
            if isinstance(error.__context__, sqlalchemy.exc.OperationalError):
                raise error.__context__ from None
            raise


def _create(course: Course) -> None:
    """Make a new gradebook under another name first: nbgrader takes several steps."""
    address = sqlalchemy.make_url(course.folders.db_url)
    if address.get_backend_name() != "sqlite" or not address.database:
        return
    path = Path(address.database)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    # nbgrader runs the program alembic, which is beside this Python, activated or not.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with patch.dict(os.environ, PATH=programs):
        Gradebook(address.set(database=str(new)), course.folders.course_id).close()
    new.rename(path)
