"""Whatever dies while a class is graded: no grade is lost, none doubled, the next call goes on."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time

import classes
import pytest

CLASS = 20
KILLS = 50  # of the coordinator, each at a random moment
PATIENCE = 300  # seconds for what should take one


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Scheduler and two workers, which outlive the coordinators of these tests."""
    place = tmp_path_factory.mktemp("cluster")
    port = classes.free_port()
    address = f"tcp://127.0.0.1:{port}"
    processes = [classes.scheduler_at(port, place)]
    processes += [classes.worker_of(address, place, name) for name in ("one", "two")]
    yield address
    classes.end(processes)


def a_class(folder, seconds=0.0, name="course", gradebook=True):
    """A course with twenty submissions, none like another."""
    (folder / name).mkdir()
    course = classes.make_course(folder / name, gradebook)
    for number in range(CLASS):
        work = f"import time\ntime.sleep({seconds})\nanswer = {32 + number}"
        classes.hand_in(course, f"student-{number:02}", work)
    return course


def expected():
    """Points of each student's tests, from what the work cells say."""
    answers = {f"student-{number:02}": 32 + number for number in range(CLASS)}
    points = {(student, "test"): 2 * (answer > 40) for student, answer in answers.items()}
    return points | {
        (student, "test-hidden"): answer % 2 == 0 for student, answer in answers.items()
    }


def assert_whole(course):
    """Every student has the grades of an undisturbed run, once, and what goes with them."""
    found = classes.grades(course)
    scores = {(who, part): found[who, part][0] for who, part in expected()}
    assert scores == expected()
    with sqlite3.connect(course / "classroom" / "gradebook.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (rows,) = database.execute("SELECT COUNT(*) FROM grade").fetchone()
        (records,) = database.execute("SELECT COUNT(*) FROM qlearn_verdict").fetchone()
        database.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    assert (rows, records) == (3 * CLASS, CLASS)
    for step, name in (("autograded", "tiny.ipynb"), ("feedback", "tiny.html")):
        places = {path.parts[-3] for path in (course / "classroom" / step).glob(f"*/tiny/{name}")}
        assert places == {who for who, _ in expected()}
        assert not [path for path in (course / "classroom" / step).glob("*/.tiny*")]


def finish(course, cluster, **options):
    """Grade, undisturbed, what is left."""
    process = classes.start(course, scheduler=cluster, **options)
    process.join(PATIENCE)
    assert process.exitcode == 0, (course / "output.txt").read_text()[-3000:]


def graded(course):
    """How many grades are kept; 0 while there is no gradebook."""
    path = course / "classroom" / "gradebook.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path, timeout=30) as database:
        try:
            return database.execute("SELECT COUNT(*) FROM qlearn_verdict").fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # the table comes later


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.02)


def test_a_coordinator_killed_at_fifty_random_moments_loses_and_doubles_nothing(tmp_path, cluster):
    undisturbed = a_class(tmp_path, name="undisturbed")
    finish(undisturbed, cluster)  # the workers' start is not part of what is measured
    began = time.monotonic()
    finish(undisturbed, cluster, force=True)
    whole_run = time.monotonic() - began
    assert_whole(undisturbed)
    moments = random.Random(20)
    kills, classes_graded, kept = 0, 0, set()
    while kills < KILLS:
        course = a_class(tmp_path, name=f"class-{classes_graded}", gradebook=classes_graded > 0)
        process = classes.start(course, scheduler=cluster)
        while process.exitcode is None and kills < KILLS:
            process.join(moments.uniform(0, whole_run))
            if process.exitcode is None:
                before = graded(course)
                process.kill()
                process.join()
                assert graded(course) >= before, "a kept grade was lost"
                kept.add(before)
                kills += 1
                process = classes.start(course, scheduler=cluster)
        process.join(PATIENCE)
        assert process.exitcode == 0
        finish(course, cluster)
        assert_whole(course)
        assert classes.grades(course) == classes.grades(undisturbed)
        shutil.rmtree(course)
        classes_graded += 1
    print(f"{kills} kills, {classes_graded} classes, after {sorted(kept)} kept grades")
    assert len(kept) > 5, "the moments were spread over the class"


def test_ctrl_c_at_any_moment_keeps_what_is_graded_and_the_next_call_goes_on(tmp_path, cluster):
    course = a_class(tmp_path, seconds=0.05)
    moments = random.Random(3)
    stopped, whole_run = 0, 1.5
    for _ in range(8):
        before, began = graded(course), time.monotonic()
        process = classes.start(course, scheduler=cluster)
        process.join(moments.uniform(0, whole_run))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
            process.join(PATIENCE)
            stopped += process.exitcode == 130
        # A busy machine takes longer: the next moment comes as late as this run has ended.
        whole_run = max(whole_run, time.monotonic() - began)
        assert graded(course) >= before
    output = (course / "output.txt").read_text()
    assert stopped and "Traceback" not in output, output[-3000:]
    finish(course, cluster)
    assert_whole(course)


def test_ctrl_c_finishes_what_runs(tmp_path, cluster):
    course = a_class(tmp_path, seconds=0.5)
    process = classes.start(course, scheduler=cluster)
    until(lambda: graded(course))
    os.kill(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    assert process.exitcode == 130
    said = (course / "output.txt").read_text()
    assert "Stopped: the same command goes on where it was." in said
    # No verdict that a worker made was thrown away: each line is a grade that is kept.
    assert said.count("graded    student") == graded(course) < CLASS
    finish(course, cluster)
    assert_whole(course)


def test_a_worker_killed_while_it_grades_costs_no_grade(tmp_path):
    """The student's work kills the worker, the first time; nannies start another."""
    course = a_class(tmp_path, seconds=0.05)
    marker = course / "killed"
    work = f"""
import os, pathlib, signal
if not pathlib.Path({str(marker)!r}).exists():
    pathlib.Path({str(marker)!r}).touch()
    os.kill(os.getpid(), signal.SIGKILL)
answer = 42
"""
    classes.hand_in(course, "student-10", work)
    process = classes.start(course, workers=2)
    process.join(PATIENCE)
    assert process.exitcode == 0, (course / "output.txt").read_text()
    assert marker.exists()
    assert_whole(course)


def test_a_submission_that_kills_every_worker_fails_alone(tmp_path):
    course = a_class(tmp_path)
    classes.hand_in(course, "student-10", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    process = classes.start(course, workers=1)
    process.join(PATIENCE)
    said = (course / "output.txt").read_text()
    assert process.exitcode == 1
    assert "failed    student-10: RuntimeError: 4 workers died while they graded it" in said
    assert graded(course) == CLASS - 1
    classes.hand_in(course, "student-10", "answer = 42")
    process = classes.start(course, workers=1)
    process.join(PATIENCE)
    assert_whole(course)


def test_the_scheduler_lost_and_back_costs_no_grade(tmp_path):
    course = a_class(tmp_path, seconds=0.2)
    port = classes.free_port()
    address = f"tcp://127.0.0.1:{port}"
    first = [classes.scheduler_at(port, tmp_path), classes.worker_of(address, tmp_path, "first")]
    second = []
    try:
        process = classes.start(course, scheduler=address)
        until(lambda: graded(course) > 2)
        classes.end(first)
        before = graded(course)
        second += [classes.scheduler_at(port, tmp_path)]
        second += [classes.worker_of(address, tmp_path, "second")]
        process.join(PATIENCE)
    finally:
        classes.end([*first, *second])
    said = (course / "output.txt").read_text()
    assert process.exitcode == 0, said[-3000:]
    assert before < CLASS and "is gone" in said
    assert said.count("graded    student") == CLASS
    assert_whole(course)


def test_a_locked_gradebook_is_waited_for(tmp_path, cluster):
    course = a_class(tmp_path)
    finish(course, cluster)
    with sqlite3.connect(course / "classroom" / "gradebook.db") as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        process = classes.start(course, scheduler=cluster, force=True)
        process.join(3)
        assert process.exitcode is None, "it waits"
        other.execute("ROLLBACK")
        process.join(PATIENCE)
    assert process.exitcode == 0
    assert_whole(course)


def test_a_gradebook_that_stays_locked_gets_a_sentence(tmp_path, cluster, monkeypatch, capsys):
    from qlearn.grading import gradebook

    course = a_class(tmp_path)
    finish(course, cluster)
    monkeypatch.setattr(gradebook.ClassGradebook.__init__, "__defaults__", (0.2,))
    with sqlite3.connect(course / "classroom" / "gradebook.db") as other:
        other.isolation_level = None
        other.execute("BEGIN EXCLUSIVE")
        assert classes.coordinate(course, scheduler=cluster, force=True) == 1
        other.execute("ROLLBACK")
    assert "Another program has held the gradebook" in capsys.readouterr().err
    assert_whole(course)


def test_a_full_disk_gets_a_sentence_and_loses_nothing(tmp_path, cluster):
    course = a_class(tmp_path)
    room = course / "classroom" / "small"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(room)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        with open(course / "nbgrader_config.py", "a") as file:
            for step in ("autograded", "feedback"):
                file.write(f"c.CourseDirectory.{step}_directory = 'classroom/small/{step}'\n")
        process = classes.start(course, scheduler=cluster)
        process.join(PATIENCE)
        said = (course / "output.txt").read_text()
        assert process.exitcode == 1 and "Traceback" not in said
        assert "The disk is full: make room" in said
        assert 0 < graded(course) < CLASS
        subprocess.run([*mount[:3], "-o", "remount,size=100m", "tmpfs", str(room)], check=True)
        finish(course, cluster)
        for step in ("autograded", "feedback"):
            shutil.copytree(room / step, course / "classroom" / step, dirs_exist_ok=True)
        assert_whole(course)
    finally:
        subprocess.run(["umount", str(room)], check=True)
