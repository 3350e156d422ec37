"""Every command of the guide for instructors, run in the order in which it has them."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import classes  # first: it makes the tests' own folder known
import nbformat
import pandas as pd
import pytest
from forking import context
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


def main(words, place, environment, output):
    """Do what the program of a command does, in a process that has imported what it needs."""
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1), os.dup2(sink, 2)
    os.environ.update(environment)
    os.chdir(place)
    sys.argv = [str(PROGRAMS / words[0]), *words[1:]]
    (program,) = entry_points(group="console_scripts", name=words[0])
    sys.exit(program.load()())


def forked(words, place, environment, output):
    """Exit code of a command, and what it said."""
    process = context.Process(target=main, args=(words, place, environment, output))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode is not None, f"{words} did not end"
    return process.exitcode, output.read_text()


def started(words, place, environment):
    """The same of the program itself, a new Python."""
    done = subprocess.run(words, cwd=place, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)  # fmt: skip
    return done.returncode, done.stdout


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

    known = set()

    def run(command, place=course):
        # A new Python imports for seconds what nbgrader needs: once for each program is enough.
        words = shlex.split(command)
        if words[0] in known:
            code, text = forked(words, place, environment, tmp_path / "output.txt")
        else:
            code, text = started(words, place, environment)
        known.add(words[0])
        assert code == 0, f"{command}\n{text}"
        said[command] = text

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
