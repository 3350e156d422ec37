"""LSQ: a fake quantizer of weights whose step size is learned."""

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn


class LearnedStep(tq.FakeQuantizeBase):
    """A fake quantizer of weights whose step is a parameter, trained with the rest (LSQ).

    Use it as the ``weight`` of a QConfig for QAT: ``LearnedStep.with_args(bits=4)``. It has one
    step per tensor and the paper's levels, −2^(bits−1) … 2^(bits−1) − 1: with a learned step the
    largest weight need not be a level, so the lowest level is of use.

    Parameters
    ----------
    bits
        Of a weight, from 2 to 8.
    symmetric
        Leave out the lowest level, as `weight_qconfig` does: for comparisons on equal grids.
    factory_kwargs
        Device and dtype, which PyTorch's QAT layers pass to every fake quantizer; not needed here.

    References
    ----------
    Esser et al. 2020, Learned Step Size Quantization (arXiv 1902.08153), sections 2.1 and 2.2.
    """

    dtype = torch.qint8
    qscheme = torch.per_tensor_symmetric

    def __init__(
        self, bits: int, symmetric: bool = False, factory_kwargs: dict | None = None
    ) -> None:
        super().__init__()
        self.quant_min, self.quant_max = symmetric - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, w: Tensor) -> Tensor:
        """Return the rounded weights, in float."""
        # Step 1, once: begin with 2⟨|w|⟩ / √Q, Q the highest level.
        if not self.started:
            self.scale.data.fill_(2 * w.detach().abs().mean() / self.quant_max**0.5)
            self.started.fill_(True)
        # Step 2: scale the step's gradient by 1/√(NQ), N the number of weights, and leave its
        # value: with SGD the step then learns as fast as the weights. (Adam, which `qlearn.fit`
        # uses, adapts to the scale of a gradient by itself.)
        gradient_scale = 1 / (w.numel() * self.quant_max) ** 0.5
        step = self.scale.detach() + gradient_scale * (self.scale - self.scale.detach())
        # Step 3: quantize and dequantize. Rounding passes gradients on unchanged
        # (straight-through), so that the step's is round(w/s) − w/s inside the range and the
        # end of the range outside it.
        levels = (w / step).clamp(self.quant_min, self.quant_max)
        rounded = levels + (levels.round() - levels).detach()
        return rounded * step

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return the step and the zero point, as ``convert`` asks for them."""
        return self.scale.detach(), self.zero_point
