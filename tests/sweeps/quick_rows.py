"""What times a row of a sweep for as long as a test needs; the process of a row can import it."""

from qlearn.sweeps import row_process

TIMING = 0.02  # seconds: no test reads these times


def make_row(*arguments: object) -> None:
    """Make a row as the sweep does, in a process that does nothing else."""
    row_process.TIMING = TIMING
    row_process.make_row(*arguments)
