"""The board: what notebooks send, that nothing is lost, and that nothing ever waits for it."""

import json
import re
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from typer.testing import CliRunner

import qlearn
from qlearn.cli import app
from qlearn.exercises import run
from qlearn.room import laptop, learner, serving
from qlearn.room.board import Board
from qlearn.room.phone.report_log import Reports
from qlearn.room.phone.session import LOOPBACK, lab_site
from qlearn.room.serving import Room
from qlearn.system import doctor
from qlearn.system.doctor import Finding

PATIENCE = 120  # seconds: only a hang takes as long
COLUMNS = ["speedup", "speedup_low", "speedup_high"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def open_room(home):
    """Open a room on a file of the test; its phone lab has no models."""
    opened = []

    def start(parts=("ex2 1",)):
        phones = Reports(home / "phones.jsonl")
        board = Board(home / "board.jsonl", list(parts))
        room = Room(LOOPBACK, 0, board, lab_site({}, phones, lambda report: None), phones)
        room.board = board
        opened.append(room)
        return room

    yield start
    qlearn.leave()
    for room in opened:
        room.stop()


@pytest.fixture
def notebook(monkeypatch):
    """A notebook's shell in the middle of exercise 2."""
    shell = InteractiveShell()
    monkeypatch.setattr(learner, "_shell", lambda: shell)
    monkeypatch.setattr(run, "begun", "ex2")
    return shell


def check(body, name="1"):
    return f"def check_test_{name}():\n    {body}\n\n\ncheck_test_{name}()\n"


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def part(room, name):
    parts = room.board.summarize()["parts"]
    return next((p for p in parts if p["part"] == name), {"passed": 0, "stuck": 0})


def post(room, name, **message):
    request = urllib.request.Request(room.url + name, json.dumps(message).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def message(number, *events, session=1):
    return {"learner": f"{number:032x}", "session": f"{session:032x}", "nickname": f"n{number}",
            "events": [{"n": n, **event} for n, event in enumerate(events, 1)]}  # fmt: skip


def test_a_check_arrives_with_its_sentence_and_without_code_or_paths(open_room, notebook):
    room = open_room()
    qlearn.join(room.url, "Ada")
    notebook.run_cell("secret = 1  # an ordinary cell")
    notebook.run_cell(check("assert False, 'No file /home/learner/answers/x.pt: hand it in.'"))
    until(lambda: part(room, "ex2 1")["stuck"] == 1)
    assert part(room, "ex2 1")["sentence"] == "No file …: hand it in."
    notebook.run_cell(check("raise TypeError('about /home/learner')", "4_table"))
    until(lambda: len(room.board.summarize()["parts"]) == 2)
    assert part(room, "ex2 4 table")["sentence"] == "The check ended with a TypeError."
    notebook.run_cell(check("pass"))
    until(lambda: part(room, "ex2 1")["passed"] == 1)
    assert part(room, "ex2 1")["stuck"] == 0
    kept = room.file.read_text()
    assert "secret" not in kept and "home" not in kept and "127.0.0.1" not in kept
    keys = {"learner", "session", "nickname", "events", "received"}
    assert all(set(json.loads(line)) == keys for line in kept.splitlines())


@pytest.mark.parametrize("text", [
    "C:\\Users\\Ann Smith\\x.pt", "/home/learner/ann", "file:///home/learner/ann.pt", "(/tmp/a/b)",
])  # fmt: skip
def test_no_path_is_in_a_sentence(open_room, notebook, text):
    room = open_room()
    qlearn.join(room.url, "Ada")
    notebook.run_cell(check(f"assert False, {text!r}"))
    until(lambda: part(room, "ex2 1")["stuck"] == 1)
    assert not re.search("ann|Smith|tmp", part(room, "ex2 1")["sentence"])


def test_nothing_is_sent_before_joining_and_leaving_forgets(open_room, notebook):
    room = open_room()
    notebook.run_cell(check("pass"))
    qlearn.leave()  # without a board it does nothing
    with pytest.raises(ValueError, match="joined no board"):
        qlearn.raise_hand()
    assert room.board.summarize()["learners"] == 0 and not room.file.exists()
    qlearn.join(room.url, "Ada")
    post(room, "events", **message(7, {"part": "ex2 1", "passed": True, "sentence": ""}))
    notebook.run_cell(check("pass"))
    until(lambda: part(room, "ex2 1")["passed"] == 2)
    qlearn.leave()
    until(lambda: room.board.summarize()["learners"] == 1)
    notebook.run_cell(check("pass"))
    until(lambda: "Ada" not in room.file.read_text())
    assert "n7" in room.file.read_text() and part(room, "ex2 1")["passed"] == 1


def test_a_hand_is_raised_until_a_check_passes(open_room, notebook, capsys):
    room = open_room()
    qlearn.join(room.url, "Ada")
    qlearn.raise_hand()
    until(lambda: room.board.summarize()["hands"] == ["Ada"])
    qlearn.your_turn("10 GPTQ", 1, lambda mine: "look at the sign")
    until(lambda: part(room, "10 GPTQ")["stuck"] == 1)
    assert room.board.summarize()["hands"] == ["Ada"]
    qlearn.your_turn("10 GPTQ", ..., lambda mine: None)
    qlearn.your_turn("10 GPTQ", 1, lambda mine: None)
    until(lambda: part(room, "10 GPTQ")["passed"] == 1)
    assert room.board.summarize()["hands"] == []
    said = capsys.readouterr().out
    assert "Not yet: look at the sign." in said and "Left alone" in said and "Right." in said


def test_a_measured_table_is_shared_without_the_row_it_compares_with(open_room, notebook):
    room = open_room()
    qlearn.join(room.url, "Ada")
    table = pd.DataFrame([[1, 1, 1], [2.5, 2.0, 3.0]], ["fp32", "int8"], COLUMNS)
    qlearn.share("speedup", table.rename_axis("model"))
    crossover = pd.concat({64: pd.DataFrame([[0.5, 0.4, 0.6]], [1], COLUMNS)},
                          names=["width", "batch"])  # fmt: skip
    qlearn.share("crossover", crossover)
    until(lambda: len(room.board.summarize()["shared"]) == 2)
    shared = room.board.summarize()["shared"]
    assert shared["speedup"] == {"model int8": [[2.5, 2.0, 3.0]]}
    assert shared["crossover"] == {"width 64, batch 1": [[0.5, 0.4, 0.6]]}
    for name, wrong in (("speed", table), ("speedup", table[["speedup"]]), ("speedup", None),
                        ("speedup", table.iloc[:1])):  # fmt: skip
        with pytest.raises(ValueError, match="choose from|lacks|rows with"):
            qlearn.share(name, wrong)


@pytest.mark.parametrize(("url", "nickname"), [
    ("the board", "Ada"), ("http://127.0.0.1", "Ada"), ("http://x/y", ""), ("http://x/y", "a" * 25),
    ("http://x/y", "two\nlines"),
])  # fmt: skip
def test_a_wrong_address_or_nickname_is_explained(home, url, nickname):
    with pytest.raises(ValueError, match="address of a board|nickname has"):
        qlearn.join(url, nickname)


FINDINGS = [
    Finding("torch", "2.9.0", "the course pins ==2.15.0", "Run it again.", needed=True),
    Finding("cache", "/Users/ann/.cache", "9 GiB free", needed=True),
    Finding("Chromium", "missing", "for browser tests", "Install Chromium."),
]


def test_the_doctor_tells_the_board_verdicts_and_nothing_else(open_room, notebook, monkeypatch):
    monkeypatch.setattr("qlearn.system.doctor.examine", lambda: FINDINGS)
    room = open_room()
    qlearn.join(room.url, "Ada")
    result = CliRunner().invoke(app, ["doctor", "--send", room.url, "Ada"])
    assert result.exit_code == 1 and "The board has" in result.output, result.output
    state = room.board.summarize()
    assert state["learners"] == 1
    assert state["laptops"] == [{"nickname": "Ada", "FAIL": ["torch"], "note": ["Chromium"]}]
    kept = room.file.read_text()
    # Two ids of 32 random hexadecimal digits stand beside it: a dot for any digit would be found.
    assert not re.search(r"ann|2\.9\.0|GiB|Install", kept)
    assert Board(room.file, []).summarize()["laptops"] == state["laptops"]
    laptop.send(room.url, "Ada", FINDINGS[1:])
    assert room.board.summarize()["laptops"][0]["FAIL"] == []  # the last word counts
    qlearn.leave()
    until(lambda: room.board.summarize()["laptops"] == [])


def test_the_doctors_own_rows_are_taken(open_room):
    room = open_room()
    laptop.send(room.url, "Ada", doctor.examine())
    (told,) = room.board.summarize()["laptops"]
    assert "torch" not in told["FAIL"]


@pytest.mark.parametrize(("link", "sentence"), [
    (lambda url: url[:-3] + "/", "No board is at"), (lambda url: "the board", "is no address"),
    (lambda url: f"http://{LOOPBACK}:9/x/", "No board answers at"),
])  # fmt: skip
def test_a_board_that_the_doctor_does_not_reach_is_explained(
    open_room, monkeypatch, link, sentence
):
    monkeypatch.setattr("qlearn.system.doctor.examine", lambda: FINDINGS)
    result = CliRunner().invoke(app, ["doctor", "--send", link(open_room().url), "Ada"])
    assert result.exit_code == 1 and sentence in result.output
    assert isinstance(result.exception, SystemExit)


def test_another_link_is_explained(open_room):
    with pytest.raises(ValueError, match="No board is at this address"):
        qlearn.join(open_room().url[:-3], "Ada")


def test_a_lost_connection_disturbs_nobody_and_loses_nothing(
    open_room, notebook, monkeypatch, capsys
):
    monkeypatch.setattr(learner, "WAITS", (0.05,))
    monkeypatch.setattr(learner, "JOINING", 0.05)
    room = open_room()
    url = room.url
    room.stop()
    qlearn.join(url, "Ada")
    assert "does not answer yet" in capsys.readouterr().out
    for number in range(10):
        assert notebook.run_cell(check("pass", str(number))).success
    again = open_room()
    assert again.url == url
    until(lambda: sum(p["passed"] for p in again.board.summarize()["parts"]) == 10)
    assert "Traceback" not in "".join(capsys.readouterr())


def test_a_server_that_never_answers_is_not_waited_for(home, notebook, monkeypatch):
    """Each event is noted while the sending thread is held up in its first request."""
    held, release = threading.Event(), threading.Event()

    def hang(request, timeout):
        held.set()
        assert threading.current_thread() is not threading.main_thread()
        release.wait(PATIENCE)
        raise OSError("no answer")

    monkeypatch.setattr(learner, "OPEN", hang)
    monkeypatch.setattr(learner, "JOINING", 0.01)
    qlearn.join("http://127.0.0.1:9/x/", "Ada")
    assert held.wait(PATIENCE)
    for _ in range(3 * learner.QUEUE):
        qlearn.raise_hand()
    assert len(learner._sender._events) == learner.QUEUE  # bounded
    qlearn.leave()
    release.set()


def test_another_server_at_the_address_is_not_taken_for_a_board(home, monkeypatch):
    """As a hotel's wifi answers everything with a page of its own."""
    monkeypatch.setattr(learner, "JOINING", 0.2)
    with socket.create_server((LOOPBACK, 0)) as portal:

        def answer():
            connection, _ = portal.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        qlearn.join(f"http://{LOOPBACK}:{portal.getsockname()[1]}/x/", "Ada")
        assert not learner._sender.answered.is_set()
        qlearn.leave()


def test_thirty_learners_at_ten_events_a_second_lose_nothing(open_room):
    room = open_room()
    seconds, each = 3, 30

    def work(number):
        sender = learner._Sender(room.url, f"{number:032x}", f"n{number}")
        for event in range(each):
            sender.put(part=f"ex1 {event}", passed=bool(event % 2), sentence="")
            time.sleep(seconds / each)

    threads = [threading.Thread(target=work, args=[number]) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def events():
        lines = [json.loads(line) for line in room.file.read_text().splitlines()]
        return [(line["learner"], event["n"]) for line in lines for event in line["events"]]

    until(lambda: len(events()) >= 30 * each)
    assert sorted(events()) == [(f"{n:032x}", e) for n in range(30) for e in range(1, each + 1)]
    again = Board(room.file, [])
    assert again.summarize() == {**room.board.summarize(), "parts": again.summarize()["parts"]}
    assert sum(p["passed"] for p in again.summarize()["parts"]) == 30 * each // 2


def test_events_sent_again_count_once_and_a_restart_keeps_the_link(open_room):
    room = open_room()
    sent = message(1, {"hand": True}, {"part": "ex2 1", "passed": True, "sentence": ""})
    for _ in range(2):
        assert post(room, "events", **sent)[0] == 200
    assert len(room.file.read_text().splitlines()) == 1
    room.stop()
    again = open_room()
    assert again.url == room.url
    assert again.board.summarize() == room.board.summarize()
    assert post(again, "events", **sent)[0] == 200
    assert len(room.file.read_text().splitlines()) == 1


def test_a_line_cut_short_by_a_crash_costs_no_other(open_room, home, capsys):
    room = open_room()
    post(room, "events", **message(1, {"hand": True}))
    whole = room.file.read_bytes()
    room.file.write_bytes(whole + whole[:40])
    board = Board(room.file, [])
    assert f"line 2 of {room.file} is no message" in capsys.readouterr().out
    board.take(json.dumps(message(2, {"hand": True})).encode())
    assert Board(room.file, []).summarize()["hands"] == ["n1", "n2"]


EVENT = {"part": "ex2 1", "passed": True, "sentence": ""}
WRONG = [
    {"part": "../x", "passed": True, "sentence": ""}, {"part": "ex2 1"}, {"code": "x = 1"},
    {**EVENT, "sentence": "x" * 301}, {**EVENT, "sentence": "two\nlines"}, {**EVENT, "passed": 1},
    {"laptop": [{"subject": "torch", "verdict": "maybe"}]},
    {"laptop": [{"subject": "torch", "verdict": "ok", "found": "/home"}]},
    {"shared": "speedup"}, {"shared": "other", "rows": []}, {"rows": []}, {**EVENT, "n": 0},
    {"shared": "speedup", "rows": [{"label": "a", "speedup": 0, "low": 1, "high": 1}]},
]  # fmt: skip


@pytest.mark.parametrize("event", WRONG, ids=str)
def test_a_wrong_event_is_refused_with_a_sentence(home, event):
    board = Board(home / "board.jsonl", [])
    status, answer = board.take(json.dumps(message(1, event)).encode())
    assert status == 400 and answer["error"].endswith(".")
    assert not board.path.exists()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"9" * 60000, b'{"learner": "x"}'])
def test_what_is_no_message_is_refused(home, body):
    board = Board(home / "board.jsonl", [])
    assert board.take(body)[0] == board.forget(body)[0] == 400


def test_the_room_is_bounded(home, monkeypatch):
    monkeypatch.setattr("qlearn.room.board.MAX_LEARNERS", 1)
    monkeypatch.setattr("qlearn.room.board.MAX_EVENTS", 2)
    board = Board(home / "board.jsonl", [])
    assert board.take(json.dumps(message(1, {"hand": True})).encode())[0] == 200
    assert board.take(json.dumps(message(2)).encode())[0] == 503
    assert board.take(json.dumps(message(1, *[{"hand": True}] * 3)).encode())[0] == 503


def test_the_board_knows_every_test_cell_and_every_turn():
    parts = serving.known_parts()
    assert {"ex1 1", "ex2 4 table", "10 GPTQ", "10 memory bound"} <= set(parts)
    assert len(parts) == len(set(parts)) > 20


def test_the_command_serves_without_the_phone_lab_where_that_cannot_be(home, monkeypatch):
    def fail():
        raise RuntimeError("npm is missing.")

    seen = []
    monkeypatch.setattr(serving, "write_bundles", lambda names: {})
    monkeypatch.setattr(serving, "fetch_runtime", fail)
    monkeypatch.setattr(serving, "serve_until_interrupted", seen.append)
    result = CliRunner().invoke(app, ["room", "--log", str(home / "board.jsonl")])
    assert result.exit_code == 0, result.output
    assert "without the phone lab. npm is missing." in result.output
    (room,) = seen
    page = urllib.request.urlopen(room.url, timeout=30)
    assert "The board" in page.read().decode() and "default-src 'none'" in str(page.headers)
    state = json.load(urllib.request.urlopen(f"{room.url}state/board", timeout=30))
    assert state["learners"] == 0 and len(state["parts"]) > 20 and state["phones"] == []
    assert Path(room.file).with_suffix(".link").stat().st_mode & 0o077 == 0
    room.stop()
