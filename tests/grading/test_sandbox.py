"""What a kernel in the sandbox can reach and use, and that nothing of it is left."""

import json
import os
from pathlib import Path

import psutil
import pytest

import qlearn
from qlearn.grading import sandbox
from qlearn.grading.kernels import Stopped, started
from qlearn.grading.sandbox import Limits, SandboxUnavailable, command_of
from qlearn.grading.scratch import Refused, collect, scratch

ROOT = Path(__file__).parents[2]


def said(outputs):
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture(scope="module")
def seen(bubblewrap, tmp_path_factory):
    """What a kernel finds when it looks around."""
    code = f"""
import json, os, sys
import qlearn
def lines(path):
    return open(path).read().splitlines()
status = dict(line.split(":", 1) for line in lines("/proc/self/status"))
def write(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
print(json.dumps(dict(
    uid=os.getuid(), status=status, root=os.listdir("/"), cwd=os.getcwd(), home=os.listdir("~" and
    os.path.expanduser("~")), environment=dict(os.environ), repository=os.listdir({str(ROOT)!r}),
    interfaces=[line.split(":")[0].strip() for line in lines("/proc/net/dev")[2:]],
    processes=[name for name in os.listdir("/proc") if name.isdigit()],
    writable=[p for p in ("/x", "/usr/x", "/etc/x", "/dev/x", "/opt/x", sys.prefix + "/x",
              qlearn.__path__[0] + "/x", os.environ["QLEARN_HOME"] + "/models/x", "/tmp/x", "x")
              if write(p)],
    models=os.path.isdir(os.environ["QLEARN_HOME"] + "/models"),
    descriptors=[os.path.realpath("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd")],
)))
"""
    folder = tmp_path_factory.mktemp("scratch")
    os.environ["QLEARN_TEST_SECRET"] = "a word of the grader's environment"
    try:
        with started(folder, Limits(), sandboxed=True) as kernel:
            return json.loads(said(kernel.run(code, 100)))
    finally:
        del os.environ["QLEARN_TEST_SECRET"]


def test_the_kernel_is_a_user_without_rights(seen):
    assert seen["uid"] != 0
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(seen["status"][name], 16) == 0, name
    assert seen["status"]["NoNewPrivs"].strip() == "1"


def test_it_has_no_network_and_sees_no_other_process(seen):
    assert seen["interfaces"] == ["lo"]
    assert len(seen["processes"]) <= 4


def test_it_sees_the_package_and_neither_solutions_nor_tests(seen):
    wanted = {Path(path).name for path in qlearn.__path__}
    assert set(seen["repository"]) <= {*wanted, ".venv"}
    assert set(seen["home"]) <= {"exercise", ".ipython"}  # the latter is IPython's own


def test_it_can_write_to_its_own_folders_only(seen):
    assert seen["writable"] == ["/tmp/x", "x"]
    assert seen["models"]


def test_it_gets_nothing_of_the_graders_environment_or_open_files(seen):
    assert "QLEARN_TEST_SECRET" not in seen["environment"]
    files = [path for path in seen["descriptors"] if os.path.isfile(path)]
    assert all(Path(path).name == "said" or path.startswith("/proc") for path in files), files


def test_variables_do_not_pass_from_one_kernel_to_the_next(bubblewrap, tmp_path):
    code = "import json, builtins; builtins.left = json.left = 1; open('/tmp/left', 'w').close()"
    with started(tmp_path, Limits(), sandboxed=True) as kernel:
        assert kernel.run(code, 100) == []
    code = "import json, os; print(hasattr(json, 'left'), 'left' in dir(__builtins__), "
    code += "os.path.exists('/tmp/left'))"
    with started(tmp_path, Limits(), sandboxed=True) as kernel:
        assert said(kernel.run(code, 100)).split() == ["False"] * 3


def test_random_numbers_differ_from_kernel_to_kernel(bubblewrap, tmp_path):
    code = "import random, numpy; print(random.random(), numpy.random.rand(), sep='\\n')"
    drawn = []
    for _ in range(2):
        with started(tmp_path, Limits(), sandboxed=True) as kernel:
            drawn += said(kernel.run(code, 100)).split()
    assert len(set(drawn)) == 4


def test_a_cell_that_takes_too_long_is_interrupted_and_the_next_runs(bubblewrap, tmp_path):
    with started(tmp_path, Limits(cell_seconds=1), sandboxed=True) as kernel:
        outputs = kernel.run("while True: pass", 100)
        assert outputs[0]["ename"] == "KeyboardInterrupt"
        assert said(kernel.run("print(6 * 7)", 100)) == "42\n"


def test_a_kernel_that_cannot_write_to_its_folder_cannot(bubblewrap, tmp_path):
    (tmp_path / "given").write_text("1")
    with started(tmp_path, Limits(), sandboxed=True, readonly=True) as kernel:
        assert said(kernel.run("print(open('given').read())", 100)) == "1\n"
        assert kernel.run("open('given', 'w')", 100)[0]["ename"] == "OSError"


def test_without_the_sandbox_a_kernel_works_and_ends_with_what_it_started(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '4218']).pid)"
    with started(tmp_path, Limits(), sandboxed=False) as kernel:
        pid = int(said(kernel.run(code, 100)))
    # Where nobody waits for orphans, what was killed is still listed.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_missing_bubblewrap_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        sandbox.require.__wrapped__()


def test_a_bubblewrap_that_cannot_run_is_told(monkeypatch, tmp_path):
    for name in ("bwrap", "prlimit", "setpriv"):
        (tmp_path / name).write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SandboxUnavailable, match="no namespaces here"):
        sandbox.require.__wrapped__()


def test_the_command_names_no_student_and_binds_nothing_but_what_is_needed(tmp_path):
    command = command_of("true", folder=str(tmp_path), limits=Limits(), user=None)
    sources = [command[i + 1] for i, word in enumerate(command) if word in ("--bind", "--ro-bind")]
    assert str(ROOT) not in sources and os.path.expanduser("~") not in sources
    assert [command[i + 1] for i, word in enumerate(command) if word == "--bind"] == [str(tmp_path)]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\0b"])
def test_no_file_is_written_outside_of_the_scratch_folder(name, temporary):
    with pytest.raises(Refused), scratch({name: b"1"}):
        pass
    assert not list(temporary.glob("*/*"))


def test_of_answers_only_ordinary_files_are_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with scratch({"answers/good.json": b"1", "answers/.good.77.json": b"2"}) as folder:
        (folder / "answers" / "link.json").symlink_to(tmp_path / "secret")
        os.mkfifo(folder / "answers" / "pipe.json")
        kept, left = collect(folder)
    assert kept == {"good.json": b"1"}
    assert [line.split()[0] for line in left] == ["answers/link.json", "answers/pipe.json"]


def test_a_kernel_that_is_stopped_keeps_what_it_had_said(bubblewrap, tmp_path):
    with pytest.raises(Stopped, match="ended by itself") as stopped:
        with started(tmp_path, Limits(), sandboxed=True) as kernel:
            kernel.run("print('so far', flush=True); import time; time.sleep(1)\n"
                       "import os; os._exit(0)", 100)  # fmt: skip
    assert stopped.value.outputs[0]["text"] == "so far\n"
