"""The quantizer that lesson 01 builds, against PyTorch's own, on arbitrary inputs.

The functions under test are the notebook's: its cells tagged "quantizer" are run as they stand.
"""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_numbers_and_scales.ipynb"
INT8, UINT8 = (-128, 127, torch.qint8), (0, 255, torch.quint8)

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")

# The same examples in every run, and no time limit: a busy machine must not fail a test.
settings.register_profile("lesson", max_examples=100, deadline=None, derandomize=True)
SETTINGS = settings.get_profile("lesson")


def _definitions() -> SimpleNamespace:
    """Return what the notebook's "quantizer" cells define."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    names = {"torch": torch}
    for cell in cells:
        if "quantizer" in cell.metadata.get("tags", []):
            exec(compile(cell.source, NOTEBOOK.name, "exec"), names)
    return SimpleNamespace(**names)


lesson = _definitions()

# PyTorch's AVX kernels overflow beyond 2**31 steps (infinity may become the lowest level), and
# the reciprocal of the scale must be finite: values and scales stay clear of both.
# Scales get random fractions: hypothesis prefers round numbers, whose reciprocals are exact.
scales = st.builds(
    lambda fraction, exponent: fraction * 2.0**exponent,
    st.integers(2**23, 2**24 - 1),
    st.integers(-80, 40),
)
grids = st.sampled_from([INT8, UINT8])


ALL_TIES = torch.arange(-300, 300) + 0.5

# Arbitrary numbers of steps, and ties between two levels.
steps = st.one_of(
    st.floats(-(2.0**29), 2.0**29, width=32),
    st.floats(-400, 400, width=32),
    st.integers(-600, 600).map(lambda half: half / 2),
)


@st.composite
def parameters(draw):
    """A scale, a zero point, the ends of a grid, and PyTorch's type for it."""
    low, high, dtype = draw(grids)
    return draw(scales), draw(st.integers(low, high)), low, high, dtype


@st.composite
def cases(draw):
    """A tensor, short or long enough for PyTorch's vector kernels, and its parameters."""
    scale, *rest = draw(parameters())
    drawn = arrays(np.float32, st.integers(1, 9), elements=steps).map(torch.from_numpy)
    values = draw(drawn | st.just(ALL_TIES))
    x = values.repeat(draw(st.integers(1, 30))) * torch.tensor(scale, dtype=torch.float32)
    return x, scale, *rest


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers, whatever their integer types."""
    return ours.shape == theirs.shape and bool((ours == theirs).all())


@SETTINGS
@given(cases())
def test_per_tensor_is_pytorchs_bit_for_bit(case):
    x, scale, zero_point, low, high, dtype = case
    theirs = torch.quantize_per_tensor(x, scale, zero_point, dtype)
    ours = lesson.quantize(x, scale, zero_point, low, high)
    assert ours.dtype == torch.int32
    assert same(ours, theirs.int_repr())
    assert same(lesson.dequantize(ours, scale, zero_point), theirs.dequantize())


@SETTINGS
@given(st.data())
def test_per_channel_is_pytorchs_bit_for_bit(data):
    low, high, dtype = data.draw(grids)
    # Channels of one tensor, each with its own scale, applied along an axis in the middle too.
    channels = data.draw(st.integers(1, 5))
    channel = st.tuples(st.floats(2.0**-8, 2.0**8, width=32), st.integers(low, high))
    scale, zero_point = zip(
        *data.draw(st.lists(channel, min_size=channels, max_size=channels)), strict=True
    )
    inner = torch.from_numpy(data.draw(arrays(np.float32, (2, 3), elements=steps))).repeat(1, 7)
    axis = data.draw(st.integers(0, 2))
    x = inner.unsqueeze(axis).repeat_interleave(channels, axis)
    assume(float(x.abs().max()) / min(scale) < 2**30)

    shape = [1, 1, 1]
    shape[axis] = channels
    scale, zero_point = torch.tensor(scale), torch.tensor(zero_point)
    theirs = torch.quantize_per_channel(x, scale, zero_point, axis, dtype)
    ours = lesson.quantize(x, scale.reshape(shape), zero_point.reshape(shape), low, high)
    assert same(ours, theirs.int_repr())
    back = lesson.dequantize(ours, scale.reshape(shape), zero_point.reshape(shape))
    assert same(back, theirs.dequantize())


@SETTINGS
@given(cases())
def test_rounding_error_is_at_most_half_a_step_inside_the_range(case):
    x, scale, zero_point, low, high, _ = case
    inside = (x >= (low - zero_point) * scale) & (x <= (high - zero_point) * scale)
    back = lesson.dequantize(lesson.quantize(x, scale, zero_point, low, high), scale, zero_point)
    error = (back.double() - x.double()).abs()[inside]
    # x times the reciprocal and the product on the way back round to float32: three roundings.
    tolerance = 4 * torch.finfo(torch.float32).eps * x.double().abs()[inside]
    assert bool((error <= scale / 2 + tolerance).all())


@SETTINGS
@given(cases())
def test_values_outside_the_range_land_on_its_ends(case):
    x, scale, zero_point, low, high, _ = case
    q = lesson.quantize(x, scale, zero_point, low, high)
    assert bool((q[x > (high - zero_point + 1) * scale] == high).all())
    assert bool((q[x < (low - zero_point - 1) * scale] == low).all())


@SETTINGS
@given(parameters())
def test_zero_is_exact(case):
    scale, zero_point, low, high, _ = case
    q = lesson.quantize(torch.zeros(3), scale, zero_point, low, high)
    assert q.tolist() == [zero_point] * 3
    assert lesson.dequantize(q, scale, zero_point).tolist() == [0.0] * 3


@SETTINGS
@given(cases())
def test_order_is_kept(case):
    x, scale, zero_point, low, high, _ = case
    q = lesson.quantize(x.flatten().sort().values, scale, zero_point, low, high)
    assert bool((q.diff() >= 0).all())


@SETTINGS
@given(cases())
def test_quantizing_again_changes_nothing(case):
    x, scale, zero_point, low, high, _ = case
    q = lesson.quantize(x, scale, zero_point, low, high)
    back = lesson.dequantize(q, scale, zero_point)
    assert same(lesson.quantize(back, scale, zero_point, low, high), q)


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize("grid", [INT8, UINT8], ids=["int8", "uint8"])
@SETTINGS
@given(x=arrays(np.float32, array_shapes(max_dims=2, max_side=6), elements=finite))
def test_minimum_and_maximum_give_the_observers_parameters(grid, x):
    x, (low, high, dtype) = torch.from_numpy(x), grid
    observer = torch.ao.quantization.MinMaxObserver(dtype=dtype)
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    ours = lesson.affine_parameters(x.min(), x.max(), low, high)
    assert (ours[0].item(), ours[1].item()) == (scale.item(), zero_point.item())


@SETTINGS
@given(x=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite))
def test_symmetric_parameters_are_the_observers(x):
    x = torch.from_numpy(x)
    observer = torch.ao.quantization.default_per_channel_weight_observer()
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    ours = lesson.symmetric_parameters(x.amin(1), x.amax(1), -128, 127)
    assert same(ours[0], scale) and same(ours[1], zero_point)


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e-30])
def test_a_constant_or_tiny_tensor_gets_a_usable_scale(value):
    x = torch.full((4,), value)
    scale, zero_point = lesson.affine_parameters(x.min(), x.max(), 0, 255)
    assert scale.item() == torch.finfo(torch.float32).eps
    assert same(lesson.quantize(x, scale, zero_point, 0, 255), zero_point.expand(4))


sides = st.integers(1, 9)


@st.composite
def matrices(draw, low: int, high: int):
    """Two integer matrices that can be multiplied, and their zero points."""
    m, k, n = draw(sides), draw(sides), draw(sides)
    numbers = st.integers(low, high)
    a = draw(arrays(np.int64, (m, k), elements=numbers))
    b = draw(arrays(np.int64, (k, n), elements=numbers))
    return torch.from_numpy(a), draw(numbers), torch.from_numpy(b), draw(numbers)


@SETTINGS
@given(matrices(-128, 255))
def test_four_terms_are_the_exact_product(case):
    a, zero_a, b, zero_b = case
    ours = lesson.integer_matmul(a, zero_a, b, zero_b)
    assert ours.dtype == torch.int32
    assert same(ours, (a - zero_a) @ (b - zero_b))


@SETTINGS
@given(matrices(-128, 127))
def test_integer_product_is_pytorchs_int32_result(case):
    a, _, b, _ = case
    theirs = torch._int_mm(a.to(torch.int8), b.to(torch.int8))
    assert theirs.dtype == torch.int32
    assert same(lesson.integer_matmul(a, 0, b, 0), theirs)


@SETTINGS
@given(
    accumulator=st.integers(-(2**31), 2**31 - 1),
    multiplier=st.floats(2.0**-24, 1.0, width=32, exclude_max=True),
    zero_point=st.integers(0, 255),
)
def test_requantization_is_within_half_a_step_of_the_exact_product(
    accumulator, multiplier, zero_point
):
    q = lesson.requantize(
        torch.tensor([accumulator], dtype=torch.int32), multiplier, zero_point, -(2**31), 2**31 - 1
    )
    error = abs(int(q) - zero_point - Fraction(accumulator) * Fraction(multiplier))
    assert error <= Fraction(1, 2)


@SETTINGS
@given(multiplier=st.floats(2.0**-24, 1.0, width=32))
def test_fixed_point_is_exact_for_a_float32(multiplier):
    m, shift = lesson.fixed_point(multiplier)
    assert 2**30 <= int(m) <= 2**31
    assert Fraction(int(m), 2 ** int(shift)) == Fraction(multiplier)
