"""The hostile bank through plain `nbgrader autograde` and through `qlearn grade`: both columns.

nbgrader runs what learners wrote with the rights of whoever grades, so here it works as a whole in
a sandbox of ours, in a class of three: an honest student before the hostile one, and one after.
`qlearn grade` has the whole bank as one class.
"""

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmark import Report
from classes import CONFIGURATION, EXERCISE
from hostile import Attack, artifacts, exercise, source
from hostile.artifacts import ARTIFACTS
from hostile.files import FILES
from hostile.hidden import HIDDEN
from hostile.work import WORK
from measured import measured
from nbgrader.api import Gradebook

from qlearn.grading.limits import Limits
from qlearn.grading.sandbox import INSIDE, USER_COUNT, USERS, command_of, user

NUMBERS = {name.replace("-", "_"): code for name, code in exercise.HONEST.items()}
SECRET = "a word that nobody hands in"
TIMEOUT = 20  # seconds of a cell under nbgrader, and of a submission under ours
LIMITS = Limits(memory_mb=3000, processes=200, file_mb=1100)
# Run in nbgrader's sandbox: autograde, then what is still running and who has called.
INNER = f"""
import json, os, socket, subprocess
server = socket.create_server(("127.0.0.1", 9099))
server.setblocking(False)
before = {{name for name in os.listdir("/proc") if name.isdigit()}}
try:
    subprocess.run(["nbgrader", "autograde", "{EXERCISE}"], timeout={10 * TIMEOUT},
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
except subprocess.TimeoutExpired:
    pass
left = len({{name for name in os.listdir("/proc") if name.isdigit()}} - before)
try:
    called = bool(server.accept())
except BlockingIOError:
    called = False
print(json.dumps({{"left": left, "called": called}}))
"""


@dataclass(frozen=True)
class Bank:
    """The author's notebook, an honest submission, and hostile ones."""

    source: bytes
    honest: Attack
    attacks: dict[str, Attack]


BANKS = [
    Bank(source(), Attack(exercise.notebook(**NUMBERS), exercise.EARNED), WORK | HIDDEN | FILES),
    Bank(artifacts.source(), ARTIFACTS["honest_model"], ARTIFACTS),
]


def make(folder: Path, bank: Bank, attacks: dict[str, Attack]) -> Path:
    """A course with the bank's exercise and a class: ann and zoe are honest."""
    (folder / "nbgrader_config.py").write_text(
        f"{CONFIGURATION}\nc.ExecutePreprocessor.timeout = {TIMEOUT}\n"
    )
    author = folder / "solutions" / EXERCISE / f"{EXERCISE}.ipynb"
    author.parent.mkdir(parents=True)
    author.write_bytes(bank.source)
    measured(folder, "nbgrader", "generate_assignment", EXERCISE)
    (folder / "classroom" / "secret").write_text(SECRET)
    for student, attack in {"ann": bank.honest, **attacks, "zoe": bank.honest}.items():
        place = folder / "classroom" / "submitted" / student / EXERCISE
        place.mkdir(parents=True)
        notebook = attack.notebook.replace(b"PLACE", f"{INSIDE}/classroom".encode())
        notebook = notebook.replace(b"REPOSITORY", str(INSIDE).encode()).replace(b"PORT", b"9099")
        notebook = notebook.replace(b"CANARY", b"nobody listens")
        (place / f"{EXERCISE}.ipynb").write_bytes(notebook)
        for name, content in attack.files:
            if ".." not in name and not name.startswith("/"):
                with contextlib.suppress(OSError):
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(content)
    return folder


def points(course: Path) -> dict[str, dict[str, float]]:
    """Points of each student's tests; nobody's where the gradebook can no longer be read."""
    found: dict[str, dict[str, float]] = {}
    path = course / "classroom" / "gradebook.db"
    try:
        with contextlib.closing(Gradebook(f"sqlite:///{path}", "qlearn")) as gradebook:
            for submission in gradebook.assignment_submissions(EXERCISE):
                for notebook in submission.notebooks:
                    found[submission.student.id] = {
                        grade.name: grade.score for grade in notebook.grades
                        if grade.name in exercise.POINTS and grade.auto_score is not None
                    }  # fmt: skip
    except Exception as error:  # whatever reading a destroyed database raises
        print(f"the gradebook cannot be read: {type(error).__name__}", file=sys.stderr)
    return found


def said_of(attack: Attack, got: dict[str, float] | None) -> str:
    """What became of a hostile student's points, in a word or two."""
    if not got:
        return "no grade"
    gained = sum(got.values()) - sum(attack.points.values())
    return "as deserved" if not gained else f"{gained:+g} of {sum(exercise.POINTS.values())}"


def by_nbgrader(bank: Bank, attack: Attack) -> str:
    """Grade ann, the attack and zoe with nbgrader, and say what came of it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        course = make(Path(folder), bank, {"eve": attack})
        number = user()
        if number is not None:
            subprocess.run(["chown", "-R", f"{number}:{number}", folder], check=True)
        command = command_of(sys.executable, "-c", INNER, folder=folder, limits=LIMITS, user=number)
        run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        said = run.stdout.splitlines()
        seen = json.loads(said[-1]) if said else {"left": 0, "called": False, "killed": True}
        found = points(course)
        notebook = course / "classroom" / "autograded" / "eve" / EXERCISE / f"{EXERCISE}.ipynb"
        shown = notebook.read_text(errors="replace") if notebook.is_file() else ""
        harm = {
            "others lost": any(found.get(who) != bank.honest.points for who in ("ann", "zoe")),
            "secret read": SECRET in shown,
            "network": seen["called"],
            "processes left": seen["left"] > 0,
            "the grader killed": "killed" in seen,
            "over 5 MB kept": len(shown) > 5_000_000,
        }
    return ", ".join([said_of(attack, found.get("eve")), *(word for word in harm if harm[word])])


def by_qlearn(bank: Bank, attacks: dict[str, Attack]) -> dict[str, str]:
    """Grade ann, the whole bank and zoe as one class, and say what came of it by attack."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        socket.create_server(("127.0.0.1", 9099)) as server,
    ):
        server.setblocking(False)
        course = make(Path(folder), bank, attacks)
        measured(course, "qlearn", "grade", EXERCISE, "--timeout", str(TIMEOUT),
                 "--memory", "1500", "--json")  # fmt: skip
        found = points(course)
        kept = course / "classroom" / "autograded"
        shown = {
            path.parts[-3]: path.read_text(errors="replace")
            for path in kept.glob(f"*/{EXERCISE}/{EXERCISE}.ipynb")
        }
        harm = {
            "others lost": any(found.get(who) != bank.honest.points for who in ("ann", "zoe")),
            "network": _was_called(server),
            "processes left": any(_is_sandboxed(one) for one in psutil.process_iter(["uids"])),
        }
    ours = {}
    for name, attack in attacks.items():
        own = {"secret read": SECRET in shown.get(name, ""),
               "over 5 MB kept": len(shown.get(name, "")) > 5_000_000}  # fmt: skip
        words = [word for word, found_ in (harm | own).items() if found_]
        ours[name] = ", ".join([said_of(attack, found.get(name)), *words])
    return ours


def _was_called(server: socket.socket) -> bool:
    try:
        return bool(server.accept())
    except BlockingIOError:
        return False


def _is_sandboxed(process: psutil.Process) -> bool:
    return USERS <= process.info["uids"].real < USERS + USER_COUNT


def main() -> None:
    """Write a row for each attack as soon as nbgrader is done with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="Step through the bank.")
    parser.add_argument("--output", type=Path, default=Path("bench/hostile.md"))
    options = parser.parse_args()
    report = Report(options.output)
    report.say("# The hostile bank", "", "| submission | nbgrader autograde | qlearn grade |",
               "|---|---|---|")  # fmt: skip
    for bank in BANKS:
        some = dict([*bank.attacks.items()][:: options.every])
        ours = by_qlearn(bank, some)
        for name, attack in some.items():
            report.say(f"| {name} | {by_nbgrader(bank, attack)} | {ours[name]} |")


if __name__ == "__main__":
    main()
