"""Properties of the uniform quantizers: zero exact, half a step at most, idempotence, stochastic rounding unbiased."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isa import numerics
from isa.errors import QuantizationError, UnsupportedError
from quantizer import quantize as quantized
from quantizer import reference
from quantizer.quantizers import (
    EPS,
    Grid,
    affine,
    dequantize,
    quantize,
    simulate,
    stochastic,
    symmetric,
)
from tests.thinning import examples

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20)
GRIDS = st.builds(
    lambda bits, kind: {"affine": affine(bits), "full": symmetric(bits), "narrow": symmetric(bits, narrow=True)}[kind],
    st.sampled_from([4, 8, 16]),
    st.sampled_from(["affine", "full", "narrow"]),
)


def parameters(x: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    return grid.parameters(*torch.aminmax(x))


@given(VALUES, GRIDS)
def test_zero_is_exact(values: list[float], grid: Grid) -> None:
    scale, zero = parameters(torch.tensor(values), grid)
    assert simulate(torch.zeros(1), scale, zero, grid).item() == 0
    assert grid.least <= zero <= grid.most
    assert not grid.symmetric or zero == 0


@given(VALUES, GRIDS)
def test_the_error_is_at_most_half_a_step_in_range(values: list[float], grid: Grid) -> None:
    x = torch.tensor(values)
    scale, zero = parameters(x, grid)
    error = (simulate(x, scale, zero, grid).double() - x.double()).abs()
    ends = [(code - zero) * scale for code in (grid.least, grid.most)]
    inside = (x >= ends[0]) & (x <= ends[1])
    # x * fp32(1/s) of 16-bit codes has an error of 2^15 * 2^-23 steps in itself
    assert (error[inside] <= scale * 0.505).all()
    # Only a rounded zero point, or the missing lowest code, leaves a value outside: by half a step.
    assert (error <= scale * 1.01).all()


@given(VALUES, GRIDS)
def test_quantization_is_idempotent(values: list[float], grid: Grid) -> None:
    x = torch.tensor(values)
    scale, zero = parameters(x, grid)
    codes = quantize(x, scale, zero, grid)
    assert torch.equal(quantize(dequantize(codes, scale, zero), scale, zero, grid), codes)


@given(VALUES, st.sampled_from([4, 8, 16]))
def test_codes_are_the_machines(values: list[float], bits: int) -> None:
    x, grid = torch.tensor(values), affine(bits)
    scale, zero = parameters(x, grid)
    dtype = "int8" if bits <= 8 else "int16"
    want = numerics.quantize(x, numerics.inverse_scale(scale.item()), int(zero), grid.least, grid.most, dtype)
    assert torch.equal(quantize(x, scale, zero, grid), want)
    assert torch.equal(dequantize(want, scale, zero), numerics.dequantize(want, scale.item(), int(zero)))


@given(VALUES, st.sampled_from([4, 8, 16]))
def test_narrow_codes_come_in_pairs(values: list[float], bits: int) -> None:
    x, grid = torch.tensor(values), symmetric(bits, narrow=True)
    scale, zero = parameters(x, grid)
    assert torch.equal(quantize(-x, scale, zero, grid), -quantize(x, scale, zero, grid))


@settings(max_examples=examples(20))
@given(st.floats(-3, 3, width=32), GRIDS)
def test_stochastic_rounding_is_unbiased(value: float, grid: Grid) -> None:
    """The mean of n draws is what saturation leaves, within five deviations; one is at most s / (2 sqrt n)."""
    n = 10_000
    scale, zero = grid.parameters(torch.tensor(-1.0), torch.tensor(1.0))
    low, high = ((code - zero) * scale for code in (grid.least, grid.most))
    wanted = torch.tensor(value).clamp(low, high)
    draws = stochastic(torch.full((n,), value), scale, zero, grid, torch.Generator().manual_seed(0))
    found = dequantize(draws, scale, zero)
    assert (found.double().mean() - wanted).abs() <= 5 * scale / (2 * n**0.5)
    assert ((found - wanted).abs() <= 1.01 * scale).all()


def test_a_graph_that_draws_numbers_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """x, rounded stochastically."""
            scale, zero = torch.tensor(0.1), torch.tensor(0)
            return dequantize(stochastic(x, scale, zero, affine(8)), scale, zero)

    x = torch.zeros(2, 3)
    with pytest.raises((UnsupportedError, QuantizationError), match="rand"):
        reference(quantized(Noisy().eval(), (x,), [x]))


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-30, 2e-10])
def test_the_smallest_scale_is_normal(value: float) -> None:
    scale, _ = parameters(torch.full((3,), value), affine(8))
    assert scale == EPS


def test_a_range_off_zero_is_stretched_to_hold_it() -> None:
    scale, zero = affine(8).parameters(torch.tensor([2.1]), torch.tensor([3.5]))
    assert (scale.item(), zero.item()) == (pytest.approx(3.5 / 255), -128)


def test_channels_have_their_own_parameters() -> None:
    low, high = torch.tensor([-0.9, 0.0, -2.0]), torch.tensor([1.0, 3.0, 0.0])
    scale, zero = affine(4).parameters(low, high)
    assert torch.equal(scale, (high - low) / 15)
    assert zero.tolist() == [-1, -8, 7]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-3e38, 3e38, "[-3e+38, 3e+38]"), (float("nan"), float("nan"), "[nan, nan]"), (0.0, float("inf"), "[0, inf]")],
)
@pytest.mark.parametrize("grid", [affine(8), symmetric(8)], ids=["affine", "symmetric"])
def test_a_range_without_a_finite_scale_is_an_error(low: float, high: float, said: str, grid: Grid) -> None:
    with pytest.raises(QuantizationError, match=re.escape(f"the range {said} has no finite scale")):
        grid.parameters(torch.tensor([0.0, low]), torch.tensor([1.0, high]))
