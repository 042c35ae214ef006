"""Learned rounding: its equation and gradient, the schedule, and decisions that are always 0 or 1."""

from __future__ import annotations

import pytest
import torch

from quantizer.quantizers import Grid, affine, symmetric
from quantizer.reconstruct.options import Round
from quantizer.reconstruct.rounding import Codes, SoftRounding, beta_at, learn, rectified, undecided

GRIDS = {"symmetric": symmetric(4, narrow=True), "affine": affine(4)}


def example(grid: Grid, seed: int = 0) -> tuple[torch.Tensor, Codes]:
    weight = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed))
    low, high = torch.aminmax(weight.reshape(10, 7), dim=1)
    scale, zero = (each.reshape(2, 5, 1) for each in grid.parameters(0.9 * low, 0.9 * high))
    return weight, Codes(scale, zero, grid)


@pytest.mark.parametrize("name", GRIDS)
def test_rounding_starts_at_the_weight_itself_where_no_code_saturates(name: str) -> None:
    weight, codes = example(GRIDS[name])
    soft = SoftRounding(weight, codes)
    low, high = ((end - codes.zero) * codes.scale for end in (codes.grid.least, codes.grid.most))
    expected = weight.clamp(low, high)
    assert (soft.weight(soft.up()) - expected).abs().max() < 2e-4 * codes.scale.max()  # 1e-4 keeps the logarithm finite


def test_the_gradient_of_soft_rounding_and_regulariser_is_right() -> None:
    weight, codes = example(GRIDS["affine"])
    exact = Codes(codes.scale.double(), codes.zero.double(), codes.grid)
    soft = SoftRounding(weight.double(), exact)
    soft.below = soft.below.double()
    v = torch.linspace(-2, 2, weight.numel(), dtype=torch.float64).reshape(weight.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: soft.weight(rectified(v)), v)
    assert torch.autograd.gradcheck(lambda v: undecided(rectified(v), 7.0), v)


def test_the_exponent_falls_linearly_after_the_warm_up() -> None:
    how = Round(iterations=100, warm_up=0.2)
    assert [beta_at(step, how) for step in (0, 19, 20, 60)] == [None, None, 20.0, 11.0]
    assert beta_at(100, how) == 2.0
    assert beta_at(0, Round(warm_up=0.0, iterations=1)) == 20.0


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_every_decision_is_the_code_below_or_the_one_above(name: str) -> None:
    weight, codes = example(GRIDS[name])
    soft = SoftRounding(weight, codes)
    wanted = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    learn([soft], Round(iterations=300, rate=0.05), lambda _, w: (w[0] - wanted).square().sum().mul(1e-5).backward())
    share = soft.up().detach()
    assert ((share == 0) | (share == 1)).all()
    steps = weight / codes.scale + codes.zero
    below, above = (each.clamp(codes.grid.least, codes.grid.most) for each in (steps.floor(), steps.floor() + 1))
    hard = soft.hard()
    assert hard.dtype == torch.int8
    assert torch.equal(hard, torch.where(share == 1, above, below).to(torch.int8))
    towards = (codes.values(above.to(torch.int8)) - wanted).abs() < (codes.values(below.to(torch.int8)) - wanted).abs()
    assert (towards == (share == 1))[above != below].float().mean() > 0.9
