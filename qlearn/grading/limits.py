"""What one submission may use, and the part of it that the operating system sees to."""

from dataclasses import dataclass

OPEN_FILES = 1024


@dataclass(frozen=True)
class Limits:
    """What one submission may use, of each of its two kernels.

    Attributes
    ----------
    seconds, cell_seconds
        CPU time of all cells together, and of one; a cell that takes longer is interrupted.
    patience
        Wall time may be so many times as long.
    memory_mb
        Of all processes together, with what they keep in folders in memory (10**6 bytes).
    processes
        Processes and threads.
    file_mb, disk_mb, files
        The largest file, all files together, and their number.
    output_kb, notebook_kb
        Output of one cell, and of all together, that is kept (10**3 characters).
    threads
        Of PyTorch, OpenMP and BLAS.
    """

    seconds: float = 1800.0
    cell_seconds: float = 600.0
    patience: float = 3.0
    memory_mb: int = 4000
    processes: int = 256
    file_mb: int = 200
    disk_mb: int = 1000
    files: int = 10_000
    output_kb: int = 1000
    notebook_kb: int = 10_000
    threads: int = 1

    @classmethod
    def within(cls, seconds: float, memory_mb: int) -> "Limits":
        """Return the limits of a submission with so much CPU time and memory.

        A cell has ten minutes, as under nbgrader, or a third of a time that is longer.
        """
        return cls(
            seconds=seconds,
            cell_seconds=min(seconds, max(cls.cell_seconds, seconds / 3)),
            memory_mb=memory_mb,
        )


def resources(limits: Limits) -> dict[str, int]:
    """Return the limits of the operating system, by their names in `resource`.

    Parameters
    ----------
    limits
        What a submission may use.
    """
    return {
        "RLIMIT_NPROC": limits.processes,
        # Data, not address space: PyTorch maps gigabytes of libraries that it never touches.
        "RLIMIT_DATA": limits.memory_mb * 10**6,
        "RLIMIT_FSIZE": limits.file_mb * 10**6,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CORE": 0,
    }


def command_within(limits: Limits, user: int | None) -> list[str]:
    """Return what comes before a command in a sandbox: it sets the limits, then the user.

    Only inside, as processes are counted per user.

    Parameters
    ----------
    limits
        What a submission may use.
    user
        Its user id, or None to keep the one that there is.
    """
    values = resources(limits).items()
    command = ["prlimit", *(f"--{name.removeprefix('RLIMIT_').lower()}={n}" for name, n in values)]
    if user is not None:
        command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command += ["--inh-caps=-all", "--no-new-privs"]
    return command
