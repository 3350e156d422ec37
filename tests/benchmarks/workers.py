"""Engines timed in turns, each in a process of its own.

Thread pools of two engines in one process slow each other down, and engines timed one after the
other meet other loads of the machine. So every engine gets a worker process, and the workers are
timed in interleaved rounds: only the one that was told to runs, the others wait.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from engines import EAGER, ENGINES, Runner, own_fp32
from torch import Tensor

from qlearn.benchmarking import bootstrap_interval
from qlearn.system.errors import explain

LOADING_TIMEOUT = 240  # seconds that an engine may take to load and run once, all loading together
CONTEXT = multiprocessing.get_context("spawn")  # an engine meets nothing that another has loaded
PAUSE = 0.05  # seconds between two turns, for threads that spin to fall asleep


def _serve(connection: Connection, name: str, folder: Path, threads: int) -> None:
    """Load an engine, answer with its size and outputs, then time it whenever told to."""
    from qlearn.export import quiet

    torch.set_num_threads(threads)
    try:
        with quiet(), torch.inference_mode():
            examples = torch.load(folder / "inputs.pt")["examples"]
            runner, size = ENGINES[name].load(folder, threads)
            # A runtime may give the same memory for each output.
            outputs = torch.cat([runner(example).clone() for example in examples])
    except Exception as error:
        connection.send(explain(error))
        return
    connection.send((size, outputs.numpy()))
    # A number of seconds asks for one more round, None for the end.
    while (seconds := connection.recv()) is not None:
        with torch.inference_mode():
            connection.send(_time(runner, examples[0], seconds))


def _time(runner: Runner, example: Tensor, seconds: float) -> float:
    """Call for about ``seconds`` and return the median seconds a call, after two to warm up."""
    for _ in range(2):
        runner(example)
    calls, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or not calls:
        start = time.perf_counter()
        runner(example)
        calls.append(time.perf_counter() - start)
    return float(np.median(calls))


class Worker:
    """One engine in a process of its own.

    After ``wait``, ``skipped`` says why it cannot be measured, or is None; then there are its
    ``size`` in MB and its ``outputs`` for the examples, N×classes.
    """

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=_serve, args=(theirs, name, folder, threads), daemon=True
        )
        self.process.start()
        theirs.close()  # so that a worker that dies is noticed: its end of the pipe closes
        self.skipped: str | None = None

    def wait(self) -> None:
        """Wait until the engine has loaded and run once, or has failed to."""
        if not self.connection.poll(LOADING_TIMEOUT):
            self.process.terminate()
            self.skipped = f"gave no result within {LOADING_TIMEOUT} s"
            return
        try:
            answer = self.connection.recv()
        except EOFError:
            self.skipped = "its process died while loading"
            return
        if isinstance(answer, str):
            self.skipped = answer
        else:
            self.size, self.outputs = answer[0], torch.from_numpy(answer[1])

    def time(self, seconds: float) -> float:
        """Run for about ``seconds``; return the median seconds a call, nan once it has died."""
        if self.skipped is None:
            try:
                self.connection.send(seconds)
                return self.connection.recv()
            except (EOFError, OSError):
                self.skipped = "its process died while it was timed"
        return float("nan")

    def stop(self) -> None:
        """End the process."""
        if self.process.is_alive() and self.skipped is None:
            with contextlib.suppress(OSError):  # it may die at this moment
                self.connection.send(None)
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()
        self.connection.close()


def measure(
    folder: Path, names: Iterable[str], threads: int, rounds: int = 20, seconds: float = 0.3
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Time engines in interleaved rounds, one process at work at any moment.

    Parameters
    ----------
    folder
        What ``export_all`` has filled.
    names
        Keys of ``ENGINES``; ``EAGER`` must be among them.
    threads
        Threads of each engine.
    rounds, seconds
        Number of rounds, and the time that each engine gets in each.

    Returns
    -------
    table : DataFrame
        One row an engine: ``precision``; ``size_mb``; ``latency_ms`` (median over rounds), with the
        quartiles ``q1_ms`` and ``q3_ms``; ``eager``, ``eager_low``, ``eager_high``: how many
        times as fast as eager fp32 (median over rounds, 95 % bootstrap interval); ``best`` and
        its interval: the same against the fastest fp32 engine; ``own`` and its interval: the same
        against the same engine's fp32, and ``own_size``, the size as a share of its; ``sqnr_db``
        of the outputs against eager fp32's, and ``top1``, the share of examples with the same
        largest output. What cannot be compared is nan.
    skipped : dict
        Engine → why it was not measured.

    Raises
    ------
    RuntimeError
        If ``EAGER`` cannot be timed, which the others are compared with.
    """
    workers: dict[str, Worker] = {}
    try:
        for name in names:
            workers[name] = Worker(name, folder, threads)
        for worker in workers.values():
            worker.wait()
        if (reason := workers[EAGER].skipped) is not None:
            raise RuntimeError(f"{EAGER}, which all are compared with, cannot be timed: {reason}.")
        running = {name: worker for name, worker in workers.items() if worker.skipped is None}
        times = _rounds(running, rounds, seconds)
        if (reason := workers[EAGER].skipped) is not None:
            raise RuntimeError(f"{EAGER}, which all are compared with, was lost: {reason}.")
        table = _table({n: w for n, w in running.items() if w.skipped is None}, times)
        return table, {name: w.skipped for name, w in workers.items() if w.skipped is not None}
    finally:
        for worker in workers.values():
            worker.stop()


def _rounds(workers: Mapping[str, Worker], rounds: int, seconds: float) -> dict[str, np.ndarray]:
    order = np.random.default_rng(0)
    times = {name: np.empty(rounds) for name in workers}
    for round_ in range(rounds):
        for name in order.permutation(list(workers)):
            time.sleep(PAUSE)
            times[name][round_] = workers[name].time(seconds)
    return times


def _table(workers: Mapping[str, Worker], times: dict[str, np.ndarray]) -> pd.DataFrame:
    from qlearn.calibration import sqnr

    floats = [name for name in workers if ENGINES[name].precision == "fp32"]
    best = min(floats, key=lambda name: np.median(times[name]))
    reference = workers[EAGER].outputs
    rows = {}
    for name, worker in workers.items():
        own = own_fp32(name)
        q1, median, q3 = 1e3 * np.percentile(times[name], [25, 50, 75])
        rows[name] = {
            "precision": ENGINES[name].precision,
            "size_mb": worker.size,
            "own_size": worker.size / workers[own].size if own in workers else np.nan,
            "latency_ms": median,
            "q1_ms": q1,
            "q3_ms": q3,
            "sqnr_db": sqnr(reference, worker.outputs),
            "top1": float((reference.argmax(1) == worker.outputs.argmax(1)).double().mean()),
        }
        for column, base in (("eager", EAGER), ("best", best), ("own", own)):
            rows[name] |= _ratio(column, times[base] / times[name] if base in workers else None)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("engine")


def _ratio(column: str, ratios: np.ndarray | None) -> dict[str, float]:
    """Return the median of the rounds' ratios and its interval; nan if there are none."""
    values = (np.nan,) * 3 if ratios is None else (np.median(ratios), *bootstrap_interval(ratios))
    return dict(zip((column, f"{column}_low", f"{column}_high"), values, strict=True))
