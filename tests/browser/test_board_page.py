"""The board as a room sees it: on a projector and on a phone, light and dark, by keyboard."""

import json
import os
from pathlib import Path

import pytest

from qlearn.room.board import Board
from qlearn.room.phone.report_log import Reports
from qlearn.room.phone.session import LOOPBACK, lab_site
from qlearn.room.serving import Room, known_parts

SHOWN_MS = 300_000  # it shows within seconds: only a hang takes as long
SCREENS = {"projector": (1920, 1080), "phone": (360, 740)}
SENTENCE = "The model 'float' holds no QuantStub: make one in __init__, and use it in forward."


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Thirty learners in the middle of exercise 2."""
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    board, phones = Board(tmp_path / "board.jsonl", known_parts()), Reports(tmp_path / "p.jsonl")
    for number in range(30):
        events = [{"part": f"ex2 {part}", "passed": number % 5 >= part, "sentence": ""}
                  for part in range(1, 4) if number % 7]  # fmt: skip
        for event in events:
            event["sentence"] = "" if event["passed"] else SENTENCE
        events += [{"hand": True}] if number % 11 == 3 else []
        ratio = 0.5 + number / 8
        row = {"label": "model int8", "speedup": ratio, "low": ratio * 0.9, "high": ratio * 1.1}
        events += [{"shared": "speedup", "rows": [row]}]
        verdict = "FAIL" if number == 4 else "ok"
        events += [{"laptop": [{"subject": "torch", "verdict": verdict},
                               {"subject": "Chromium", "verdict": "note"}]}]  # fmt: skip
        message = {"learner": f"{number:032x}", "session": "0" * 32, "nickname": f"Ada {number}",
                   "events": [{"n": n, **e} for n, e in enumerate(events, 1)]}  # fmt: skip
        assert board.take(json.dumps(message).encode())[0] == 200
    room = Room(LOOPBACK, 0, board, lab_site({}, phones, lambda report: None), phones)
    room.board = board
    yield room
    room.stop()


@pytest.fixture
def open_page(pages):
    """Open the board, which asks nothing of others."""

    def opened(room, screen, scheme):
        width, height = SCREENS[screen]
        page = pages.new(
            (room.url, "data:"), viewport={"width": width, "height": height}, color_scheme=scheme
        )
        page.goto(room.url)
        page.get_by_text("30 learners").wait_for(timeout=SHOWN_MS)
        return page

    return opened


def keep(page, name):
    if folder := os.environ.get("QLEARN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"board-{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_the_board_shows_who_is_stuck(room, open_page, screen, scheme):
    page = open_page(room, screen, scheme)
    assert page.get_by_role("status").filter(has_text="Asking for help: Ada 3, Ada 14, Ada 25")
    table = page.get_by_role("table", name="Exercise 2")
    row = table.get_by_role("row").filter(has_text="QuantStub").first
    stuck = next(p for p in room.board.summarize()["parts"] if p["part"] == "ex2 1")
    assert f"{stuck['passed']} of 30" in row.inner_text() and SENTENCE in row.inner_text()
    assert "Exercise 1" in page.locator("#untouched").inner_text()
    keep(page, f"{screen}-{scheme}-parts")
    laptops = page.locator("#ready tr")
    assert "Ada 4" in laptops.nth(1).text_content() and "torch" in laptops.nth(1).text_content()
    assert page.locator("#ready caption").text_content() == "29 of 30 ready"
    assert f"--send {room.url} NICKNAME" in page.locator("#doctor").text_content()
    for name in ("Speedups", "Laptops", "Phones", "Join"):
        page.get_by_role("tab", name=name).click()
        page.get_by_role("tabpanel", name=name).wait_for(timeout=SHOWN_MS)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        keep(page, f"{screen}-{scheme}-{name}")
    assert f'qlearn.join("{room.url}", "a nickname")' in page.locator("#command").inner_text()


def test_the_keyboard_is_enough_and_news_arrive(room, open_page):
    page = open_page(room, "projector", "light")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-shared").evaluate("e => e.matches(':focus-visible')")
    figure = page.get_by_role("img", name="model int8")
    assert "faster" in figure.get_attribute("aria-label")
    page.keyboard.press("End")
    assert page.get_by_role("tabpanel", name="Join").is_visible()
    page.keyboard.press("Home")
    message = {"learner": "f" * 32, "session": "0" * 32, "nickname": "<b>Zoe</b>",
               "events": [{"n": 1, "hand": True}]}  # fmt: skip
    room.board.take(json.dumps(message).encode())
    page.get_by_text("31 learners").wait_for(timeout=SHOWN_MS)
    assert "<b>Zoe</b>" in page.locator("#hands").inner_text()  # text, not markup


def test_the_page_says_when_the_server_is_gone(room, browser):
    page = browser.new_page()
    page.goto(room.url)
    page.get_by_text("30 learners").wait_for(timeout=SHOWN_MS)
    room.stop()
    page.get_by_role("alert").filter(has_text="does not answer").wait_for(timeout=SHOWN_MS)
    page.close()
