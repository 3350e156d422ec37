"""Whatever fails while a class is graded: no grade is lost, none doubled, the next call goes on."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess

import classes
import pytest
from twenty import CLASS, PATIENCE, a_class, assert_whole, finish, graded, until


def test_ctrl_c_at_any_moment_keeps_what_is_graded_and_the_next_call_goes_on(tmp_path, cluster):
    course = a_class(tmp_path, seconds=0.05)
    moments, stopped = random.Random(3), 0
    for number in range(8):
        before = graded(course)
        process = classes.start(course, scheduler=cluster)
        if number % 2:  # in the middle, however slow the machine is; else while it starts
            until(lambda: process.exitcode is not None or graded(course) > before)  # noqa: B023
        process.join(moments.uniform(0, 0.2 if number % 2 else 1.5))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
            process.join(PATIENCE)
            stopped += process.exitcode == 130
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
    assert "failed    student-10: RuntimeError: " in said and said.count("failed    ") == 1
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
    monkeypatch.setattr(gradebook, "LOCK_TIMEOUT", 0.2)
    with sqlite3.connect(course / "classroom" / "gradebook.db") as other:
        other.isolation_level = None
        other.execute("BEGIN EXCLUSIVE")
        assert classes.coordinate(course, scheduler=cluster, force=True) == 1
        other.execute("ROLLBACK")
    assert "Another program has held the gradebook" in capsys.readouterr().err
    assert_whole(course)


@pytest.mark.parametrize("room", [0, 50_000, 1_500_000])
def test_a_full_disk_gets_a_sentence_and_loses_nothing(tmp_path, cluster, room):
    """Gradebook, graded notebooks and feedback are on it, and there is some room at first."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        course = a_class(tmp_path)
        shutil.move(course / "classroom", small)
        (course / "classroom").symlink_to(small / "classroom")
        free = shutil.disk_usage(small).free
        with open(small / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free - room)
        process = classes.start(course, scheduler=cluster)
        process.join(PATIENCE)
        (small / "filler").unlink()
        said = (course / "output.txt").read_text()
        assert process.exitcode == 1 and "Traceback" not in said, said
        assert "The disk is full: make room" in said
        assert graded(course) < CLASS
        finish(course, cluster)
        assert_whole(course)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
