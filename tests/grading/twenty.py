"""A class of twenty, graded by the stand-in or in sandboxes, and a look at what is kept of it."""

import itertools
import sqlite3
import time

import classes

CLASS = 20
PATIENCE = 900  # seconds for what should take one: only a hang takes as long


class Cluster:
    """Scheduler and two workers, which outlive the coordinators of these tests."""

    def __init__(self, place):
        port = classes.free_port()
        self.address, self._place = f"tcp://127.0.0.1:{port}", place
        self._scheduler = classes.scheduler_at(port, place)
        self._workers, self._names = [], (f"worker-{number}" for number in itertools.count())
        self._join(), self._join()

    def _join(self):
        self._workers.append(classes.worker_of(self.address, self._place, next(self._names)))

    def kill_one(self, moments):
        """Kill a worker; another comes for it."""
        classes.end([self._workers.pop(moments.randrange(len(self._workers)))])
        self._join()

    def end(self):
        classes.end([self._scheduler, *self._workers])


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
