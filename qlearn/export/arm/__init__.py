"""The Arm check: what an ExecuTorch file computes on an Arm CPU, against what it computes here.

Phones have Arm CPUs, for which XNNPACK brings other kernels than for this machine. The file is run
by a small C++ program on an emulated Arm core, and its outputs are compared with the host's. An
emulator says whether the outputs are right; its times mean nothing, so none are given.

The emulated core is a Cortex-A76, common in phones since 2018. It is pinned because the kernels
depend on it: on the emulator's "max", which has every extension, the int8 outputs are wrong
(QEMU 7.2; with SME switched off they are right).
"""

from qlearn.export.arm.comparison import ArmReport, check
from qlearn.export.arm.runner import missing_tools

__all__ = ["ArmReport", "check", "missing_tools"]
