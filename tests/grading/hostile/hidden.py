"""What work cells hide from whoever counts what they use, and rights that they try to get."""

import os

from hostile.work import LONG, _both, _first

PLACES = "from ipykernel.connect import get_connection_file\nimport os, time\n"
PLACES += "sockets = os.path.dirname(get_connection_file())\n"
# keyctl, add_key, request_key; io_uring_setup; shmget, semget, msgget; ptrace, process_vm_readv;
# perf_event_open; bpf; clone with a user namespace
CALLS = {"x86_64": {250: "0, -3, 0", 248: "b'user', b'a', b'b', 1, -3", 249: "b'user', b'a', 0, -3",
                    425: "1, ctypes.create_string_buffer(200)", 29: "0, 4096, 0o1600",
                    64: "0, 1, 0o1600", 68: "0, 0o1600", 101: "16, 1, 0, 0",
                    310: "os.getpid(), 0, 0, 0, 0, 0",
                    298: "ctypes.create_string_buffer(200), 0, -1, -1, 0",
                    321: "0, ctypes.create_string_buffer(200), 100",
                    56: "0x10000011, 0, 0, 0, 0"}}  # fmt: skip
WROTE = "It wrote more than"


def _must_fail(*codes):
    """Each of these must raise OSError; where one does not, the student gives up a point."""
    return _both(f"""
import ctypes, os, pathlib
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
for code in {codes!r}:
    try:
        exec(code)
    except OSError:
        continue
    os.remove("answers/first.json")
    raise SystemExit(code)
""")


HIDDEN = {
    "files_of_memfd_create": _first(
        "import os, time\n"
        "for i in range(17): os.write(os.memfd_create(str(i)), b'1' * 10**8)\ntime.sleep(9)",
        reason="MB of memory",
    ),
    "files_in_memory_of_children": _first(
        "import os, time\nfor i in range(17):\n    if os.fork() == 0:\n"
        "        os.write(os.memfd_create(str(i)), b'1' * 10**8); time.sleep(99)\ntime.sleep(9)",
        reason="MB of memory",
    ),
    "buffers_of_sockets": _first(
        "import socket, time\nkept = []\nfor i in range(480):\n"
        "    kept.append(socket.socketpair())\n    for one in kept[-1]:\n"
        "        one.setblocking(False); one.setsockopt(1, socket.SO_SNDBUF, 10**8)\n"
        "        try:\n            while True: one.send(b'x' * 10**5)\n"
        "        except OSError: pass\ntime.sleep(9)",
        reason="MB of memory",
    ),
    "calls_that_are_forbidden": _must_fail(*(
        f"call(libc.syscall({number}, {words}))" for number, words in CALLS.get(os.uname().machine,
        {}).items()
    )),
    "sockets_that_leave_the_sandbox": _must_fail(
        *(f"import socket; socket.socket({family}, {kind})"
          for family, kind in ((40, 1), (40, 2), (38, 5), (17, 3), (44, 3), (31, 3))),
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
    ),
    "namespaces_by_every_call": _must_fail(
        *(f"call(libc.unshare({flag}))" for flag in (0x10000000, 0x20000, 0x40000000)),
        "call(libc.setns(os.open('/proc/self/ns/ipc', os.O_RDONLY), 0))",
        "call(libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0))",
    ),
    "unlinked_files": _first(
        "import os, time\nkept = []\nfor i in range(5):\n"
        "    kept.append(open(f'f{i}', 'wb', 0)); os.unlink(f'f{i}')\n"
        "    kept[-1].write(bytes(6 * 10**7))\ntime.sleep(9)",
        reason=WROTE,
    ),
    "folder_of_sockets_filled": _first(
        PLACES + "for i in range(5): open(f'{sockets}/{i}', 'wb').write(bytes(6 * 10**7))\n"
        "time.sleep(9)",
        reason=WROTE,
    ),
    "folder_of_sockets_nested": _both(
        PLACES + "here = os.getcwd(); os.chdir(sockets)\n"
        "for _ in range(1500): os.mkdir('d'); os.chdir('d')\nos.chdir(here)"
    ),
    "memory_behind_many_processes": _first(
        "import os, subprocess, time\nfor _ in range(45): subprocess.Popen(['sleep', '99'])\n"
        "for _ in range(3):\n    if os.fork() == 0: x = b'1' * 500_000_000; time.sleep(1e6)\n"
        "time.sleep(9)",
        reason="MB of memory",
    ),
    "errors_without_end": _first(
        "while True:\n    try: raise ValueError('x' * 10**6)\n"
        "    except BaseException: get_ipython().showtraceback()",
        reason=LONG,
    ),
    "writes_to_the_base_models": _must_fail(
        *(f"(pathlib.Path(os.environ['QLEARN_HOME']) / '{name}').write_text('mine')"
          for name in ("x", "models/x", "datasets/x")),
        "os.rename(os.environ['QLEARN_HOME'], '/tmp/models')",
    ),
    "becomes_root": _must_fail(
        "os.setuid(0)", "os.setgid(0)", "os.setgroups([0])", "os.chroot('/tmp')",
        "os.chown('answers', 0, 0)", "os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0))",
        "call(libc.mount(b'none', b'/usr', b'tmpfs', 0, 0))",
        "call(libc.umount2(b'/proc', 2))", "call(libc.sethostname(b'mine', 4))",
    ),
}  # fmt: skip
