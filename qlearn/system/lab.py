"""Start JupyterLab on the course, without the pop-ups that greet a newcomer."""

import os
import subprocess
import sys
from pathlib import Path

from qlearn.system import background

SETTINGS = Path(__file__).parent / "jupyterlab"
COURSE = Path(__file__).parents[2]
FIRST_LESSON = Path("notebooks") / "00_start_here.ipynb"


def start(port: int | None, browser: bool) -> int:
    """Run JupyterLab in the course's folder until it is stopped; on POSIX this never returns.

    Parameters
    ----------
    port
        TCP port to listen on; JupyterLab's choice if not given.
    browser
        Whether to open the first lesson in a web browser.

    Returns
    -------
    int
        JupyterLab's exit code.

    Raises
    ------
    FileNotFoundError
        If the lessons are not beside the package.
    """
    if not (COURSE / FIRST_LESSON).exists():
        raise FileNotFoundError(
            f"The lessons are not in {COURSE}: install qlearn from a clone of the course, "
            "as the README shows."
        )
    page = f"--LabApp.default_url=/lab/tree/{FIRST_LESSON.as_posix()}"
    command = [sys.executable, "-m", "jupyterlab", page]
    command += [f"--ServerApp.port={port}"] if port else []
    command += [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # Jupyter refuses root; in a container there often is nobody else. It still listens on
        # the loopback address only, and asks for its token.
        command += ["--allow-root"]
    # JupyterLab reads labconfig/ from every folder on this path, so nothing of the learner's
    # own configuration is touched.
    path = os.pathsep.join(filter(None, [str(SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")]))
    # nbgrader calls programs of this environment, which need not be an activated one.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": path, "PATH": programs}
    os.chdir(COURSE)
    making = background.start()  # noqa: F841  it ends when this name does
    if os.name == "posix":
        # JupyterLab takes this process's place, so that whoever stops `qlearn lab` stops it too.
        os.execve(sys.executable, command, environment)
    try:
        return subprocess.call(command, env=environment)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is how one stops a server
