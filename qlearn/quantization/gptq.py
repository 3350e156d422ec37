"""GPTQ: round a weight column by column; the columns that are left make up for each error."""

import torch
from torch import Tensor

from qlearn.quantization.groups import Grouped, codes_of, grid

DAMPING = 0.01  # of the Hessian, relative to the mean of its diagonal, as in the paper


def gptq(weight: Tensor, hessian: Tensor, bits: int, group: int) -> Grouped:
    """Round a Linear layer's weight so that its outputs, not its weights, change little.

    Parameters
    ----------
    weight
        outputs×inputs; it is not changed.
    hessian
        inputs×inputs, of `hessians`. With the identity, GPTQ is rounding to nearest.
    bits, group
        Of a code; inputs that share a scale.

    References
    ----------
    Frantar et al. 2023, GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers (arXiv 2210.17323), algorithm 1, without its blocks, which only save time.
    """
    weight, codes = weight.detach().clone(), torch.empty_like(weight)
    # Step 1: damp the Hessian, so that it can be inverted also where inputs repeat one another.
    damped = hessian + DAMPING * hessian.diagonal().mean().clamp_min(1e-8) * torch.eye(len(hessian))
    # Step 2: U with H⁻¹ = UᵀU. Its row j says how the columns after j answer to an error in j,
    # when the columns before j are fixed already.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    U = torch.linalg.cholesky(inverse, upper=True)
    grids = []
    for j in range(weight.shape[1]):
        # Step 3: where a group begins, choose its grid, from weights as they have become.
        if j % group == 0:
            grids.append(grid(weight[:, j : j + group], bits))
        scale, low = grids[-1]
        # Step 4: round the column, and divide the error by the diagonal of U.
        codes[:, j : j + 1] = codes_of(weight[:, j : j + 1], scale, low, bits)
        error = (weight[:, j : j + 1] - codes[:, j : j + 1] * scale - low) / U[j, j]
        # Step 5: move the columns that are left, against the error.
        weight[:, j + 1 :] -= error * U[j, j + 1 :]
    scale, low = (torch.cat(columns, 1) for columns in zip(*grids, strict=True))
    return Grouped(codes, scale, low, group)
