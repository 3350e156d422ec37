"""`qlearn grades`: who has how many points, as a table, as CSV, and in summary."""

from csv import QUOTE_NONNUMERIC
from pathlib import Path

import pandas as pd
from nbgrader.api import Gradebook
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from qlearn.grading.course import Course
from qlearn.grading.gradebook import UNREADABLE

BINS = 10  # of the histogram
BAR = 30  # characters of its longest bar
FORMULAS = tuple("=+-@＝＋－＠")  # full width too, as East Asian versions of Excel read them
MISSED = 8  # parts that are listed


def table(course: Course, exercise: str | None = None) -> pd.DataFrame:
    """Read the gradebook.

    Parameters
    ----------
    course
        Whose.
    exercise
        Only this one, or all.

    Returns
    -------
    pandas.DataFrame
        A row per student, exercise and part: ``student``, ``exercise``, ``part``, ``score``,
        ``most``, ``to_read`` (a person still has to), and the notebook's ``late_penalty``, in
        points, which is in no part's score.
    """
    rows = []
    with Gradebook(course.folders.db_url, course.folders.course_id) as gradebook:
        names = [exercise] if exercise else [found.name for found in gradebook.assignments]
        for name in names:
            for submission in gradebook.assignment_submissions(name):
                for notebook in submission.notebooks:
                    penalty = notebook.late_submission_penalty or 0.0
                    rows += [
                        (submission.student_id, name, grade.name, grade.score, grade.max_score,
                         grade.needs_manual_grade, penalty)
                        for grade in notebook.grades
                    ]  # fmt: skip
    columns = ["student", "exercise", "part", "score", "most", "to_read", "late_penalty"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:3], ignore_index=True)


def totals(parts: pd.DataFrame) -> pd.DataFrame:
    """Return a row per exercise and student: ``score``, ``most``, ``to_read`` and ``read``.

    The late penalty is taken off the score; ``to_read`` counts parts, and ``read`` points that
    parts without those have.
    """
    parts = parts.assign(read=parts["most"].where(~parts["to_read"].astype(bool), 0))
    found = parts.groupby(["exercise", "student"], as_index=False).agg(
        score=("score", "sum"),
        most=("most", "sum"),
        to_read=("to_read", "sum"),
        read=("read", "sum"),
        late_penalty=("late_penalty", "first"),
    )
    found["score"] -= found.pop("late_penalty")
    return found


def by_part(parts: pd.DataFrame) -> pd.DataFrame:
    """Return by part what the class lost, most first: ``students`` that lost points, and ``lost``.

    ``lost`` is a share of all points of the part. Parts that nobody has read are not counted.
    """
    read = parts[~parts["to_read"]]
    read = read.assign(lost=read["most"] - read["score"], missing=read["score"] < read["most"])
    found = read.groupby(["exercise", "part"], as_index=False).agg(
        students=("missing", "sum"), lost=("lost", "sum"), most=("most", "sum")
    )
    found["lost"] = (found["lost"] / found.pop("most").where(lambda most: most > 0)).fillna(0)
    return found.sort_values(
        ["lost", "exercise", "part"], ascending=[False, True, True], ignore_index=True
    )


def histogram(group: pd.DataFrame) -> tuple[list[float], list[int]]:
    """Return the edges of the bins of one exercise's scores, and the students in each.

    More than all points (extra credit) and less than none (penalties) count with the last and the
    first; without points there are no bins.
    """
    most = group["most"].max()
    if not most:
        return [0.0], []
    edges = [most * step / BINS for step in range(BINS + 1)]
    places = pd.cut(group["score"].clip(0, most), edges, include_lowest=True, labels=False)
    return edges, places.value_counts().reindex(range(BINS), fill_value=0).tolist()


def report(exercise: str | None, csv: Path | None) -> None:
    """Print the summary of the working folder's course, and write the table.

    Parameters
    ----------
    exercise
        Only this one, or all.
    csv
        Where the whole table goes, or None.

    Raises
    ------
    OSError
        When there is no course, or the table cannot be written.
    LookupError
        When nothing was graded, or the gradebook is damaged.
    """
    try:
        course = Course.here()
        parts = table(course, exercise) if course.has_gradebook else pd.DataFrame()
    except DBAPIError as error:
        raise LookupError(f"{UNREADABLE} ({error.orig}).") from None
    if parts.empty:
        raise LookupError(f"Nothing of {exercise or 'this course'} is graded yet.")
    if csv is not None:
        parts.map(lambda value: _plain(value) if isinstance(value, str) else value).to_csv(
            csv, index=False, quoting=QUOTE_NONNUMERIC
        )
    console = Console(highlight=False)
    for name, group in totals(parts).groupby("exercise"):
        _summary(console, str(name), group)
    found = by_part(parts).query("students > 0").head(MISSED)
    if not found.empty:
        shown = Table("exercise", "part", "students who lost points", "share lost",
                      title="Parts most often missed", title_justify="left")  # fmt: skip
        for row in found.itertuples():
            shown.add_row(row.exercise, row.part, str(row.students), f"{row.lost:.0%}")
        console.print(shown)


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, without control characters."""
    text = "".join(letter for letter in text if letter.isprintable())
    return f"'{text}" if text.lstrip().startswith(FORMULAS) else text


def _summary(console: Console, name: str, group: pd.DataFrame) -> None:
    """Print the scores of one exercise and their histogram."""
    most, waiting = group["most"].max(), int(group["to_read"].sum())
    console.print(f"\n[bold]{name}[/]: {len(group)} students, {most:g} points")
    console.print(
        f"mean {group['score'].mean():.1f}, median {group['score'].median():.1f}, "
        f"from {group['score'].min():g} to {group['score'].max():g}; "
        f"{waiting} {'part' if waiting == 1 else 'parts'} still to be read"
    )
    if waiting:
        share = group["score"].sum() / (group["read"].sum() or 1)
        console.print(f"of what is graded or read so far: mean {share:.0%}")
    edges, counts = histogram(group)
    for place, count in enumerate(counts):
        bar = "█" * round(BAR * count / max(counts))
        console.print(
            f"{edges[place]:5.1f} – {edges[place + 1]:5.1f} │{bar} {count or ''}".rstrip()
        )
