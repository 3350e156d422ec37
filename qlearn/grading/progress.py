"""What the person who grades sees: a bar, and a line or a JSON object per verdict."""

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qlearn.grading.intake import shown

PERIOD = 3600.0  # seconds that rate and time left are estimated from: a verdict may take minutes


@dataclass(frozen=True)
class Line:
    """What is said about one submission.

    Attributes
    ----------
    student
        Whose.
    outcome
        "graded", "stopped" (graded, and the reason is why it has fewer points than it might),
        "unchanged" or "failed" (it has no verdict: the next call tries again).
    score, most
        Points, and how many there are.
    to_read
        Parts that a person still has to read.
    reason
        In words, or empty.
    seconds, cpu_seconds, peak_mb
        As in `Verdict`.
    """

    student: str
    outcome: str
    score: float = 0.0
    most: float = 0.0
    to_read: int = 0
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0


class Reporter(AbstractContextManager):
    """Shows how far grading is.

    Parameters
    ----------
    total
        Submissions.
    as_json
        Whether verdicts are written to the output as JSON, and all else to the error stream.
    """

    def __init__(self, total: int, as_json: bool) -> None:
        self._json = as_json
        self._out = Console(highlight=False, soft_wrap=True)
        bar = Console(stderr=True) if as_json else self._out
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed · {task.fields[rate]} per minute · left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=bar,
            disable=not bar.is_terminal,
            speed_estimate_period=PERIOD,
        )
        self._task = self._bar.add_task("grading", total=total, failed=0, rate="–")
        self.lines: list[Line] = []
        self._said = ""

    def __enter__(self) -> "Reporter":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def add(self, line: Line) -> None:
        """Say what became of a submission."""
        self.lines.append(line)
        failed = sum(line.outcome == "failed" for line in self.lines)
        speed = self._bar.tasks[0].speed
        rate = "–" if speed is None else f"{60 * speed:.1f}"
        self._bar.update(self._task, advance=1, failed=failed, rate=rate)
        if self._json:
            print(json.dumps(asdict(line)), flush=True)
        elif line.outcome != "unchanged":
            self._out.print(_sentence(line), markup=False)

    def say(self, sentence: str) -> None:
        """Say what is waited for, once."""
        if sentence != self._said:
            self._said = sentence
            self._bar.console.print(sentence, markup=False)

    def close(self, stopped: bool) -> None:
        """Say how many there were of each outcome."""
        outcomes = [line.outcome for line in self.lines]
        counts = [f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(outcomes)]
        end = " Stopped: the same command goes on where it was." if stopped else ""
        self._bar.console.print(f"{', '.join(counts) or 'nothing graded'}.{end}", markup=False)


def _sentence(line: Line) -> str:
    name = line.student if line.student.isprintable() else shown(line.student)
    if line.outcome == "failed":
        return f"{line.outcome:9} {name}: {line.reason}"
    read = f", {line.to_read} to read" if line.to_read else ""
    reason = f": {line.reason}" if line.reason else ""
    return (
        f"{line.outcome:9} {name} {line.score:g} of {line.most:g}{read}, "
        f"{line.seconds:.0f} s{reason}"
    )
