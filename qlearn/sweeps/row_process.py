"""A row of `qlearn.sweep` in a process of its own: it may crash or hang, and the sweep goes on.

Importing PyTorch and what goes with it costs seconds. On Linux the server of `multiprocessing`
imports it once and forks for each row; it never computes anything itself, because threads do not
survive a fork. Elsewhere a fork is not safe, and each process imports everything anew.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import types
from multiprocessing.connection import Connection, wait
from pathlib import Path
from unittest import mock

from qlearn.system.errors import explain, explained

ROW_TIMEOUT = 300  # seconds that one row may take
TIMING = 0.5  # seconds, for each of the two models of a row
TEMPORARY = (MemoryError, OSError, ImportError)  # the row may succeed another time
PRELOADED = [
    "qlearn.sweeps.row_process",
    "qlearn.benchmarking",
    "qlearn.quantization.schemes",
    "scipy.stats",
    "torchao.quantization",  # brings most of what FX mode imports too
]
FORKS = sys.platform == "linux"
CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:  # a process has one such server, and imports what the last list before its start says
    CONTEXT.set_forkserver_preload(PRELOADED)


def require_sendable(model: object) -> None:
    """Raise a ValueError when a model cannot be sent to the process of any row."""
    import cloudpickle

    with explained("the model cannot be sent to another process, which each row has"):
        cloudpickle.dumps(model)


def run_row(task: tuple, scheme: object) -> tuple[dict[str, float | str], bool]:
    """Return the row of a scheme, and whether it would come out the same again.

    ``task`` holds what `measure` takes before the scheme.
    """
    import cloudpickle

    receiver, sender = CONTEXT.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        try:
            # By value where a class is defined in a notebook, which no other process can import.
            work = cloudpickle.dumps((*task, scheme))
            process = CONTEXT.Process(target=make_row, args=(work, dict(os.environ), sender, log))
            # Not the caller's main module: a script without a guard would sweep again in there.
            with mock.patch.dict(sys.modules, __main__=types.ModuleType("__main__")):
                process.start()
        except (TypeError, AttributeError, RuntimeError, OSError, pickle.PicklingError) as error:
            return {"reason": f"cannot be sent to another process: {error}"[:200]}, False
        finally:
            sender.close()
        try:
            if not wait([receiver, process.sentinel], ROW_TIMEOUT):
                return {"reason": f"gave no result within {ROW_TIMEOUT} s"}, False
            with contextlib.suppress(EOFError):
                if receiver.poll():
                    return receiver.recv()
            process.join()
            lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            reason = f"its process ended with code {process.exitcode} {''.join(lines[-1:])[:160]}"
            return {"reason": reason.strip()}, False
        finally:
            _end(process)


def _end(process: multiprocessing.Process) -> None:
    """End a row's process and those that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def make_row(work: bytes, environment: dict[str, str], sender: Connection, log: Path) -> None:
    """Make and measure one row, and send it; whatever is printed on the way goes to a log."""
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, which is ended as a whole
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)  # the server's is older
    lasting = True
    try:
        row = measure(*pickle.loads(work))
    except Exception as error:
        row, lasting = {"reason": explain(error)}, not isinstance(error, TEMPORARY)
    sender.send((row, lasting))


def measure(model, data, batch: int, threads: int, engine: str, scheme) -> dict[str, float | str]:
    """Make the model by the scheme; return its row of `compare`, or why it does not run."""
    import torch

    from qlearn.benchmarking import compare
    from qlearn.data import loaders
    from qlearn.data.batches import batches_of

    torch.set_num_threads(threads)
    torch.backends.quantized.engine = engine
    train, test = loaders(data)
    began = time.perf_counter()
    made = scheme(model, train)
    seconds = time.perf_counter() - began
    inputs, _ = next(batches_of(loaders(data, batch)[1]))
    try:
        table = compare({"float": model, "quantized": made}, inputs, test, threads, TIMING)
    except ValueError as error:
        if error.__cause__ is None:
            raise
        # The sentence of `compare` names the model and says what to do; a row has a name already.
        return {"reason": f"fails when it runs: {explain(error.__cause__)}"}
    extra = {"float_ms": table.loc["float", "latency_ms"], "make_s": seconds, "reason": ""}
    return {**table.loc["quantized"].to_dict(), **extra, "busy": bool(table.attrs["note"])}
