"""Files on a device: their outputs against this machine's, and their times in turns."""

import shlex
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qlearn.benchmarking import ROUNDS, bootstrap_interval
from qlearn.export.arm import comparison, runner
from qlearn.export.common import require_file
from qlearn.export.device.connections import Connection

# One fact a line, "name=value"; what a device does not tell is left empty.
FACTS = r"""
tell() { echo "$1=$(cat $2 2>/dev/null | tr '\0' ' ' | head -n 1)"; }
echo "device=$(getprop ro.product.model 2>/dev/null)"
tell board /proc/device-tree/model
tell product /sys/class/dmi/id/product_name
echo "cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
echo "android=$(getprop ro.build.version.release 2>/dev/null)"
echo "kernel=$(uname -sr)"
echo "cores=$(nproc --all)"
"""
STATE = r"""
for clock in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do
  echo "clock=$(cat $clock 2>/dev/null)"
done
for zone in /sys/class/thermal/thermal_zone*; do
  echo "temperature=$(cat $zone/temp 2>/dev/null)"
done
"""
WARMEST = 150  # °C: what a sensor says above it is not a temperature


def measure(
    files: Sequence[str | Path], device: Connection, threads: int = 1, seconds: float = 2.0
) -> dict:
    """Run ExecuTorch files on a device, compare their outputs with this machine's, and time them.

    Each file is warmed up for a second, then timed once in each of ``ROUNDS`` rounds, in random
    order: a device that becomes warm slows all alike.

    Parameters
    ----------
    files
        ``.pte`` files with the same inputs; the first is what the others are compared with.
    device
        A connection that is open: ``with Ssh("pi@raspberrypi") as device``.
    threads
        Of the runtime.
    seconds
        To spend on timing each file, about.

    Returns
    -------
    dict
        The report, as `report.write` keeps it. Its "agrees" says whether all outputs agree; if
        they do not, there are no times in it.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged, or takes other inputs than the first.
    RuntimeError
        If a tool is missing here, or the device cannot do its part: one sentence.
    """
    paths = [require_file(file, "executorch") for file in files]
    samples = _make_inputs(paths)
    machine = device.run("uname -m").decode().strip()
    if machine not in runner.LOADERS:
        known = " and ".join(runner.LOADERS)
        raise RuntimeError(f"{device.name} is {machine!r}: there are runners for {known} only.")
    runner.require_tools(f"A runner for {machine} must be compiled", machine, emulator=False)
    raw, rounds, told = _run_there(paths, samples, device, machine, threads, seconds)
    entries = []
    for path, outputs in zip(paths, raw, strict=True):
        host = comparison.run_on_host(path, samples)
        found = comparison.to_tensors(path, outputs, host)
        compared = comparison.compare(path, host, found, told["device"])
        entries.append(_describe(path, compared))
    agrees = all(entry["agrees"] for entry in entries)
    if agrees:
        _add_times(entries, rounds)
    return {**told, "threads": threads, "agrees": agrees, "files": entries}


def _make_inputs(paths: Sequence[Path]) -> list[comparison.Sample]:
    if len({path.name for path in paths}) < len(paths):
        raise ValueError("Two of the files have the same name: give each one of its own.")
    first, *others = (comparison.read_signature(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise ValueError(f"{path} takes other inputs than {paths[0]}: compare like with like.")
    return comparison.make_samples(paths[0], first)


def _run_there(
    paths: Sequence[Path],
    samples: Sequence[comparison.Sample],
    device: Connection,
    machine: str,
    threads: int,
    seconds: float,
) -> tuple[list[bytes], np.ndarray, dict]:
    """Return the outputs' bytes of each file, seconds a call by round and file, and the facts."""
    program, loader, *libraries = runner.build(machine)
    with device.folder() as folder, tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs"
        values = (comparison.to_bytes(tensor) for sample in samples for tensor in sample)
        inputs.write_bytes(b"".join(values))
        device.copy([program, loader, *libraries, inputs, *paths], folder)
        models = " ".join(
            f"{shlex.quote(path.name)} out{place}" for place, path in enumerate(paths)
        )
        line = (
            f"cd {folder} && chmod u+x {loader.name} && echo $$ > pid && exec ./{loader.name} "
            f"--library-path . ./{program.name} {threads} {ROUNDS} {seconds} inputs {len(samples)} "
            f"{models}"
        )
        told = _name_device(_read_facts(device.run(FACTS)))
        told["before"] = _read_state(device.run(STATE))
        printed = device.run(line, runner.TOOL_TIMEOUT).decode()
        told["after"] = _read_state(device.run(STATE))
        raw = [device.fetch(f"{folder}/out{place}") for place in range(len(paths))]
    times = [[] for _ in paths]
    for row in printed.splitlines():
        place, duration = row.split()
        times[int(place)].append(float(duration))
    return raw, np.array(times), told


def _read_facts(text: bytes) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    for line in text.decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        facts.setdefault(name, []).append(value.strip())
    return facts


def _name_device(facts: dict[str, list[str]]) -> dict:
    """Return device, system and number of cores, as far as the device tells them."""
    first = {name: values[0] for name, values in facts.items()}
    names = (first["device"], first["board"], first["product"], first["cpu"])
    name = next(filter(None, names), "a device that tells no name")
    android = first["android"]
    system = f"Android {android}" if android else first["kernel"]
    return {"device": name, "system": system, "cores": int(first["cores"] or 0) or None}


def _read_state(text: bytes) -> dict:
    """Return the cores' clocks in MHz, and the highest temperature in °C; None if not told."""
    facts = _read_facts(text)
    clocks = [int(value) / 1000 for value in facts.get("clock", []) if value.isdigit()]
    degrees = [int(value) / 1000 for value in facts.get("temperature", []) if value.isdigit()]
    plausible = [value for value in degrees if 0 < value < WARMEST]
    return {"clocks_mhz": clocks or None, "celsius": max(plausible, default=None)}


def _describe(path: Path, compared: comparison.ArmReport) -> dict:
    return {
        "name": path.name,
        "size_mb": path.stat().st_size / 1e6,
        "agrees": compared.passes,
        # JSON has no inf: None stands for equal outputs, and for those that are no numbers.
        "sqnr_db": compared.sqnr_db if np.isfinite(compared.sqnr_db) else None,
        "top1": compared.top1,
    }


def _add_times(entries: list[dict], rounds: np.ndarray) -> None:
    for entry, times in zip(entries, rounds, strict=True):
        low, high = bootstrap_interval(rounds[0] / times)
        q1, median, q3 = (1e3 * np.percentile(times, [25, 50, 75])).tolist()
        entry |= {"q1_ms": q1, "median_ms": median, "q3_ms": q3}
        entry |= {"speedup": statistics.median(rounds[0] / times)}
        entry |= {"speedup_low": low, "speedup_high": high}
