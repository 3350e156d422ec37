"""`qlearn doctor --send`: which of a laptop's rows are ok, on the board of a room."""

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterable

from qlearn.room import learner
from qlearn.system.doctor import Finding


def send(url: str, nickname: str, findings: Iterable[Finding]) -> None:
    """Send the verdict of each finding to a board: no path, no version, nothing else of it.

    Parameters
    ----------
    url, nickname
        As `qlearn.join` takes them; the board takes both for the same learner.
    findings
        What ``doctor.examine`` has found.

    Raises
    ------
    ValueError
        If the address or the nickname is none, or the board refuses what it gets.
    OSError
        If no board answers.
    """
    url, nickname = learner.require_names(url, nickname)
    rows = [{"subject": finding.subject, "verdict": finding.verdict} for finding in findings]
    who = {"learner": learner.read_identity(), "session": secrets.token_hex(16)}
    message = {**who, "nickname": nickname, "events": [{"n": 1, "laptop": rows}]}
    request = urllib.request.Request(f"{url}events", json.dumps(message).encode())
    try:
        with learner.OPEN(request, timeout=learner.TIMEOUT) as answer:
            board = answer.headers["Server"] == "qlearn"
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise ValueError(f"No board is at {url}: copy all of what the board shows.") from error
        raise OSError(f"The board does not take this ({error.code}): tell the teacher.") from error
    except OSError as error:
        raise OSError(f"No board answers at {url} ({error}): join the room's network.") from error
    if not board:
        raise OSError(f"What answers at {url} is no board: log in to the room's network.")
