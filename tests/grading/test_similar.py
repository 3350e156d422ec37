"""Near-identical work is listed, and independent work is not."""

import classes
import pytest

from qlearn.grading.course import Course
from qlearn.grading.similar import groups

ONE = """
def measure(values):
    total = 0
    for value in values:
        total += value ** 2
    return (total / len(values)) ** 0.5

sizes = [measure(range(1, number)) for number in range(3, 20)]
table = {f"row {place}": size for place, size in enumerate(sizes)}
answer = int(max(table.values())) + len(sizes) + 14
"""
RENAMED = """
# All my own work.
def rms(xs):
    s = 0
    for x in xs:
        s += x ** 2   # squares
    return (s / len(xs)) ** 0.5
all_sizes = [rms(range(1, n)) for n in range(3, 20)]
rows = {f"row {i}": z for i, z in enumerate(all_sizes)}
answer = (int(max(rows.values()))
          + len(all_sizes) + 14)
"""
OTHER = """
import numpy as np
grid = np.arange(3, 20)
means = np.sqrt([(np.arange(1, stop) ** 2).mean() for stop in grid])
best = means.argmax()
while best > 0 and not np.isclose(means[best], means.max()):
    best -= 1
summary = dict(zip(grid.tolist(), means.round(3).tolist()))
answer = 42 if summary and np.isfinite(means).all() else int(best)
"""
THIRD = """
from statistics import fmean
from math import sqrt
def largest(low, high):
    if low == high:
        return low
    return max(low, largest(low + 1, high))
collected = []
collected.extend(sqrt(fmean(i * i for i in range(1, k))) for k in range(3, 20))
top = sorted(collected, reverse=True)[0]
answer = largest(40, 42) if top else None
"""
CLASS = {"ann": ONE, "ben": RENAMED, "cem": OTHER, "dora": THIRD}


@pytest.fixture
def course(tmp_path, monkeypatch):
    made = classes.make_course(tmp_path)
    for student, work in CLASS.items():
        classes.hand_in(made, student, work)
    monkeypatch.chdir(made)
    return made


def test_copies_with_other_names_are_a_group_and_independent_work_is_not(course):
    (found,) = groups(Course.here(), classes.EXERCISE)
    assert found.students == ("ann", "ben") and found.alike > 0.95 and not found.artifacts


def test_the_same_artifacts_are_a_group_unless_all_have_them(course):
    for student in CLASS:
        folder = classes.submitted(course, student) / "answers"
        folder.mkdir()
        (folder / "given.json").write_text("{}")
        (folder / "times.json").write_text("copied" if student in ("cem", "dora") else student)
    texts, files = groups(Course.here(), classes.EXERCISE)
    assert texts.students == ("ann", "ben")
    assert files.students == ("cem", "dora") and files.artifacts == ("answers/times.json",)


def test_short_work_magics_and_what_is_no_notebook_stop_nothing(course):
    for student, work in {"eve": "x = 42", "fay": "x = 42", "gil": f"%%time{ONE}"}.items():
        classes.hand_in(course, student, work)
    (classes.hand_in(course, "hal", "") / "tiny.ipynb").write_text("{")
    for student, work in {
        "ida": "def (", "jo": "x = " + "+".join("1" * 3000), "kai": "x = 'a",
        "lea": "x = a" + ".b" * 3000, "mo": "!ls\n" * 2000, "nia": "x = %pwd\n" * 2000,
    }.items():  # fmt: skip
        classes.hand_in(course, student, work)
    (found,) = groups(Course.here(), classes.EXERCISE)
    assert found.students == ("ann", "ben", "gil")
