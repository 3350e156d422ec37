"""Programs of others, run to their end."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_tool(
    command: Sequence[str | Path],
    failure: str,
    timeout: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> None:
    """Run a program; if it fails, raise RuntimeError with ``failure``.

    In it, ``{reason}`` stands for the first error that the program names.
    """
    options = {"check": True, "capture_output": True, "text": True, "timeout": timeout}
    try:
        subprocess.run(command, cwd=cwd, env=env, **options)
    except subprocess.TimeoutExpired:
        reason = f"no end within {timeout} s"
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()]
        reason = lines[0].strip() if lines else error.stderr.strip() or str(error.returncode)
    else:
        return
    raise RuntimeError(failure.replace("{reason}", reason))
