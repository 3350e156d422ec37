"""The command itself, with workers of its own, put through a hostile class, Ctrl-C and kills."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import classes
import psutil
import pytest
from hostile import exercise, source
from hostile.files import FILES
from hostile.hidden import HIDDEN
from hostile.work import WORK
from nbgrader.api import Gradebook
from twenty import PATIENCE, graded, until

NOTEBOOK = f"{classes.EXERCISE}.ipynb"
QUICK = ("missing_attachment", "svg_attachment", "links_that_do", "slow_texts", "many_full_cells",
         "scripts_in_text", "ten_thousand_cells", "no_json", "binary", "launcher_handed_in",
         "os_exit", "kill_everything", "forged_messages", "always_equal", "answers_is_a_link",
         "folder_of_sockets_nested", "becomes_root")  # fmt: skip
HONEST = {name.replace("-", "_"): code for name, code in exercise.HONEST.items()}
BANK = WORK | HIDDEN | FILES
pytestmark = pytest.mark.usefixtures("bubblewrap")


def command(course, temporary, *options):
    """`qlearn grade`, as in a terminal: a process group of its own, which hears Ctrl-C."""
    return subprocess.Popen(
        [Path(sys.executable).parent / "qlearn", "grade", classes.EXERCISE, *options],
        cwd=course,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def hand_in(course, student, notebook, files=()):
    place = classes.submitted(course, student)
    for name, content in ((NOTEBOOK, notebook), *files):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def points(course):
    with Gradebook(f"sqlite:///{course / 'classroom' / 'gradebook.db'}") as gradebook:
        return {
            (submission.student.id, grade.name): grade.auto_score
            for submission in gradebook.assignment_submissions(classes.EXERCISE)
            for notebook in submission.notebooks
            for grade in notebook.grades
        }


@pytest.mark.long
def test_a_hostile_class_is_graded_whole(tmp_path, temporary):
    """Each has a verdict and a page; the honest first and last have all points."""
    course = classes.make_course(tmp_path, gradebook=False)
    (course / "solutions" / classes.EXERCISE / NOTEBOOK).write_bytes(source())
    for student in ("ann", "zoe"):
        hand_in(course, student, exercise.notebook(**HONEST))
    for name in QUICK:
        hand_in(course, name, BANK[name].notebook, BANK[name].files)
    process = command(course, temporary, "--workers", "2", "--timeout", "60", "--memory", "1500")
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, said
    assert "Traceback" not in said and "failed  " not in said, said
    wanted = dict.fromkeys(("ann", "zoe"), exercise.EARNED)
    wanted |= {name: BANK[name].points for name in QUICK}
    found = points(course)
    for student, parts in wanted.items():
        assert {part: found[student, part] for part in parts} == parts, student
        page = course / "classroom" / "feedback" / student / classes.EXERCISE / "tiny.html"
        assert "cannot be shown" not in page.read_text() and "javascript:" not in links(page)
    assert not list(temporary.glob("qr-*/*"))


def links(page):
    """What a page's links and pictures point to."""
    import bs4

    found = bs4.BeautifulSoup(page.read_text(), "html.parser").find_all(["a", "img"])
    return " ".join(str(one.get("href") or one.get("src")) for one in found).lower()


def slow_class(tmp_path, seconds):
    course = classes.make_course(tmp_path, gradebook=False)
    classes.with_artifact(course)
    for student in ("ann", "ben", "cem"):
        pause = 0 if student == "ann" else seconds
        classes.hand_in(course, student, f"import time; time.sleep({pause})\n" + classes.WRITE % 42)
    return course


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.long), 2])
def test_ctrl_c_reaches_the_whole_group(tmp_path, temporary, times):
    """What runs is finished after the first, and ended after the second; nothing is left."""
    course = slow_class(tmp_path, 4 if times == 1 else 300)
    process = command(course, temporary, "--workers", "1")
    until(lambda: graded(course))
    until(lambda: list(temporary.glob("qr-*/*")))
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)  # two at once are one
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130 and "Traceback" not in said, said
    assert graded(course) == said.count("graded    ") == (2 if times == 1 else 1), said
    again = command(course, temporary, "--workers", "1", "--students", "ann")
    assert "1 unchanged." in again.communicate(timeout=PATIENCE)[0]
    assert not kernels(temporary)


def kernels(temporary):
    """Processes that were started for the class and are still there."""
    lines = (one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(temporary) in " ".join(line)]


@pytest.mark.long
def test_what_was_killed_leaves_nothing_after_the_next_run(tmp_path, temporary):
    course = slow_class(tmp_path, 300)
    process = command(course, temporary, "--workers", "1")
    until(lambda: graded(course))
    until(lambda: list(temporary.glob("qr-*/*")))
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()
    left = set(temporary.glob("qr-*"))
    assert left, "nobody could remove it"
    classes.hand_in(course, "ben", classes.WRITE % 42)
    again = command(course, temporary, "--workers", "1", "--students", "ben")
    assert "1 graded." in again.communicate(timeout=PATIENCE)[0]
    assert not left & set(temporary.glob("qr-*"))
    assert not list(temporary.glob("qr-*/*")) and not kernels(temporary)
