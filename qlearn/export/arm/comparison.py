"""Samples for an ExecuTorch file, its outputs on this machine, and the comparison with Arm's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qlearn.calibration import sqnr
from qlearn.export.arm.runner import CPU, on_arm, run_on_arm
from qlearn.export.common import require_file
from qlearn.export.contents import IDENTIFIER
from qlearn.system.errors import Refusal
from qlearn.system.noise import quiet

Sample = tuple[Tensor, ...]  # a tensor for each input, or each output, of the method
Signature = list[tuple[tuple[int, ...], int]]  # shape and type number of each input

SAMPLES = 2  # emulation is slow: an fp32 ResNet-18 takes most of a minute a sample
# Kernels that add in another order differ by 120 dB and more, int8 kernels not at all; an output
# that is rounded to the next of its 256 steps keeps above 30. Wrong kernels were seen at 2 and 10.
THRESHOLD_DB = 30.0
NO_TIMES = "No times were taken: an emulator's mean nothing."
# The runtime's numbers of the types that inputs can be made for (executorch/exir/scalar_type.py).
TYPES = {
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
}


@dataclass(frozen=True)
class ArmReport:
    """How far a file's outputs on Arm are from the host's.

    Attributes
    ----------
    samples
        Number of samples that were run.
    sqnr_db
        Signal-to-noise ratio of the Arm's outputs against the host's, the lowest of the method's
        outputs; inf when all are equal.
    max_difference
        Largest absolute difference of any value.
    top1
        Share of rows of the first output with the same largest entry, in [0, 1]; None unless that
        output is of shape (N, classes).
    """

    path: Path
    samples: int
    sqnr_db: float
    max_difference: float
    top1: float | None
    core: str

    @property
    def passes(self) -> bool:
        """Whether the outputs agree: ``sqnr_db`` is at least ``THRESHOLD_DB``."""
        return self.sqnr_db >= THRESHOLD_DB

    def __str__(self) -> str:
        """Return the report in one line."""
        verdict = "agrees with" if self.passes else "DIFFERS from"
        found = "equal" if math.isinf(self.sqnr_db) and self.passes else f"{self.sqnr_db:.1f} dB"
        top1 = "" if self.top1 is None else f", top-1 alike {self.top1:.0%}"
        return (
            f"{self.path.name} on {self.core} {verdict} this machine: outputs {found} (at least "
            f"{THRESHOLD_DB:.0f} dB wanted), largest difference {self.max_difference:.2g}{top1}, "
            f"{self.samples} inputs. {NO_TIMES}"
        )


def check(path: str | Path, inputs: Iterable[Tensor | Sample] | None = None) -> ArmReport:
    """Run an ExecuTorch file on an emulated Arm core and compare its outputs with the host's.

    Parameters
    ----------
    path
        A ``.pte`` file with a ``forward`` method of tensors.
    inputs
        The samples to run: each a tensor, or a tuple of one tensor for each input of the method,
        of the shapes and types that the file asks for. None makes two, seeded: normal floats,
        integers and booleans of 0 and 1.

    Returns
    -------
    ArmReport
        Whether outputs that differ are an error is the caller's to say: see its ``passes``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or cannot run, or the inputs do not fit it.
    RuntimeError
        If a tool is missing, its files cannot be fetched, or the emulator takes too long.
    """
    path = require_file(path, "executorch")
    wanted = read_signature(path)
    samples = make_samples(path, wanted) if inputs is None else _require_fit(inputs, wanted)
    # On Arm first: a damaged file can end the process that runs it, and that one is not ours.
    raw = run_on_arm(path, [[to_bytes(tensor) for tensor in sample] for sample in samples])
    host = run_on_host(path, samples)
    core = "this Arm machine" if on_arm() else f"an emulated Arm {CPU.title()}"
    return compare(path, host, to_tensors(path, raw, host), core)


def read_signature(path: Path) -> Signature:
    """Return what the file asks for."""
    if path.read_bytes()[4:8] != IDENTIFIER:
        raise ValueError(f"{path} does not begin as an ExecuTorch file (.pte) does.")
    with quiet():
        from executorch.runtime import Runtime

        try:
            method = Runtime.get().load_program(path).metadata("forward")
            tensors = [method.input_tensor_meta(index) for index in range(method.num_inputs())]
        except RuntimeError as error:
            raise Refusal(
                f"{path} is damaged, or has no forward method that takes tensors only ({error}): "
                "export it again."
            ) from error
        return [(tuple(tensor.sizes()), tensor.dtype()) for tensor in tensors]


def make_samples(path: Path, wanted: Signature) -> list[Sample]:
    """Make ``SAMPLES`` seeded inputs of the shapes and types that a file asks for."""
    if not all(number in TYPES for _, number in wanted):
        raise ValueError(f"{path} takes an input of a type for which none can be made up.")
    generator = torch.Generator().manual_seed(0)

    def make(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype)
        return torch.randint(2, shape, generator=generator).to(dtype)

    return [tuple(make(s, TYPES[number]) for s, number in wanted) for _ in range(SAMPLES)]


def _require_fit(inputs: Iterable[Tensor | Sample], wanted: Signature) -> list[Sample]:
    samples = [(item,) if isinstance(item, Tensor) else tuple(item) for item in inputs]
    expected = [(shape, TYPES.get(number)) for shape, number in wanted]
    if not samples:
        raise ValueError("There is no input: give at least one, or None to have some made up.")
    for sample in samples:
        if [(tuple(tensor.shape), tensor.dtype) for tensor in sample] != expected:
            text = ", ".join(f"{dtype} of {shape}" for shape, dtype in expected)
            raise ValueError(f"The inputs do not fit the file, which takes {text}.")
    return samples


def to_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's values in its memory order, in which the runtime takes and gives them."""
    dense = tensor.detach().clone()
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


def run_on_host(path: str | Path, samples: Iterable[Sample]) -> list[Sample]:
    """Return the file's outputs for each sample, computed by ExecuTorch on this machine."""
    with quiet():
        from executorch.runtime import Runtime

        try:
            method = Runtime.get().load_program(Path(path)).load_method("forward")
            # The runtime's outputs share memory from one call to the next.
            return [tuple(map(Tensor.clone, method.execute(sample))) for sample in samples]
        except RuntimeError as error:
            raise Refusal(
                f"{path} does not run on this machine ({error}): export it again."
            ) from error


def to_tensors(path: Path, raw: bytes, host: Sequence[Sample]) -> list[Sample]:
    """Cut a device's bytes into tensors of the shapes and layouts of the host's outputs."""
    sizes = [tensor.nbytes for sample in host for tensor in sample]
    if len(raw) != sum(sizes):
        raise ValueError(f"{path} gives outputs of another size there than on this machine.")
    parts = iter(torch.frombuffer(bytearray(raw), dtype=torch.uint8).split(sizes))

    def take(like: Tensor) -> Tensor:
        return next(parts).clone().view(like.dtype).as_strided(like.shape, like.stride())

    return [tuple(map(take, sample)) for sample in host]


def compare(
    path: str | Path, host: Sequence[Sample], arm: Sequence[Sample], core: str
) -> ArmReport:
    """Compare the outputs of each sample on a device, ``core``, with the host's, one by one."""
    ratios, differences = [], []
    for wanted, found in zip(zip(*host, strict=True), zip(*arm, strict=True), strict=True):
        reference, values = torch.stack(wanted).double(), torch.stack(found).double()
        finite = bool(values.isfinite().all())
        ratios.append(sqnr(reference, values) if finite else -math.inf)
        differences.append(float((reference - values).abs().max()) if finite else math.inf)
    top1 = None
    if host[0][0].ndim == 2:
        alike = [x[0].argmax(1) == y[0].argmax(1) for x, y in zip(host, arm, strict=True)]
        top1 = float(torch.cat(alike).double().mean())
    return ArmReport(Path(path), len(host), min(ratios), max(differences), top1, core)
