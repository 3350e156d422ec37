"""Every command of the guide for instructors, run in the order in which it has them."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import classes
import nbformat
import pandas as pd
import pytest
from twenty import PATIENCE, until

EXERCISE = "ex1_resnet_dynamic"
NOTEBOOK = f"{EXERCISE}.ipynb"
GUIDE = Path("notebooks") / "teach" / "grading.md"
BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = Path(sys.executable).parent


def commands():
    """The lines of all code blocks of the guide, without their comments."""
    text = (classes.ROOT / GUIDE).read_text()
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [command for line in lines if (command := line.split(" #")[0].strip())
            and not command.startswith("#")]  # fmt: skip


@pytest.fixture
def environment():
    """An activated one."""
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}


def notebook(answer):
    made = classes.answer(classes.WRITE % answer)
    for cell in made.cells[1:3]:
        cell.source = classes.READ + cell.source
    return made


def make(folder):
    """A course whose exercise has the guide's name and is quick; ben's folder, and ann's zip."""
    course = classes.make_course(folder)
    place = course / "solutions" / EXERCISE
    place.mkdir()
    classes.with_artifact(course)
    shutil.move(course / "solutions" / classes.EXERCISE / f"{classes.EXERCISE}.ipynb",
                place / NOTEBOOK)  # fmt: skip
    (folder / "exchange").mkdir(mode=0o777)
    (folder / "exchange").chmod(0o777)
    with open(course / "nbgrader_config.py", "a") as file:
        file.write(f"\nc.Exchange.root = {str(folder / 'exchange')!r}\n")
    (course / "students.csv").write_text(
        "id,first_name,last_name,email\nann,Ann,A,ann@example.org\nben,Ben,B,ben@example.org\n"
    )
    place = course / "classroom" / "submitted" / "ben" / EXERCISE
    place.mkdir(parents=True)
    nbformat.write(notebook(43), place / NOTEBOOK)
    with zipfile.ZipFile(course / "submissions.zip", "w") as archive:
        archive.writestr(f"aann_101_1_{NOTEBOOK}", nbformat.writes(notebook(42)))
    return course


def hand_in_by_exchange(course, folder, run):
    """What a student does between release and collection."""
    folder.mkdir()
    exchange = f"--Exchange.root={course / 'exchange'}"
    for words in (f"fetch_assignment {EXERCISE}", f"submit {EXERCISE}"):
        run(f"nbgrader {words} --course qlearn {exchange}", folder)


@pytest.mark.long
def test_every_command_of_the_guide_does_what_it_says(tmp_path, environment, bubblewrap):
    course = make(tmp_path)
    said, background = {}, []

    def run(command, place=course):
        done = subprocess.run(
            shlex.split(command), cwd=place, env=environment, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout

    port = classes.free_port()
    try:
        for command in commands():
            command = command.replace("ADDRESS", "127.0.0.1").replace("8786", str(port))
            command = command.replace("--nworkers 4", "--nworkers 1")  # four take long to start
            if command.startswith("dask"):
                background.append(subprocess.Popen(
                    shlex.split(command), cwd=tmp_path, env=environment,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                ))  # fmt: skip
                wait_for(port)
            else:
                # Unchanged work would need no cluster.
                run(command + (" --force" if "--scheduler" in command else ""))
            if command.startswith("nbgrader release_assignment"):
                hand_in_by_exchange(course, tmp_path / "student", run)
    finally:
        for process in background:
            process.terminate()
        for process in background:
            process.wait(PATIENCE)
    assert_graded(course, said, f"tcp://127.0.0.1:{port}")


def assert_graded(course, said, scheduler):
    """What the commands said and wrote is what the class has handed in."""
    assert "3 graded." in said[f"qlearn grade {EXERCISE}"]
    assert "2 unchanged." in said[f"qlearn grade {EXERCISE} --students ann,ben"]
    assert "3 graded." in said[f"qlearn grade {EXERCISE} --force"]
    assert "3 graded." in said[f"qlearn grade {EXERCISE} --scheduler {scheduler} --force"]
    assert f"{EXERCISE}: 3 students" in said["qlearn grades"]
    parts = pd.read_csv(course / "parts.csv").groupby("student")["score"].sum()
    totals = pd.read_csv(course / "grades.csv").set_index("student_id")["score"]
    assert parts["ann"] == totals["ann"] == 3 and parts["ben"] == totals["ben"] == 2
    pages = list((course / "classroom" / "feedback").glob(f"*/{EXERCISE}/{EXERCISE}.html"))
    assert len(pages) == 3


def wait_for(port):
    """Wait until the scheduler listens."""

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens)
