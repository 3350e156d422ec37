"""`qlearn grade`: one coordinator, its cluster, and the person at the terminal."""

import errno
import fcntl
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy.exc import DBAPIError

from qlearn.grading.classroom import Classroom
from qlearn.grading.course import Course
from qlearn.grading.fanout import Fanout
from qlearn.grading.gradebook import LOCK_TIMEOUT, UNREADABLE
from qlearn.grading.intake import shown
from qlearn.grading.progress import Reporter
from qlearn.grading.records import Verdict

STOPPED = 130  # exit code after Ctrl-C
# Called as score(submission, exercise=exercise).
Score = Callable[..., Verdict]


def command(
    exercise: str, timeout: float, memory: int, sandboxed: bool, workers: int | None, **options: Any
) -> int:
    """Grade a class with `scoring.score`.

    Parameters
    ----------
    exercise
        Name of it.
    timeout, memory
        CPU seconds and MB (10**6 bytes) for each of a submission's two kernels.
    sandboxed
        Whether they run in bubblewrap.
    workers
        Processes on this machine; as many as there are cores for, when None.
    options
        More of `grade`.

    Returns
    -------
    int
        Exit code, as of `grade`.
    """
    from qlearn.grading.cgroups import MISSING, hierarchy
    from qlearn.grading.sandbox import Limits, SandboxUnavailable, require
    from qlearn.grading.scoring import score

    limits = Limits.within(timeout, memory)
    try:
        if sandboxed and options["scheduler"] is None:
            require()
            if hierarchy() is None:
                print(MISSING, file=sys.stderr)
    except SandboxUnavailable as error:
        words = "To run what learners wrote with your own rights instead, add --no-sandbox."
        print(f"{error}\n{words}", file=sys.stderr)
        return 1
    ours = functools.partial(score, limits=limits, sandboxed=sandboxed)
    count = workers or max(1, _cores() // limits.threads)
    return grade(exercise, ours, f"{limits}, sandbox: {sandboxed}", workers=count, **options)


def grade(
    exercise: str,
    score: Score,
    limits: str,
    students: Collection[str] = (),
    workers: int = 1,
    scheduler: str | None = None,
    force: bool = False,
    hidden_shown: bool = False,
    variants_by_id: bool = False,
    as_json: bool = False,
) -> int:
    """Grade a class in the course of the working folder.

    Parameters
    ----------
    exercise
        Name of it.
    score
        Grades one submission; workers import it by its name.
    limits
        In words: what was stopped under other limits is graded again.
    students
        Only these; all when empty.
    workers, scheduler
        As in `Fanout`.
    force, hidden_shown, variants_by_id
        As in `Classroom`.
    as_json
        As in `Reporter`.

    Returns
    -------
    int
        Exit code: 0, or 1 when a submission has no verdict or grading could not go on, which is
        said in a sentence, or 130 after Ctrl-C. What was graded is kept.
    """
    try:
        with ExitStack() as stack:
            course = Course.here()
            stack.enter_context(_alone(course))
            interrupted = stack.enter_context(_interruptible())
            classroom = Classroom(course, exercise, limits, hidden_shown, force, variants_by_id)
            chosen = _chosen(students, classroom)
            for place in course.left_out(exercise):
                print(
                    f"Left out: {shown(place)}, which is not STUDENT/{exercise}.", file=sys.stderr
                )
            reporter = stack.enter_context(Reporter(len(chosen), as_json))
            work = functools.partial(score, exercise=classroom.exercise)

            def fanout() -> Fanout:
                return Fanout(work, workers, scheduler, interrupted.is_set, reporter.say)

            for line in classroom.lines(chosen, fanout):
                reporter.add(line)
            reporter.close(interrupted.is_set())
            for notice in classroom.notices:
                print(notice, file=sys.stderr)
            failed = any(line.outcome == "failed" for line in reporter.lines)
            return STOPPED if interrupted.is_set() else int(failed)
    except KeyboardInterrupt:
        return STOPPED
    except (OSError, RuntimeError, DBAPIError) as error:
        print(_in_words(error), file=sys.stderr)
        return 1


def _cores() -> int:
    """Return the number of cores that this process may use; a container may have fewer."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chosen(students: Collection[str], classroom: Classroom) -> list[str]:
    if not classroom.places:
        raise FileNotFoundError(
            f"Nothing was handed in for {classroom.exercise.name}: what comes back goes to "
            f"{classroom.course.folder('submitted', 'STUDENT', classroom.exercise.name)}."
        )
    missing = [student for student in students if student not in classroom.places]
    if missing:
        raise FileNotFoundError(f"Nothing was handed in by {', '.join(missing)}.")
    return list(dict.fromkeys(students) or classroom.places)


def _in_words(error: Exception) -> str:
    """Return what stopped the class, as a sentence; what was graded until then is kept."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if "database is locked" in text:
        return (
            f"Another program has held the gradebook for {LOCK_TIMEOUT} seconds: close it, and "
            "grade again. What is graded so far is kept."
        )
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in text:
        return "The disk is full: make room, and grade again. What is graded so far is kept."
    if isinstance(error, DBAPIError):
        return f"{UNREADABLE} ({text}): put a copy of it that is sound in its place."
    return text


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Note the first Ctrl-C, and let the second interrupt."""
    interrupted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _alone(course: Course) -> Iterator[None]:
    """Hold a lock that ends with this process, or raise RuntimeError when another holds it."""
    folder = Path(course.folders.root) / course.folders.autograded_directory
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".qlearn-grade.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("Another qlearn grade is at work in this course.") from None
        yield
