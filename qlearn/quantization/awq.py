"""AWQ: weights that meet large inputs are made larger before rounding: their steps are finer."""

from torch import Tensor

from qlearn.quantization.groups import Grouped, round_to_nearest

EXPONENTS = [step / 20 for step in range(20)]  # of the search, as in the paper's code


def awq(
    weight: Tensor, hessian: Tensor, bits: int, group: int, exponents: list[float] = EXPONENTS
) -> Grouped:
    """Scale a weight's columns by a power of their inputs' size, and round to nearest.

    Column j is multiplied by s_j, and input j will be divided by it: in float nothing changes. Of
    the powers s_j = (size of input j)^α the one with the least error of the outputs is taken. The
    paper's size is the mean of |x_j|, here it is the root of the mean square; its search for
    clipped ranges is left out.

    Parameters
    ----------
    weight
        outputs×inputs; it is not changed.
    hessian
        inputs×inputs, of `hessians`: the mean of x xᵀ.
    bits, group
        Of a code; inputs that share a scale.
    exponents
        Values of α to try. With 0 alone, AWQ is rounding to nearest.

    References
    ----------
    Lin et al. 2024, Activation-aware Weight Quantization (arXiv 2306.00978), section 3.2.
    """
    weight, tried = weight.detach(), []
    # Step 1: the size of each input.
    size = hessian.diagonal().sqrt().clamp_min(1e-6)
    for exponent in exponents:
        # Step 2: scales around 1, so that large and small ones leave the middle where it is.
        scale = size**exponent
        scale = scale / (scale.max() * scale.min()).sqrt()
        # Step 3: round the scaled weight.
        rounded = round_to_nearest(weight * scale, bits, group)._replace(divisor=scale)
        # Step 4: the mean squared error of the outputs, tr(E H Eᵀ).
        error = weight - rounded.dequantize()
        tried.append((((error @ hessian) * error).sum().item(), exponent, rounded))
    # Step 5: keep the best.
    return min(tried, key=lambda trial: trial[:2])[2]
