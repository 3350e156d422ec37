"""`qlearn room`: the board and the phone lab, served by the teacher's machine to a room."""

import datetime
import io
import json
import re
import secrets
import threading
from pathlib import Path
from typing import Any

import segno

from qlearn.room.board import Board
from qlearn.room.phone.model_files import MODELS, write_bundles
from qlearn.room.phone.report_log import Reports, compute_speedup
from qlearn.room.phone.runtime import fetch_runtime
from qlearn.room.phone.session import (
    LOOPBACK,
    ROUNDS,
    QRCode,
    find_lan_address,
    lab_site,
    list_resources,
)
from qlearn.room.server import Server, Site
from qlearn.system.cache import home, write_whole
from qlearn.system.lab import COURSE

PAGE = Path(__file__).parent / "page"
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # what is read from a projector is not mistaken
TOKEN_LENGTH = 10  # 49 bits


class Room:
    """A running room; made by ``open_room``.

    Attributes
    ----------
    url : str
        The link for learners; after a restart with the same file it is the same.
    file : Path
        Where what they send is kept.
    """

    def __init__(self, address: str, port: int, board: Board, lab: Site, phones: Reports) -> None:
        self.file, link = board.path, board.path.with_suffix(".link")
        kept = json.loads(link.read_text(encoding="utf-8")) if link.exists() else {}
        token = kept.get("token") or "".join(secrets.choice(ALPHABET) for _ in range(TOKEN_LENGTH))
        port = port or kept.get("port", 0)
        pages = {"": "index.html", "board.css": "board.css", "board.js": "board.js"}
        site = Site(
            {name: PAGE / file for name, file in pages.items()},
            {"events": board.take, "leave": board.forget},
            {"state": lambda name: {**board.summarize(), "phones": list_phones(phones)}},
        )
        try:
            self._server = Server(address, port, site | lab.prefixed("phone/"), token)
        except OSError as error:
            raise OSError(
                f"The board cannot listen on {address}, port {port} ({error.strerror or error}): "
                "choose another port or address."
            ) from error
        self.url = f"http://{address}:{self._server.port}/{token}/"
        self._server.site.resources["phone.svg"] = draw_code(f"{self.url}phone/")
        with write_whole(link) as unfinished:
            unfinished.touch(mode=0o600)  # whoever has the token can send
            unfinished.write_text(json.dumps({"token": token, "port": self._server.port}))

    def stop(self) -> None:
        """Stop serving; what was sent stays in the file."""
        self._server.stop()


def open_room(lan: bool, address: str | None, port: int, log: Path | None) -> Room:
    """Start the board with the phone lab beside it.

    Parameters
    ----------
    lan
        Whether to listen on this machine's address on the network; else only this machine can.
    address
        The address to listen on, where ``lan`` takes the wrong one.
    port
        TCP port; 0 takes that of the run before, or a free one.
    log
        The file that learners' events are added to; by default one a day in the cache.

    Raises
    ------
    RuntimeError
        If this machine has no address on a network.
    OSError
        If the address cannot be listened on, or the file cannot be written.
    """
    address = address or (find_lan_address() if lan else LOOPBACK)
    path = log or home() / "room" / f"board-{datetime.date.today().isoformat()}.jsonl"
    phones = Reports(path.with_name(f"{path.stem}-phones.jsonl"))
    try:
        resources = list_resources(write_bundles(list(MODELS)), fetch_runtime(), ROUNDS)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"The board starts without the phone lab. {error}")
        resources = {}
    lab = lab_site(resources, phones, lambda report: None)  # the page asks for what is new
    return Room(address, port, Board(path, known_parts()), lab, phones)


def known_parts() -> list[str]:
    """Return the test cells of the exercises and the your-turn cells of the lessons, in order."""
    found = []
    for path in sorted((COURSE / "notebooks").glob("[0-9]*.ipynb")):
        found += re.findall(r'your_turn\(\s*\\"([^"\\]+)', path.read_text(encoding="utf-8"))
    for path in sorted((COURSE / "notebooks" / "exercises").glob("*/*.ipynb")):
        names = re.findall(r"def check_test_(\w+)\(\)", path.read_text(encoding="utf-8"))
        found += [f"{path.stem.partition('_')[0]} {name.replace('_', ' ')}" for name in names]
    return found


def list_phones(reports: Reports) -> list[dict[str, Any]]:
    """Return each phone's last times and speedup, a row for each model."""
    rows = []
    for number, report in enumerate(reports.latest(), 1):
        for name, runs in report["models"].items():
            times = {f"{precision}_ms": run["median_ms"] for precision, run in runs.items()}
            who = report["nickname"] or f"phone {number}"
            rows.append({"phone": who, "model": MODELS[name].title, **times,
                         "speedup": compute_speedup(runs)})  # fmt: skip
    return rows


def draw_code(url: str) -> bytes:
    """Return a link's QR code as SVG."""
    content = io.BytesIO()
    segno.make_qr(url, error="m").save(content, kind="svg", scale=8, dark="#000", light="#fff")
    return content.getvalue()


def serve_until_interrupted(room: Room) -> None:
    """Print how to reach a room; Ctrl-C stops it."""
    print(QRCode(room.url))
    print(f"The board: {room.url}")
    print(f'Learners join with: qlearn.join("{room.url}", "a nickname")')
    print(f"What they send is kept in {room.file}. Ctrl-C stops.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    room.stop()
    print("\nStopped. The same command goes on with the same link.")
