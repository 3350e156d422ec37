"""The processes behind `qlearn.sweep`: one that waits, and for each row one that makes it.

Importing PyTorch and what goes with it costs seconds. Where a fork is safe, the waiting process
imports it once and forks for each row. It never computes anything itself: threads do not survive a
fork. Elsewhere the process makes one row and ends, and the next one is new.
"""

import json
import os
import pickle
import sys
import time
from pathlib import Path

from qlearn.system.cache import write_whole
from qlearn.system.errors import explain

SECONDS = 0.5  # of timing, for each of the two models of a row
PASSING = (MemoryError, OSError, ImportError)  # another time, it may come out otherwise


def serve(folder: Path, forks: bool) -> None:
    """Load the task, then make a row for each name of a scheme that stdin gives."""
    path, work = pickle.loads((folder / "task").read_bytes())
    sys.path[:] = path  # so that the caller's own modules are found here too
    task = pickle.loads(work)
    # What a row needs, ahead of the fork; torchao brings most of what FX mode imports too.
    import scipy.stats  # noqa: F401
    import torchao.quantization  # noqa: F401

    import qlearn.benchmarking
    import qlearn.quantization.schemes  # noqa: F401

    for line in sys.stdin:
        name = line.strip()
        if not forks:
            return make_row(task, folder, name)
        child = os.fork()
        if child == 0:
            make_row(task, folder, name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (folder / f"{name}.row").exists():
            reason = ended(os.waitstatus_to_exitcode(status), folder)
            write_row(folder, name, {"reason": reason})


def ended(code: int, folder: Path) -> str:
    """Return the reason of a row whose process ended, with the last line that it said."""
    said = (folder / "log").read_text(errors="replace").strip().splitlines() or [""]
    return f"its process ended with code {code} {said[-1][:160]}".strip()


def make_row(task: tuple, folder: Path, name: str) -> None:
    """Make and measure one row; whatever is printed on the way goes to a log."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    lasting = True
    try:
        scheme = pickle.loads((folder / f"{name}.scheme").read_bytes())
        row = measure(*task, scheme)
    except Exception as error:
        row = {"reason": explain(error)}
        lasting = not isinstance(error, PASSING)
    write_row(folder, name, {**row, "lasting": lasting})


def write_row(folder: Path, name: str, row: dict) -> None:
    """Write a row as JSON, whole or not at all; a lasting one would come out the same again."""
    with write_whole(folder / f"{name}.row") as unfinished:
        unfinished.write_text(json.dumps(row), encoding="utf-8")


def measure(model, data, batch: int, threads: int, engine: str, scheme) -> dict[str, float | str]:
    """Make the model by the scheme; return its row of `compare`, or why it does not run."""
    import torch

    from qlearn.benchmarking import compare
    from qlearn.data import loaders

    torch.set_num_threads(threads)
    torch.backends.quantized.engine = engine
    train, test = loaders(data)
    began = time.perf_counter()
    made = scheme(model, train)
    seconds = time.perf_counter() - began
    inputs = torch.stack([data.test[index][0] for index in range(batch)])
    try:
        table = compare({"float": model, "quantized": made}, inputs, test, threads, SECONDS)
    except ValueError as error:
        if error.__cause__ is None:
            raise
        # The sentence of `compare` names the model and says what to do; a row has a name already.
        return {"reason": f"fails when it runs: {explain(error.__cause__)}"}
    extra = {"float_ms": table.loc["float", "latency_ms"], "make_s": seconds, "reason": ""}
    return {**table.loc["quantized"].to_dict(), **extra, "busy": bool(table.attrs["note"])}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), forks=sys.argv[2] == "True")
