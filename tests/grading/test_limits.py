"""Control groups of both versions, what is said without them, and time on a busy machine."""

import os
from types import SimpleNamespace

import psutil
import pytest

from qlearn.grading import cgroups, clock
from qlearn.grading.cgroups import LEAF, Group, find
from qlearn.grading.clock import Clock, Slow
from qlearn.grading.fanout import Fanout
from qlearn.grading.limits import Limits
from qlearn.grading.processes import Processes
from qlearn.grading.records import Submission

LIMITS = Limits(memory_mb=300, processes=64)


def delegated(folder, members=(), controllers="cpuset cpu io memory pids"):
    """What systemd makes for `systemd-run --user --scope -p Delegate=yes`, as files."""
    scope = folder / "user.slice" / "run-1.scope"
    scope.mkdir(parents=True)
    (scope / "cgroup.controllers").write_text(controllers)
    (scope / "cgroup.procs").write_text("\n".join(map(str, members or [os.getpid()])))
    (scope / "cgroup.subtree_control").write_text("")
    return scope, [[str(folder), "cgroup2", "rw"]], [["", "/user.slice/run-1.scope"]]


def test_a_scope_that_is_delegated_holds_groups_and_its_workers_find_it(tmp_path):
    scope, mounts, own = delegated(tmp_path)
    found = find(mounts, own)
    assert found.version == 2 and {*found.places.values()} == {scope}
    assert (scope / LEAF / "cgroup.procs").read_text() == str(os.getpid())
    assert (scope / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert find(mounts, [["", f"/user.slice/run-1.scope/{LEAF}"]]) == found


@pytest.mark.parametrize("members", [(1, 2), ()])
def test_a_group_of_others_or_without_controllers_is_left_alone(tmp_path, monkeypatch, members):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    controllers = "memory pids cpu" if members else "cpu pids"
    scope, mounts, own = delegated(tmp_path, members, controllers)
    assert find(mounts, own) is None and not (scope / LEAF).exists()


def test_version_1_is_found_where_all_controllers_are(tmp_path):
    names = {"memory": "memory", "pids": "pids", "both": "cpu,cpuacct"}
    for name in names:
        (tmp_path / name / "mine").mkdir(parents=True)
    mounts = [[str(tmp_path / name), "cgroup", f"rw,{options}"] for name, options in names.items()]
    own = [["memory", "/mine"], ["pids", "/elsewhere"], ["cpu,cpuacct", "/"]]
    found = find(mounts, own)
    assert found.version == 1 and found.places["memory"] == tmp_path / "memory" / "mine"
    assert found.places["cpu"] == found.places["cpuacct"] == tmp_path / "both"
    assert found.places["pids"] == tmp_path / "pids"  # as a container sees itself
    assert find(mounts[1:], own) is None


def test_a_group_of_version_2_is_limited_measured_and_killed_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "END_SECONDS", 0)
    scope, mounts, own = delegated(tmp_path)
    group = Group(find(mounts, own), LIMITS)
    (place,) = scope.glob("qlearn-[0-9]*")
    written = {path.name: path.read_text() for path in place.iterdir()}
    assert written == {"pids.max": "64", "memory.max": "300000000", "memory.oom.group": "1"}
    assert group.entrance == [str(place / "cgroup.procs")]
    for name, text in {"cpu.stat": "usage_usec 2500000\nuser_usec 1", "memory.peak": "7000000",
                       "memory.events": "oom 1\noom_kill 0", "cgroup.procs": "12\n13\n",
                       "cgroup.kill": ""}.items():  # fmt: skip
        (place / name).write_text(text)
    group.measure()
    assert (group.cpu_seconds, group.peak_mb, group.out_of_memory) == (2.5, 7, False)
    assert group.members == [12, 13]
    (place / "memory.events").write_text("oom 1\noom_kill 1")
    group.measure()
    assert group.out_of_memory


@pytest.mark.parametrize(
    ("busy", "state", "starved"),
    [(True, "running", True), (False, "running", False), (True, "sleeping", False),
     (True, "stopped", False)],
)  # fmt: skip
def test_a_busy_machine_is_no_fault_of_a_cell_that_wants_to_run(monkeypatch, busy, state, starved):
    usage = SimpleNamespace(cpu_seconds=10.0, measure=lambda: None, members=[1])
    monkeypatch.setattr(psutil, "Process", lambda pid: SimpleNamespace(status=lambda: state))
    now = {"user": 0.0, "idle": 0.0}
    times = type("Times", (SimpleNamespace,), {"_fields": ("user", "idle")})
    monkeypatch.setattr(psutil, "cpu_times", lambda: times(**now))
    monkeypatch.setattr(clock.time, "monotonic", lambda: now["user"] + now["idle"])
    measured = Clock(usage, patience=3.0)
    now["user" if busy else "idle"] = 60.0
    measured.look()
    assert measured.starved == starved
    assert measured.seconds == (5 if starved else 20)
    usage.cpu_seconds += 50
    assert measured.seconds == 50 and not measured.starved, "it had what it wanted"


class Cluster:
    """A cluster of three workers that do at once what they are asked."""

    def nthreads(self):
        return {"a": 2, "b": 1}

    def submit(self, work, submission, pure):
        try:
            result, problem = work(submission), None
        except Slow as slow:
            result, problem = None, slow
        return SimpleNamespace(
            status="finished", exception=lambda: problem, result=lambda: result,
            add_done_callback=lambda call: None, submission=submission,
        )  # fmt: skip


def test_what_the_machine_was_too_slow_for_is_tried_again_alone(monkeypatch):
    tried, running = [], []

    def work(submission):
        tried.append(submission.student)
        if submission.student == "slow" and tried.count("slow") < 2 or submission.student == "ever":
            raise Slow("too busy")
        return "verdict"

    class Hashable(SimpleNamespace):
        __hash__ = object.__hash__

    fan = Fanout(work, 1, None, lambda: False, print)
    fan._client, fan._address, fan._manned = Cluster(), "here", float("inf")
    submit = fan._client.submit

    def put(work, submission, pure):
        running.append(len(fan._running))
        future = Hashable(**vars(submit(work, submission, pure)))
        fan._done.put(future)
        return future

    monkeypatch.setattr(fan._client, "submit", put)
    class_ = [Submission(name, "number", b"") for name in ("slow", "ann", "ever", "ben", "cem")]
    found = {one.student: outcome for one, outcome in fan.verdicts(iter(class_))}
    assert {found[name] for name in ("slow", "ann", "ben", "cem")} == {"verdict"}
    assert isinstance(found["ever"], Slow), "it has no verdict, and no points lost"
    assert tried.count("slow") == tried.count("ever") == 2 and running[-2:] == [0, 0]


def test_without_groups_processes_and_what_they_start_are_seen_and_ended():
    import subprocess
    import sys

    code = "import subprocess; x = b'1' * 50_000_000\n"
    code += (
        "p = subprocess.Popen(['sleep', '99'], start_new_session=True); print(p.pid, flush=True)"
    )
    code += "\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    inner = int(process.stdout.readline())
    seen = Processes(Limits(memory_mb=20))
    seen.add(process.pid)
    seen.measure()
    assert seen.out_of_memory and seen.peak_mb > 50 and {process.pid, inner} <= {*seen.members}
    seen.end()
    assert process.wait(30) < 0 and not seen.members
