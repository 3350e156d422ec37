"""Processes killed at random moments of grading: no grade is lost, none doubled."""

import itertools
import random
import shutil
import time
from contextlib import suppress

import classes
import psutil
import pytest
from twenty import CLASS, PATIENCE, a_class, assert_whole, finish, graded, until

KERNEL_KILLS = 5  # at least, in one class


def wait_for(process, course, grades):
    """Wait until so many grades are kept, or the coordinator has ended."""
    until(lambda: process.exitcode is not None or graded(course) >= grades)


def at_a_moment(process, course, moments, whole_run):
    """Wait for a random moment: of the time that a run takes, or soon after a random grade."""
    if moments.random() < 0.3:
        process.join(moments.uniform(0, whole_run))
    else:
        wait_for(process, course, graded(course) + moments.randint(1, 4))
        process.join(moments.uniform(0, 0.05))


# How often the coordinator or a worker is killed, and the seed of the moments.
@pytest.mark.parametrize("wanted, seed", [(12, 20), pytest.param(38, 21, marks=pytest.mark.long)])
def test_kills_at_random_moments_lose_and_double_nothing(wanted, seed, tmp_path, workshop):
    undisturbed = a_class(tmp_path, name="undisturbed")
    began = time.monotonic()
    finish(undisturbed, workshop.address)
    whole_run = time.monotonic() - began
    assert_whole(undisturbed)
    moments, kills, kept = random.Random(seed), [], set()
    for number in itertools.count():
        # The first class has no gradebook yet: it may be killed while one is made.
        course = a_class(tmp_path, 0.02, f"class-{number}", gradebook=number > 0)
        process = classes.start(course, scheduler=workshop.address)
        while process.exitcode is None and len(kills) < wanted:
            at_a_moment(process, course, moments, whole_run)
            if process.exitcode is None:
                before = graded(course)
                kills.append(moments.choice(("worker", "coordinator", "coordinator")))
                if kills[-1] == "worker":
                    workshop.kill_one(moments)
                else:
                    process.kill()
                    process.join()
                    process = classes.start(course, scheduler=workshop.address)
                assert graded(course) >= before, "a kept grade was lost"
                kept.add(before)
        process.join(PATIENCE)
        assert process.exitcode == 0, (course / "output.txt").read_text()[-3000:]
        assert_whole(course)
        assert classes.grades(course) == classes.grades(undisturbed)
        shutil.rmtree(course)
        if len(kills) == wanted:
            break
    print(f"{kills.count('worker')} workers and {kills.count('coordinator')} coordinators killed "
          f"in {number + 1} classes, after {sorted(kept)} kept grades")  # fmt: skip
    assert len(kept) > min(5, wanted // 3), "the moments were spread over the class"


def kernels(process):
    """What a coordinator's workers run submissions in."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            parent = one.parent()  # None when it has ended meanwhile
            forked = parent is not None and "qlearn.grading.template" in parent.cmdline()
            # Not the one that only tries whether there can be a sandbox.
            boxed = one.name() == "bwrap" and one.cmdline()[-1:] != ["true"]
            found += [one] if forked or boxed else []
    return found


def test_a_kernel_killed_at_random_moments_costs_no_grade(tmp_path, bubblewrap):
    course = a_class(tmp_path)
    classes.with_artifact(course)
    for number in range(CLASS):
        work = f"import time\ntime.sleep(0.1)\n{classes.WRITE % (32 + number)}"
        classes.hand_in(course, f"student-{number:02}", work)
    process = classes.start(course, workers=1, score="in_sandbox")
    moments, kills = random.Random(7), 0
    while process.exitcode is None:
        process.join(moments.uniform(0, 1))
        victims = kernels(process) if process.exitcode is None else []
        if victims:
            wanted = graded(course) + 2
            with suppress(psutil.NoSuchProcess):
                moments.choice(victims).kill()
                kills += 1
            # Nobody is hit twice: whose kernel ends again and again has ended it.
            wait_for(process, course, wanted)
    said = (course / "output.txt").read_text()
    assert process.exitcode == 0 and "stopped" not in said, said[-3000:]
    assert kills >= KERNEL_KILLS
    assert_whole(course)
