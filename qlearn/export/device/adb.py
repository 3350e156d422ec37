"""The Android phone on the cable."""

import os
from collections.abc import Sequence
from pathlib import Path

from qlearn.export.device.connections import TIMEOUT, Connection


class Adb(Connection):
    """The Android phone on the cable; ANDROID_SERIAL, which adb knows, chooses among several."""

    base = "/data/local/tmp"

    def __init__(self) -> None:
        super().__init__("The phone")

    def __enter__(self) -> "Adb":
        """Find the phone."""
        try:
            listed = self.call(["adb", "devices"], TIMEOUT).decode(errors="replace")
        except FileNotFoundError:
            raise RuntimeError(
                "There is no adb here: install it (Debian: apt install adb)."
            ) from None
        rows = [line.split("\t") for line in listed.splitlines() if "\t" in line]
        self._serial = choose_phone({serial: state.strip() for serial, state, *_ in rows})
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to end: adb's server goes on, as it does for everybody."""

    def command(self, line: str) -> list[str]:
        """Return the command that runs a line on the phone."""
        return ["adb", "-s", self._serial, "shell", "-T", line]

    def explain(self, log: str) -> str:
        """Return why adb failed, and what to do."""
        reason = super().explain(log).removeprefix("adb: ").removeprefix("error: ")
        if "No space left" in log:
            return f"its storage is full ({reason}): free some room"
        if "not found" in reason or "offline" in reason or reason == "the connection was lost":
            return f"the connection was lost ({reason}): plug the cable in again, and repeat"
        return reason

    def copy(self, files: Sequence[Path], folder: str) -> None:
        """Copy files by adb's own way."""
        paths = [str(file) for file in files]
        self.call(["adb", "-s", self._serial, "push", *paths, f"{folder}/"], 10 * TIMEOUT)

    def fetch(self, file: str) -> bytes:
        """Return what is in a file; of a shell's output older phones change the line ends."""
        return self.call(["adb", "-s", self._serial, "exec-out", f"cat {file}"], TIMEOUT)


def choose_phone(states: dict[str, str]) -> str:
    """Return the serial number of the phone to use, or raise RuntimeError, which says what to do.

    ``states`` is what ``adb devices`` lists: serial number → state.
    """
    wanted = os.environ.get("ANDROID_SERIAL")
    if wanted is not None and wanted not in states:
        raise RuntimeError(f"ANDROID_SERIAL is {wanted}, and adb does not see that phone.")
    if not states:
        raise RuntimeError(
            "adb sees no phone: connect it by USB, and switch on USB debugging in its developer "
            "options."
        )
    if wanted is None and len(states) > 1:
        raise RuntimeError(
            f"adb sees {len(states)} phones ({', '.join(states)}): unplug all but one, or set "
            "ANDROID_SERIAL to the one to use."
        )
    serial = wanted or next(iter(states))
    if states[serial] == "unauthorized":
        raise RuntimeError(
            f"The phone {serial} does not trust this computer yet: unlock it, and allow USB "
            "debugging in the dialog on its screen."
        )
    if states[serial] != "device":
        raise RuntimeError(
            f"The phone {serial} is {states[serial]!r} to adb: plug its cable in again."
        )
    return serial
