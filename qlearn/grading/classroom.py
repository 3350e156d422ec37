"""A class and one exercise: what was handed in goes out, each verdict that comes back is kept."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.utils import is_grade
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from qlearn.grading import intake, timestamps
from qlearn.grading.clock import Slow
from qlearn.grading.course import Course
from qlearn.grading.fanout import Fanout
from qlearn.grading.feedback import Feedback
from qlearn.grading.folders import content_of, digest, digest_of, place
from qlearn.grading.gradebook import ClassGradebook
from qlearn.grading.notebooks import unwritten
from qlearn.grading.progress import Line
from qlearn.grading.records import Exercise, Submission, Verdict
from qlearn.grading.sandbox import SandboxUnavailable
from qlearn.grading.scratch import NAMES


class Classroom:
    """One exercise of a class.

    Parameters
    ----------
    course, exercise
        Whose, and which.
    limits
        In words: a submission that was stopped under other limits is graded again.
    hidden_shown
        Whether feedback shows hidden tests.
    force
        Whether to grade again what has not changed.
    variants_by_id
        Whether a student's variant is drawn from their id, whatever name is in the notebook.
    """

    def __init__(
        self, course: Course, exercise: str, limits: str, hidden_shown: bool, force: bool,
        variants_by_id: bool,
    ) -> None:  # fmt: skip
        self.course = course
        self.exercise = Exercise(exercise, _source(course.source(exercise)))
        self.places = course.submissions(exercise)
        self.notices: list[str] = []  # about what was handed in and is graded all the same
        self._limits, self._hidden_shown, self._force = limits, hidden_shown, force
        self._variants_by_id = variants_by_id
        self._extras = course.extras(exercise)
        self._gradebook = ClassGradebook(course)
        self._released = self._gradebook.register(exercise, self.exercise.source)
        self._records = self._gradebook.records(exercise)
        self._feedback = Feedback(course, hidden_shown)
        self._settled: list[Line] = []

    def lines(self, students: Collection[str], fanout: Callable[[], Fanout]) -> Iterator[Line]:
        """Grade what these students handed in.

        Parameters
        ----------
        students
            Some of ``places``.
        fanout
            Makes the cluster, if there is anything to send.

        Yields
        ------
        Line
            For each submission, when its grade is kept.
        """
        todo = self._todo(students)
        first = next(todo, None)
        yield from self._take_settled()
        if first is None:
            return
        with fanout() as fan:
            for submission, outcome in fan.verdicts(chain([first], todo)):
                yield from self._take_settled()
                if isinstance(outcome, SandboxUnavailable):
                    raise outcome  # nothing that follows would fare better
                if isinstance(outcome, Verdict):
                    outcome = self._tried(submission.student, self._keep, submission, outcome)
                yield outcome if isinstance(outcome, Line) else _failed(submission.student, outcome)
        yield from self._take_settled()

    def _take_settled(self) -> Iterator[Line]:
        while self._settled:
            yield self._settled.pop(0)

    def _todo(self, students: Collection[str]) -> Iterator[Submission]:
        """Yield what must be graded; settle all else."""
        for student in students:
            found = self._tried(student, self._settle, student)
            if isinstance(found, Submission):
                yield found
            else:
                self._settled.append(found)

    def _settle(self, student: str) -> Submission | Line:
        """Return what must be graded, or what has become of it already."""
        try:
            student.encode()
        except UnicodeEncodeError:
            return Line(student, "failed", reason="the folder's name is not UTF-8: rename it")
        try:
            submission = self._read(student)
        except intake.Refused as refused:
            submission = Submission(student, self.exercise.name, str(refused).encode())
            return self._unchanged(submission) or self._refuse(submission, str(refused))
        except OSError as error:
            return Line(student, "failed", reason=str(error))
        return self._unchanged(submission) or submission

    def _tried(self, student: str, step: Callable[..., Any], *words: Any) -> Any:
        """Return what a step returns, or that it failed; raise what would meet every student.

        A learner's work must not stop the class, whatever it makes the libraries raise.
        """
        try:
            return step(*words)
        except Exception as error:
            if _stops_all(error):
                raise
            return _failed(student, error)

    def _read(self, student: str) -> Submission:
        name = f"{self.exercise.name}.ipynb"
        ignored = self.course.folders.ignore
        files, called = intake.read(self.course.submitted, self.places[student], name, ignored)
        renamed = f"{intake.shown(called)} was taken for {name}" if called else ""
        undated = timestamps.read(files)[1]
        undated = f"{undated}, so it counts as in time" if undated else ""
        self.notices += [f"{intake.shown(student)}: {one}." for one in (renamed, undated) if one]
        notebook, files = files.pop(name), {**files, **self._extras}
        learner = student if self._variants_by_id else ""
        return Submission(student, self.exercise.name, notebook, files, learner)

    def _unchanged(self, submission: Submission) -> Line | None:
        """Say so if its grade is kept; renew feedback that shows other scores or comments."""
        record = self._records.get(submission.student)
        autograded = self._folder("autograded", submission.student)
        path = autograded / f"{self.exercise.name}.ipynb"
        if self._force or record is None:
            return None
        if record["content"] != content_of(submission, self.exercise):
            return None
        if record["reason"] and record["limits"] != self._limits:
            return None
        if digest_of(path) != record["autograded"]:
            return None
        page = self._folder("feedback", submission.student) / f"{self.exercise.name}.html"
        shown = (digest_of(page), self._hidden_shown)
        with self._gradebook.transaction():
            given = self._gradebook.given(self.exercise.name, submission.student)
            if (*shown, given) != (record["feedback"], record["hidden_shown"], record["given"]):
                record = {**record, "hidden_shown": self._hidden_shown}
                self._give_back(record, nbformat.read(path, as_version=4), submission.files)
            return self._line(submission.student, "unchanged", record["reason"])

    def _refuse(self, submission: Submission, reason: str) -> Line:
        """Keep no points for a submission that cannot be read, and the reason."""
        notebook = nbformat.reads(nbformat.writes(self._released), as_version=4)
        error = nbformat.v4.new_output("error", ename="NotGraded", evalue=reason)
        error.traceback = [reason]
        for cell in notebook.cells:
            if is_grade(cell) and cell.cell_type == "code":
                cell.outputs = [error]
        written = nbformat.writes(notebook).encode()
        return self._keep(
            submission, Verdict(submission.student, self.exercise.name, written, {}, reason)
        )

    def _keep(self, submission: Submission, verdict: Verdict) -> Line:
        """Keep a verdict: grades, the graded notebook and feedback, or nothing of it."""
        record = {
            "exercise": self.exercise.name,
            "student": submission.student,
            "content": content_of(submission, self.exercise),
            "limits": self._limits,
            "hidden_shown": self._hidden_shown,
            "reason": verdict.reason,
            "seconds": verdict.seconds,
        }
        notebook = nbformat.reads(verdict.notebook.decode(), as_version=4)
        self.notices += unwritten(self.exercise.source, notebook, intake.shown(submission.student))
        with self._gradebook.transaction():
            # The files first: if their record does not follow, the next call grades again.
            notebook = self._gradebook.save(record, notebook, timestamps.read(submission.files)[0])
            name = f"{self.exercise.name}.ipynb"
            files = {**submission.files, name: nbformat.writes(notebook).encode()}
            place(self._folder("autograded", submission.student), files, 0o444)
            record["autograded"] = digest(files[name])
            self._give_back(record, notebook, submission.files)
            outcome = "stopped" if verdict.reason else "graded"
            line = self._line(submission.student, outcome, verdict.reason)
        measured = {key: getattr(verdict, key) for key in ("seconds", "cpu_seconds", "peak_mb")}
        return replace(line, **measured)

    def _give_back(self, record: dict[str, Any], notebook: Any, files: Mapping[str, bytes]) -> None:
        """Write the feedback, then the record; call within a transaction."""
        name, student = self.exercise.name, record["student"]
        resources = self._gradebook.resources(name, student)
        unread = self._gradebook.unread(name, student)
        page = self._feedback.page(notebook, resources, record["reason"], unread).encode()
        stamp = {key: files[key] for key in (intake.TIMESTAMP,) if key in files}
        place(self._folder("feedback", student), {**stamp, f"{name}.html": page}, 0o644)
        given = self._gradebook.given(name, student)
        self._gradebook.remember({**record, "feedback": digest(page), "given": given})

    def _line(self, student: str, outcome: str, reason: str) -> Line:
        """Read what the gradebook has; call within a transaction."""
        name = self.exercise.name
        graded = self._gradebook.find_submission_notebook(name, name, student)
        to_read = sum(grade.needs_manual_grade for grade in graded.grades)
        return Line(student, outcome, graded.score, graded.max_score, to_read, reason)

    def _folder(self, step: str, student: str) -> Path:
        return self.course.folder(step, student, self.exercise.name)


def _stops_all(error: Exception) -> bool:
    """Say whether disk or database, not what one student handed in, is the matter."""
    if isinstance(error, OSError):
        return error.errno not in NAMES
    return isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, DataError))


def _failed(student: str, error: object) -> Line:
    if isinstance(error, Slow):
        words = f"{error} It was tried twice, once alone: grade again when the machine is quiet."
        return Line(student, "failed", reason=words)
    return Line(student, "failed", reason=f"{type(error).__name__}: {error}")


def _source(path: Path) -> bytes:
    """Return the author's notebook; raise RuntimeError when it is none."""
    content = path.read_bytes()
    try:
        nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # JSON, Unicode, nbformat: each has its own
        raise RuntimeError(
            f"{path} is no notebook ({type(error).__name__}): open it in JupyterLab, or take it "
            "from version control."
        ) from None
    return content
