"""A learner's side of the board: nothing is sent before `join`, and nothing ever waits for it."""

import contextlib
import itertools
import json
import re
import secrets
import threading
import urllib.error
import urllib.request
from collections import deque
from typing import TYPE_CHECKING, Any

from qlearn.exercises import run
from qlearn.exercises.your_turn import listeners
from qlearn.system.cache import home, write_whole

if TYPE_CHECKING:
    import pandas as pd

QUEUE = 1000  # events that wait for a connection; then the oldest goes
BATCH = 5  # events in a request: as many tables still fit into its limit
TIMEOUT = 5.0  # seconds for a request
WAITS = (0.5, 1, 2, 4, 8)  # seconds before a request is sent again
JOINING = 3.0  # seconds that `join` itself waits for an answer
SENTENCE = 300  # characters
SHARED = ("speedup", "crossover")
_CHECK = re.compile(r"^def check_test_(\w+)\(\)", re.MULTILINE)
# Of Windows up to the quote, because folders of users have spaces in their names.
_PATH = re.compile(r"\b[A-Za-z]:[\\/][^'\"]*|(?<![\w.])[\\/][^\s'\"),;:]*[\\/][^\s'\"),;:]*")
# A proxy leads out of the room.
OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
_sender: "_Sender | None" = None  # None: not joined


class _Sender:
    """Sends events in a thread of its own, in order and each once, for as long as it takes."""

    def __init__(self, url: str, learner: str, nickname: str) -> None:
        self._url, self._events = url, deque(maxlen=QUEUE)
        self._learner, self._nickname = learner, nickname
        self._session, self._number = secrets.token_hex(16), 0
        self._wake, self._leaving = threading.Event(), threading.Event()
        self.answered, self.refusal = threading.Event(), ""
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, **event: Any) -> None:
        """Note an event; this never waits."""
        self._number += 1
        self._events.append({"n": self._number, **event})
        self._wake.set()

    def leave(self) -> None:
        """Send nothing more but the wish to be forgotten."""
        self._leaving.set()
        self._wake.set()

    def _run(self) -> None:
        who = {"learner": self._learner, "session": self._session, "nickname": self._nickname}
        self._deliver("events", {**who, "events": []}, self._leaving)
        while not self._leaving.is_set() and not self.refusal:
            self._wake.wait()
            self._wake.clear()
            while (batch := self._take()) and not self._leaving.is_set() and not self.refusal:
                self._deliver("events", {**who, "events": batch}, self._leaving)
        if self._leaving.is_set():
            self._deliver("leave", {"learner": self._learner}, threading.Event())

    def _take(self) -> list[dict[str, Any]]:
        batch: list[dict[str, Any]] = []
        with contextlib.suppress(IndexError):
            while len(batch) < BATCH:
                batch.append(self._events.popleft())
        return batch

    def _deliver(self, name: str, message: dict[str, Any], stop: threading.Event) -> None:
        """Send a message until it has arrived, is refused, or need not be sent."""
        body = json.dumps(message, ensure_ascii=False).encode()
        request = urllib.request.Request(self._url + name, body)
        for wait in itertools.chain(WAITS, itertools.repeat(WAITS[-1])):
            # Whatever goes wrong is no business of the notebook: no network, another server here.
            with contextlib.suppress(Exception):
                try:
                    with OPEN(request, timeout=TIMEOUT) as answer:
                        arrived = answer.headers["Server"] == "qlearn"
                except urllib.error.HTTPError as error:
                    arrived = error.code < 500
                    if error.code == 404:  # another link; any other refusal costs this message only
                        self.refusal = "it answers 404"
                if arrived:
                    self.answered.set()
                    return
            if stop.wait(wait):
                return


def join(url: str, nickname: str) -> None:
    """Join the board of a room: from now on it is told how checks of exercises end.

    It gets the nickname; of each test cell and your-turn cell its name, and whether it passed or
    the check's sentence; and what you share yourself, with `share`. No code, no path, no account.
    A lost connection never stops a cell: what is to be sent waits in a thread of its own.

    Parameters
    ----------
    url
        What the board shows, such as "http://192.168.0.2:8700/…/".
    nickname
        At most 24 characters; the same name in every notebook.

    Raises
    ------
    ValueError
        If the address or the nickname is none, or no board is at the address.
    """
    global _sender
    url, nickname = require_names(url, nickname)
    _part()
    sender = _Sender(url, read_identity(), nickname)
    if sender.answered.wait(JOINING) and sender.refusal:
        raise ValueError(
            f"No board is at this address ({sender.refusal}): copy all of what the board shows."
        )
    _sender = sender
    listeners.append(_tell)
    if (shell := _shell()) is not None:
        shell.events.register("post_run_cell", _after_cell)
    reached = "" if sender.answered.is_set() else " It does not answer yet; this waits for it."
    print(f"Joined as {nickname}.{reached} qlearn.leave() ends it.")


def require_names(url: str, nickname: str) -> tuple[str, str]:
    """Return a board's address and a nickname as they are used, or raise ValueError."""
    if not re.fullmatch(r"https?://[^/\s]+/\S+", url):
        raise ValueError(f"{url!r} is no address of a board: copy all of what the board shows.")
    nickname = nickname.strip()
    if not (0 < len(nickname) <= 24 and nickname.isprintable()):
        raise ValueError("A nickname has 1 to 24 characters, on one line.")
    return url.rstrip("/") + "/", nickname


def leave() -> None:
    """Leave the board, which forgets everything that you sent; without a board nothing happens."""
    if _sender is not None:
        _sender.leave()
        (home() / "room" / "learner").unlink(missing_ok=True)
        _part()
        print("Left. The board forgets what you sent.")


def raise_hand(up: bool = True) -> None:
    """Ask for help, on the board; your next check that passes takes the hand down."""
    _joined().put(hand=up)
    print("The board shows your hand." if up else "Your hand is down.")


def share(name: str, table: "pd.DataFrame") -> None:
    """Show a measured table on the board, beside everybody else's.

    Parameters
    ----------
    name
        "speedup" (lesson 00) or "crossover" (lesson 02).
    table
        With the columns ``speedup``, ``speedup_low`` and ``speedup_high``, as `compare` gives
        them, and at most 40 rows; the index is their labels. A row without an interval, which is
        what the others are compared with, is left out.

    Raises
    ------
    ValueError
        If nothing is joined, or the name or the table is another.
    """
    if name not in SHARED:
        raise ValueError(f"{name!r} cannot be shared: choose from {', '.join(SHARED)}.")
    columns = ["speedup", "speedup_low", "speedup_high"]
    if not set(columns) <= set(getattr(table, "columns", [])):
        raise ValueError(f"The table lacks {', '.join(columns)}: give one of qlearn.compare.")
    rows = []
    for label, (speedup, low, high) in zip(table.index, table[columns].values, strict=True):
        if low < high:
            parts = label if isinstance(label, tuple) else (label,)
            pairs = zip(table.index.names, map(str, parts), strict=True)
            text = ", ".join(" ".join(filter(None, pair)) for pair in pairs)
            rows.append({"label": text[:60], "speedup": speedup, "low": low, "high": high})
    if not 0 < len(rows) <= 40:
        raise ValueError(f"The table has {len(rows)} rows with an interval: share 1 to 40.")
    _joined().put(shared=name, rows=rows)
    print(f"Shared: {len(rows)} {'row' if len(rows) == 1 else 'rows'} of speedups.")


def _after_cell(result: Any) -> None:
    """Tell the board how a test cell of an exercise has ended."""
    check = _CHECK.search(result.info.raw_cell or "")
    if check is None or run.begun is None:
        return
    error = result.error_in_exec or result.error_before_exec
    sentence = ""
    if error is not None:
        sentence = f"The check ended with a {type(error).__name__}."
        if isinstance(error, AssertionError):
            with contextlib.suppress(Exception):
                sentence = str(error)
    _tell(f"{run.begun} {check[1].replace('_', ' ')}", error is None, sentence)


def _tell(part: str, passed: bool, sentence: str) -> None:
    if _sender is not None:
        line = " ".join(_PATH.sub("…", sentence).split())
        printable = "".join(filter(str.isprintable, line))[:SENTENCE]
        _sender.put(part=part, passed=passed, sentence=printable)


def _joined() -> _Sender:
    if _sender is None:
        raise ValueError("You have joined no board: qlearn.join(its address, a nickname).")
    return _sender


def _part() -> None:
    """Stop sending, if this notebook has joined a board."""
    global _sender
    if _tell in listeners:
        listeners.remove(_tell)
    if _sender is not None and (shell := _shell()) is not None:
        with contextlib.suppress(ValueError):
            shell.events.unregister("post_run_cell", _after_cell)
    _sender = None


def _shell() -> Any:
    from IPython import get_ipython

    return get_ipython()


def read_identity() -> str:
    """Return a random number that is this learner's in all notebooks, until they leave."""
    file, made = home() / "room" / "learner", secrets.token_hex(16)
    with contextlib.suppress(OSError):
        if file.exists():
            return file.read_text(encoding="ascii")
        with write_whole(file) as unfinished:
            unfinished.write_text(made, encoding="ascii")
    return made
