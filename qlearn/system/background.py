"""The process beside JupyterLab that makes the base models which are missing.

It lives as long as the lab, which holds the other end of its standard input: when the lab ends,
however it ends, that input ends, and so does this process. A group and a session of its own keep
Ctrl-C from it, because JupyterLab asks first whether it should stop.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from qlearn.system import inventory


def start() -> subprocess.Popen | None:
    """Start the process, unless every base model is there.

    Returns
    -------
    Popen or None
        The process. It ends when the caller does, also one that became another program by exec;
        and when this object is deleted.
    """
    if inventory.complete():
        return None
    if os.name == "posix":
        apart = {"start_new_session": True}
    else:
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    # Its bars would tear JupyterLab's log; without -u its lines would come when it ends.
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    command = [sys.executable, "-u", "-m", "qlearn.system.background"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **apart)
    os.set_inheritable(process.stdin.fileno(), True)  # past exec
    return process


def main() -> None:
    """Make what is missing, on one thread and at low priority."""
    _stand_back()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_the_lab, daemon=True).start()
    import torch

    from qlearn.pretrained import RECIPES, path, prepare_all

    torch.set_num_threads(1)
    missing = [name for name in RECIPES if not path(name).exists()]
    if missing:
        print(f"Base models are made in the background: {', '.join(missing)}.")
    states = prepare_all()
    if missing and "not kept" not in states.values():
        print("All base models are there.")


def _end_with_the_lab() -> None:
    # Not sys.stdin: its lock would be held when the interpreter closes it.
    while os.read(0, 1024):
        pass
    while True:
        # For the main thread, so that what it has begun is cleaned up; and again, because an
        # exception that meets a destructor is lost.
        signal.raise_signal(signal.SIGTERM)
        time.sleep(5)


def _stand_back() -> None:
    import psutil

    # Not the last of all: a lesson may wait for this process beside a video call.
    nice = 10 if os.name == "posix" else psutil.BELOW_NORMAL_PRIORITY_CLASS
    psutil.Process().nice(nice)
    # Linux desktops share the processor out by session first, and look at `nice` only within one.
    # `start` gives this process a session of its own; another's must not be slowed down.
    group = Path("/proc/self/autogroup")
    if group.exists() and os.getsid(0) == os.getpid():
        with suppress(OSError):  # some systems forbid it
            group.write_text(str(nice))


if __name__ == "__main__":
    main()
