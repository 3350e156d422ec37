"""ExecuTorch files timed on the device itself: an Android phone by adb, a Linux board by ssh.

The Arm check's runner is copied to a temporary folder there with its own loader and C library, so
that the device needs neither an app nor a compiler nor root; the folder is removed by the device
itself when its connection to this machine ends.

All of it was tested with a real sshd and an emulated Arm core; adb only with a stand-in that speaks
as adb does. It was never tried on a real phone or board.
"""

from qlearn.export.device.adb import Adb
from qlearn.export.device.connections import Connection, Ssh
from qlearn.export.device.measurement import measure
from qlearn.export.device.report import read, write

__all__ = ["Adb", "Connection", "Ssh", "measure", "read", "write"]
