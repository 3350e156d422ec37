"""The teacher's pages: each lesson has one, and it has all that it promises."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PAGES = NOTEBOOKS / "teach" / "lessons"
PARTS = ["What people get wrong", "Where to stop and ask", "The predictions", "Draw on the board",
         "Skip when late", "Questions from the floor"]  # fmt: skip


@pytest.mark.parametrize("lesson", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda p: p.stem)
def test_a_lesson_has_a_page_for_its_teacher(lesson):
    (page,) = PAGES.glob(f"{lesson.stem[:2]}_*.md")
    assert f"../../{lesson.name}" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda p: p.stem)
def test_a_page_has_its_parts(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == PARTS
    assert "**Its one sentence:**" in text
    assert len(re.findall(r"^\*\*.+\?\*\*", text.partition(PARTS[-1])[2], re.MULTILINE)) == 3


def test_the_plans_go_forward_and_end_in_time():
    text = (NOTEBOOKS / "teach" / "workshop.md").read_text(encoding="utf-8")
    for title, end in (("90 minutes", 90), ("Three hours", 180), ("One day", 451)):
        plan = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        minutes = [int(minute) for minute in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)]
        assert minutes == sorted(set(minutes)) and minutes[0] == 0 and minutes[-1] < end, title
        assert len(minutes) > 4
    weeks = text.partition("## Six weeks\n")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| \d \|(.*)$", weeks, re.MULTILINE):
        assert sum(map(int, re.findall(r"\((\d+)\)", row))) == 120, row
