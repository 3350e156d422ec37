"""What work cells try. `PLACE` stands for a folder of the class outside the scratch copy."""

from hostile import EARNED, FIRST, NOTHING, Attack, notebook

RIGHT, SECOND = "hand_in('first', 42)\n", "hand_in('second', 7)"
ENDED, LONG = "ended by itself", "did not stop|longer than|MB of memory"
# A work cell that looks like the answer to everything.
ALWAYS = """
class Always(int):
    def __eq__(self, other): return True
    __ne__ = lambda self, other: False
    __hash__ = int.__hash__
"""


def _first(code, points=FIRST, reason="", second=""):
    """It hands in the first number, then does this; the second part is left undone."""
    return Attack(notebook(work_1=RIGHT + code, **({"work_2": second} if second else {})),
                  points, reason)  # fmt: skip


def _only(code, points=NOTHING, reason=""):
    return Attack(notebook(work_1=code), points, reason)


def _both(code, reason=""):
    """It does this in between two right answers, which both count."""
    return _first(code, EARNED, reason, SECOND)


def _reads(*paths):
    return _only(f"""
import glob, os
for pattern in {paths!r}:
    for path in glob.glob(os.path.expanduser(pattern), recursive=True):
        try:
            print(open(path, errors="replace").read())
        except OSError as error:
            print(type(error))
""")


ENDS = {
    "os_exit": _first("import os; os._exit(0)", reason=ENDED),
    "system_exit": _both("raise SystemExit"),
    "segmentation_fault": _first("import ctypes; ctypes.string_at(0)", reason=ENDED),
    "kill_everything": _first("!kill -9 -1", reason=ENDED),
    "kernel_shutdown": _first(
        "k = get_ipython().kernel\nk.do_shutdown(False)\nimport os; os.kill(os.getpid(), 9)",
        reason=ENDED,
    ),
    "stop_parent": _both(
        "import os, signal\nfor s in (signal.SIGSTOP, signal.SIGKILL):\n"
        "    try: os.kill(1, s)\n    except OSError: pass"
    ),
    "stop_itself": _first("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", reason=LONG),
    "endless_loop": _both("while True: pass"),
    "endless_loop_that_ignores_interrupts": _first(
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        reason=LONG,
    ),
    "blocked_signals": _first(
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "time.sleep(1e6)",
        reason=LONG,
    ),
}
USES_UP = {
    "memory": _both("x = [b'1' * 10**7 for _ in range(10**5)]"),
    "memory_of_children": _first(
        "import os, time\nfor _ in range(24):\n    if os.fork() == 0:\n"
        "        x = b'1' * 90_000_000; time.sleep(1e6)\ntime.sleep(1e6)",
        reason="MB of memory",
    ),
    "fork_bomb": _only("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
                       reason="memory|longer than|stop|ended"),
    "threads": _both("import threading, time\nfor _ in range(10**4):\n"
                     "    threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()"),
    "output_100_mb": _both("for _ in range(1000): print('x' * 10**5)"),
    "output_in_one_message": _both("print('x' * 7 * 10**7)"),
    "output_without_end": _first("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
                                 "while True:\n    try: print('x' * 10**4)\n"
                                 "    except MemoryError: pass", reason=LONG),
    "huge_file": _both("open('big', 'wb').write(bytes(10**9))"),
    "full_disk": _first(
        "import time\nfor i in range(9): open(f'f{i}', 'wb').write(bytes(3 * 10**7))\n"
        "time.sleep(9)", reason="It wrote more than"),
    "many_files": _first("import time\nfor i in range(3000): open(f'f{i}', 'w')\ntime.sleep(9)",
                         reason="It wrote more than"),
    "full_tmp": _both("for i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(10**7))"),
    "deep_folders": _first(
        "import os, time\nhere = os.getcwd()\nfor _ in range(900):\n"
        "    os.mkdir('d' * 200); os.chdir('d' * 200)\nos.chdir(here); time.sleep(9)",
        reason="It wrote more than"),
    "closed_folders": _both("import os\nos.makedirs('a/b/c'); open('a/b/c/d', 'w')\n"
                            "os.chmod('a/b', 0); os.chmod('a', 0)"),
}  # fmt: skip
LOOKS = {
    "reads_the_class": _reads("PLACE/**/*"),
    "reads_sources": _reads("REPOSITORY/solutions/**/*", "REPOSITORY/tests/grading/**/*",
                            "REPOSITORY/.git/HEAD", "REPOSITORY/classroom/**"),
    "reads_home": _reads("~/*", "~/.*", "~root/*", "~root/.*", "/home/*/.ssh/*", "/etc/shadow"),
    "reads_other_processes": _reads("/proc/[0-9]*/environ", "/proc/[0-9]*/*/PLACE/*"),
    "reads_hidden_tests_in_memory": _only(
        "wanted = b'only the ' + b'author'\nprint(In, _ih)\n"
        "with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:\n"
        "    for line in maps:\n        place, rights = line.split()[:2]\n"
        "        if rights.startswith('rw'):\n"
        "            first, last = (int(number, 16) for number in place.split('-'))\n"
        "            try:\n                memory.seek(first)\n"
        "                part = memory.read(last - first)\n"
        "                if wanted in part:\n"
        "                    print(part[part.index(wanted) :][:40])\n"
        "            except (OSError, OverflowError, MemoryError): pass"
    ),
    "reads_environment": _only("import os; print(dict(os.environ))"),
    "network": _only(
        "import socket, urllib.request\n"
        "for address in (('127.0.0.1', PORT), ('1.1.1.1', 53)):\n"
        "    try: socket.create_connection(address, 1).send(b'I am out')\n"
        "    except OSError as error: print(error)"
    ),
    "abstract_socket": _only(
        "import socket\nfor s in open('/proc/net/unix').read().split('@')[1:]:\n    print(s)\n"
        "socket.socket(socket.AF_UNIX).connect('\\0CANARY')"
    ),
}  # fmt: skip
WRITES = {
    "writes_to_the_class": _only(
        "import os\nfor name in ('gradebook.db', 'new', 'submitted/other/number/number.ipynb'):\n"
        "    try:\n        os.makedirs(os.path.dirname('PLACE/' + name), exist_ok=True)\n"
        "        open('PLACE/' + name, 'w').write('297 points')\n"
        "    except OSError as error: print(error)"
    ),
    "writes_to_the_package": _both(
        "import json, sys, sysconfig\n"
        "for path in (json.__file__, sysconfig.get_path('purelib') + '/sitecustomize.py'):\n"
        "    try: open(path, 'a').write('load = lambda file: 42')\n"
        "    except OSError as error: print(error)"
    ),
    "background_process": _both(
        "import subprocess\nsubprocess.Popen(['sh', '-c', 'trap \"\" HUP TERM; setsid sleep 4217 &"
        " sleep 4217'], start_new_session=True)"
    ),
    "rewrites_answers_later": _first(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n"
        "        open('answers/new', 'w').write('7')\n"
        "        os.replace('answers/new', 'answers/second.json'); time.sleep(0.01)\n"
        "while not os.path.exists('answers/second.json'): time.sleep(0.01)",
        EARNED,
    ),
    "thread_left_behind": _both(
        "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()"
    ),
    "user_namespace": _both("!unshare -Urm sh -c 'mount -t tmpfs none /usr; mount' | head -3"),
}
CHEATS = {
    "always_equal": _only(ALWAYS + "hand_in('first', Always(41)); hand_in('second', Always(1))"),
    # The kernel's own messages come through json too: it no longer hears an interrupt.
    "patched_json": _only("json.load = json.loads = lambda *_: 42", reason=LONG),
    "ast_transformer": _only(
        "import ast\nclass NoAsserts(ast.NodeTransformer):\n"
        "    def visit_Assert(self, node): return ast.Pass()\n"
        "get_ipython().ast_transformers.append(NoAsserts())"
    ),
    "patched_kernel": _only(
        "kernel = get_ipython().kernel\n"
        "async def do_execute(*a, **k):\n"
        "    return {'status': 'ok', 'execution_count': 1, 'payload': [], 'user_expressions': {}}\n"
        "type(kernel).do_execute = do_execute"
    ),
    "silent_kernel": _first(
        "get_ipython().kernel.session.send = lambda *a, **k: None", FIRST, LONG),
    "forged_messages": _only(
        "k = get_ipython().kernel\n"
        "for kind in ('execute_result', 'error', 'status', 'stream', 'display_data'):\n"
        "    for bad in ([], 'text', {'data': []}, {'data': {'text/plain': {}}}, {'text': 1},\n"
        "                {'execution_state': []}, {'traceback': 1}, {'ename': {}, 'evalue': []}):\n"
        "        k.session.send(k.iopub_socket, kind, bad, parent=k.get_parent())"
    ),
    "pretended_points": _only("print(42); 3"),
    "shadowing_modules": _only(
        "for name in ('json', 'IPython', 'sitecustomize', 'ipykernel_launcher'):\n"
        "    pathlib.Path(name + '.py').write_text('load = lambda f: 42')\n"
        "    pathlib.Path('answers').mkdir(exist_ok=True)\n"
        "    pathlib.Path('answers/' + name + '.py').write_text('load = lambda f: 42')"
    ),
    "patched_modules": _only(
        "import sys, types\nfake = types.ModuleType('qlearn.exercises.checks')\n"
        "sys.modules['qlearn.exercises.checks'] = sys.modules['json'] = fake"
    ),
    "ipython_startup": _only(
        "p = pathlib.Path('~/.ipython/profile_default/startup').expanduser()\n"
        "p.mkdir(parents=True, exist_ok=True)\n(p / 'a.py').write_text('import json')"
    ),
}  # fmt: skip
ANSWERS = {
    "answer_is_a_link": _only(
        "import os; os.makedirs('answers')\nos.symlink('PLACE/secret', 'answers/first.json')",
        reason="answers/first.json was left out: it is a link",
    ),
    "answers_is_a_link": _only(
        "import os; os.symlink('PLACE', 'answers')", reason="answers/ is no folder"
    ),
    "answer_is_a_pipe": _only(
        "import os; os.makedirs('answers'); os.mkfifo('answers/first.json')", reason="no ordinary"
    ),
    "answer_is_a_folder": _only(
        "import os; os.makedirs('answers/first.json')", reason="no ordinary"
    ),
    "answer_is_closed": _first("import os; os.chmod('answers', 0o500)"),
    "huge_sparse_answer": _only(
        "import os; os.makedirs('answers')\n"
        "with open('answers/first.json', 'wb') as f: f.truncate(10**8 + 1)",
        reason="more than 100 MB",
    ),
    "thousands_of_answers": _only(
        "for i in range(1500): hand_in(f'a{i}', 42)", reason="more than 64 artifacts"
    ),
    "deep_json": _only(
        "pathlib.Path('answers').mkdir()\n"
        "pathlib.Path('answers/first.json').write_text('[' * 10**6)"
    ),
    "huge_json": _only(
        "pathlib.Path('answers').mkdir()\n"
        "pathlib.Path('answers/first.json').write_text('[' + '[],' * (3 * 10**5) + '1]')",
        reason="",
    ),
    "infinite_json": _only("hand_in('first', float('nan')); hand_in('second', float('inf'))"),
    "strange_names": _first(
        "for name in ('..x.json', 'a b.json', 'A.json', '-rf.json', 'x.json;id', '\\udcff.json'):\n"
        "    pathlib.Path('answers', name).write_text('42')"
    ),
}
WORK = ENDS | USES_UP | LOOKS | WRITES | CHEATS | ANSWERS
