"""`qlearn grades --page`: one page about an exercise of a class, for its instructor."""

import base64
import html
import io
import re
from collections import Counter
from pathlib import Path

import nbformat
import pandas as pd
from nbgrader.utils import is_grade

from qlearn.grading.course import Course
from qlearn.grading.gradebook import ClassGradebook
from qlearn.grading.outputs import sentence
from qlearn.grading.report import by_part, histogram, table, totals
from qlearn.grading.similar import Group, groups

SENTENCES = 15  # that are shown
NUMBER = re.compile(r"\d[\d.,:%]*")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body {{ font-family: sans-serif; max-width: 60em; margin: 2em auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: left }}</style>
</head><body><h1>{name}</h1><p>{summary}</p>
<img alt="{alternative}" src="data:image/png;base64,{picture}">
<h2>Parts, the hardest first</h2>{parts}
<h2>What failing tests said most often</h2>{sentences}
<h2>Near-identical work</h2>
<p>For a person to look at: there may be good reasons. Names, comments and layout do not count.</p>
{groups}
</body></html>
"""


def write(exercise: str, path: Path) -> None:
    """Write the page of an exercise of the working folder's course, which is graded."""
    course = Course.here()
    parts = table(course, exercise)
    students = totals(parts)
    waiting = int((students["to_read"] > 0).sum())
    summary = f"{len(students)} students, {students['most'].max():g} points; "
    summary += f"mean {students['score'].mean():.1f}, median {students['score'].median():.1f}. "
    whose = "1 student" if waiting == 1 else f"{waiting} students"
    summary += f"Parts of {whose} are not read yet and count 0. " if waiting else ""
    shares = by_part(parts)[["part", "students", "lost"]]
    shares.columns = ["part", "students who lost points", "share of points lost"]
    alternative, picture = _picture(students, exercise)
    content = PAGE.format(
        name=html.escape(exercise),
        summary=summary + _time(course, exercise),
        alternative=alternative,
        picture=picture,
        parts=shares.to_html(index=False, border=0, float_format="{:.0%}".format),
        sentences=_listed(_sentences(course, exercise, students["student"]), "No test failed."),
        groups=_listed(_rows(groups(course, exercise)), "None was found."),
    )
    path.write_text(content, encoding="utf-8")


def _time(course: Course, exercise: str) -> str:
    """Return in a sentence how long grading took, where that is known."""
    records = ClassGradebook(course).records(exercise).values()
    seconds = pd.Series([one["seconds"] for one in records if one["seconds"]], dtype=float)
    if seconds.empty:
        return ""
    return (
        f"Grading took {seconds.sum() / 60:.1f} minutes of work, {seconds.median():.0f} s for the "
        f"median submission and {seconds.max():.0f} s for the longest."
    )


def _picture(students: pd.DataFrame, exercise: str) -> tuple[str, str]:
    """Return the histogram of the scores in words and as a PNG in base64."""
    from matplotlib.figure import Figure

    edges, counts = histogram(students)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.stairs(counts, edges, fill=True)
    axes.set(xlabel="points", ylabel="students", title=exercise)
    axes.yaxis.get_major_locator().set_params(integer=True)
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=100)
    bins = zip(edges[:-1], edges[1:], counts, strict=True)
    words = ", ".join(f"{count} from {low:g} to {high:g}" for low, high, count in bins if count)
    return f"Histogram of points, in students: {words}.", base64.b64encode(made.getvalue()).decode()


def _sentences(course: Course, exercise: str, students: pd.Series) -> list[dict[str, object]]:
    """Return the commonest sentences of failing tests; those that differ in numbers are one."""
    times: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for student in students:
        path = course.folder("autograded", student, exercise) / f"{exercise}.ipynb"
        cells = nbformat.read(path, as_version=4).cells if path.is_file() else []
        for cell in cells:
            errors = [one for one in cell.get("outputs", []) if one.output_type == "error"]
            if is_grade(cell) and errors:
                said = sentence(errors[0])
                key = cell.metadata.nbgrader.grade_id, NUMBER.sub("…", said)
                times[key] += 1
                example.setdefault(key, said)
    return [
        {"students": count, "part": key[0], "for example": example[key]}
        for key, count in times.most_common(SENTENCES)
    ]


def _rows(found: list[Group]) -> list[dict[str, object]]:
    return [{"students": ", ".join(one.students), "what is alike": one.what} for one in found]


def _listed(rows: list[dict[str, object]], nothing: str) -> str:
    """Return a table as HTML, in which what learners wrote is text."""
    if not rows:
        return f"<p>{nothing}</p>"
    with pd.option_context("display.max_colwidth", None):
        return pd.DataFrame(rows).to_html(index=False, border=0)
