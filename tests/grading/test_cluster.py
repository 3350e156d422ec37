"""A cluster as the guide starts one: processes that share no folder; one leaves, one joins."""

import classes
from twenty import PATIENCE, until

CLASS = 40


def test_four_workers_of_which_one_leaves_and_one_joins(tmp_path):
    course = classes.make_course(tmp_path)
    seen = tmp_path / "seen"  # what the workers' folders are called, from within
    seen.mkdir()
    work = "import os, pathlib, time\nplace = os.getcwd()\ntime.sleep(0.3)\n"
    work += f"pathlib.Path({str(seen)!r}, pathlib.Path(place).name).touch()\nanswer = 42"
    for number in range(CLASS):
        classes.hand_in(course, f"student-{number}", work)
    port = classes.free_port()
    address = f"tcp://127.0.0.1:{port}"
    (tmp_path / "cluster").mkdir()
    place = tmp_path / "cluster"
    processes = [classes.scheduler_at(port, place)]
    processes += [classes.worker_of(address, place, f"worker-{n}") for n in range(4)]
    try:
        grading = classes.start(course, scheduler=address)
        until(lambda: len(list(seen.iterdir())) == 4)
        processes[1].terminate()  # it says good-bye
        processes.append(classes.worker_of(address, place, "worker-late"))
        grading.join(PATIENCE)
        left = processes[1].exitcode
    finally:
        classes.end(processes)
    said = (course / "output.txt").read_text()
    assert grading.exitcode == 0, said[-3000:]
    assert left is not None
    assert f"{CLASS} graded." in said
    found = classes.grades(course)
    assert all(found[f"student-{n}", "test"] == (2, None, False) for n in range(CLASS))
