"""Submissions out to dask's workers as bytes, verdicts back as bytes.

Whatever a worker or the scheduler suffers, a submission that has no verdict is sent again.
"""

import logging
import queue
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import Any

from qlearn.grading.clock import Slow
from qlearn.grading.records import Submission, Verdict

LOOK_SECONDS = 0.5  # between two looks at whether to stop
START_SECONDS = 10  # for a scheduler to answer at first
SCHEDULER_SECONDS = 300  # for a scheduler that is gone to come back
ALONE_SECONDS = 30  # for a worker of our own that has died to be there again
Work = Callable[[Submission], Verdict]


class Fanout:
    """A cluster that grades.

    Parameters
    ----------
    work
        Grades one submission; workers import it by its name.
    workers
        Processes on this machine.
    scheduler
        Address of a dask scheduler to use instead, or None.
    stopped
        Whether to finish what runs and send nothing more.
    say
        Told, in a sentence, what a person waits for.
    """

    def __init__(
        self,
        work: Work,
        workers: int,
        scheduler: str | None,
        stopped: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._work, self._workers, self._scheduler = work, workers, scheduler
        self._stopped, self._say = stopped, say
        self._running: dict[Any, Submission] = {}
        self._blamed: set[str] = set()  # whose work was running when no worker came back
        self._again: deque[Submission] = deque()
        self._slow: deque[Submission] = deque()  # to be tried when nothing else runs
        self._alone: set[str] = set()  # whose were tried so
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stack = ExitStack()

    def __enter__(self) -> "Fanout":
        """Start the workers, or find the scheduler; what dask logs and warns of is ours to say."""
        from distributed.utils import silence_logging_cmgr

        self._stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        self._stack.enter_context(warnings.catch_warnings())
        # A submission may have 100 MB, and each goes out once.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        if self._scheduler is None:
            self._address = self._stack.enter_context(_local(self._workers)).scheduler_address
        else:
            self._address = self._scheduler
        self._client = self._connect(START_SECONDS)
        self._manned = time.monotonic()  # when a worker was last seen
        self._stack.callback(lambda: self._client and self._client.close())
        return self

    def __exit__(self, *problem: Any) -> None:
        """End the workers that were started here, and what they still do."""
        self._stack.close()

    def verdicts(self, submissions: Iterator[Submission]) -> Iterator[tuple[Submission, Any]]:
        """Grade all submissions, in any order.

        Parameters
        ----------
        submissions
            Taken one by one, as workers come free.

        Yields
        ------
        tuple
            A submission, and its verdict, or the exception that took the place of one.

        Raises
        ------
        ConnectionError
            When the scheduler stays away.
        """
        while True:
            try:
                room = sum(self._client.nthreads().values())
            except _lost() as error:
                self._return_to(error)
                continue
            if self._stranded(room):
                yield from self._renew()
                continue
            self._take(submissions, room)
            try:
                self._send()
                if not self._running:
                    return
                done = self._finished()
                outcomes = [(future, _outcome(future)) for future in done]
            except _lost() as error:
                self._return_to(error)
                continue
            for future, outcome in outcomes:
                submission = self._running.pop(future)
                if isinstance(outcome, Slow) and submission.student not in self._alone:
                    self._alone.add(submission.student)
                    self._slow.append(submission)
                else:
                    yield submission, outcome

    def _take(self, submissions: Iterator[Submission], room: int) -> None:
        """Have one submission for each thread of the cluster.

        One more would wait on a worker, and pay for it when its neighbour kills that worker.
        """
        if not room:
            self._say(f"no worker is there: start one with dask worker {self._address}")
        while len(self._running) + len(self._again) < max(room, 1) and not self._stopped():
            submission = next(submissions, None)
            if submission is None:
                if self._slow and not self._running and not self._again:
                    self._again.append(self._slow.popleft())
                return
            self._again.append(submission)

    def _send(self) -> None:
        """Send what waits, unless nothing more is to start."""
        while self._again and not self._stopped():
            future = self._client.submit(self._work, self._again[0], pure=False)
            self._running[future] = self._again.popleft()
            future.add_done_callback(self._done.put)

    def _finished(self) -> list[Any]:
        """Return what is done, perhaps nothing, after a short wait."""
        done = []
        with suppress(queue.Empty):
            done.append(self._done.get(timeout=LOOK_SECONDS))
            while True:
                done.append(self._done.get_nowait())
        return [future for future in done if future in self._running]  # not of a lost scheduler

    def _stranded(self, room: int) -> bool:
        """Say whether our workers are gone: dask gives up on one that dies as it starts."""
        if room or self._scheduler is not None:
            self._manned = time.monotonic()
        return time.monotonic() > self._manned + ALONE_SECONDS

    def _renew(self) -> Iterator[tuple[Submission, Any]]:
        """Start other workers; yield what has now ended them for the second time."""
        self._stack.close()
        left = list(self._running.values())
        self._running.clear()
        self.__enter__()
        for submission in left:
            if submission.student in self._blamed:
                yield submission, RuntimeError("its workers died again and again")
            else:
                self._blamed.add(submission.student)
                self._again.append(submission)

    def _return_to(self, problem: object) -> None:
        """Find the scheduler again, and take back what has no verdict."""
        self._say(f"the scheduler at {self._address} is gone ({problem}): waiting for it")
        self._again.extend(self._running.values())
        self._running.clear()
        self._client.close(timeout=1)
        self._client = None
        self._client = self._connect(SCHEDULER_SECONDS)

    def _connect(self, patience: float) -> Any:
        from distributed import Client

        deadline = time.monotonic() + patience
        while not self._stopped():
            try:
                return Client(self._address, timeout=5, set_as_default=False)
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise ConnectionError(
                        f"The scheduler at {self._address} does not answer: {error}."
                    ) from None
                time.sleep(LOOK_SECONDS)
        raise ConnectionError(f"The scheduler at {self._address} did not answer until Ctrl-C.")


def _local(workers: int) -> Any:
    """Workers on this machine, which keep what they start out of the terminal's Ctrl-C."""
    import dask
    from distributed import LocalCluster

    # Not daemonic: a worker may start processes with multiprocessing.
    dask.config.set({"distributed.worker.daemon": False})
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=0,  # it is the kernels that are limited, each by its sandbox
        dashboard_address=None,
        preload=["qlearn.grading.worker"],
        silence_logs="CRITICAL",
    )


def _outcome(future: Any) -> Any:
    """Return the result of a task, or the exception in its place; raise what `_lost` names."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        raise CancelledError(future.key)
    error = future.exception()
    if isinstance(error, KilledWorker):
        return RuntimeError(f"{error.allowed_failures + 1} workers died while they graded it")
    return future.result() if error is None else error


def _lost() -> tuple[type[Exception], ...]:
    """Return what dask raises without its scheduler."""
    from distributed.client import ClosedClientError

    return OSError, RuntimeError, CancelledError, ClosedClientError
