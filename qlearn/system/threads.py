"""How a process's threads wait for each other, set before PyTorch loads its OpenMP runtime.

PyTorch's threads meet at a barrier after each operator. By default the first to arrive spins: on a
quiet machine the others come within microseconds, and nothing is faster. On a busy one the others
wait for a core, and what spins keeps it from them: four kernels on two cores then slow each other
down a hundredfold, and not fourfold. With the settings below, threads spin for some microseconds
and then sleep. `make bench-steady` measures what that costs alone and saves beside others.

The variables are read once, when the runtime is loaded. `import qlearn` sets them, for its own
process and for those that it starts; `install` has every kernel of this environment set them,
however Jupyter was started.
"""

import contextlib
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

# GNU's runtime, of Linux wheels: turns of a loop. LLVM's and Intel's, of macOS' and Windows'
# wheels: milliseconds.
SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
# Who sets one of these has decided for themselves.
CHOSEN = ("OMP_WAIT_POLICY", *SETTINGS)
# IPython reads this file when a kernel of the environment starts, before the first cell runs.
KERNELS = Path(sys.prefix) / "etc" / "ipython" / "ipython_kernel_config.py"
LINES = "import qlearn  # sets how threads wait, before a cell imports torch\n"

# Whether PyTorch found the settings when it was loaded.
in_time = "torch" not in sys.modules or any(name in os.environ for name in CHOSEN)


def set_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads sleep soon while they wait, unless the environment already says how.

    Parameters
    ----------
    environment
        Of this process, where PyTorch is not loaded yet, or of one that is to be started.
    """
    if not any(name in environment for name in CHOSEN):
        environment.update(SETTINGS)


def install() -> None:
    """Have every kernel of this environment set them; a file of somebody else's is left alone.

    Where the environment cannot be written to, `qlearn doctor` says what is missing.
    """
    with contextlib.suppress(OSError):
        if not KERNELS.exists():
            KERNELS.parent.mkdir(parents=True, exist_ok=True)
            KERNELS.write_text(LINES, encoding="utf-8")


def installed() -> bool:
    """Say whether kernels of this environment set them."""
    return KERNELS.exists() and LINES in KERNELS.read_text(encoding="utf-8")
