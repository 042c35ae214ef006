"""Closed-form compensation: normal equations, never worse on its own data, and the sign that the paper prints."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.errors import QuantizationError
from quantizer.compensate import compensate
from quantizer.quantizers import affine, simulate
from tests.thinning import examples

SEEDS = st.integers(0, 2**31)
SIZES = st.integers(1, 9)


def problem(seed: int, out: int, inputs: int, columns: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight [out, in], correlated inputs [in, columns], and what 4 bits leave of them; binary64."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.eye(inputs) + 0.3 * torch.randn(inputs, inputs, generator=g)
    x = mix @ torch.randn(inputs, columns, generator=g) ** 3
    grid = affine(4)
    hat = simulate(x, *grid.parameters(*torch.aminmax(x)), grid)
    return torch.randn(out, inputs, generator=g).double(), x.double(), hat.double()


def error(weight: torch.Tensor, new: torch.Tensor, x: torch.Tensor, hat: torch.Tensor) -> float:
    """|W x - W' x_hat|^2 as a share of |W x|^2."""
    return ((weight @ x - new @ hat).square().sum() / (weight @ x).square().sum()).item()


@settings(max_examples=examples(50))
@given(SEEDS, SIZES, SIZES, st.sampled_from([1e-4, 0.01, 1.0]))
def test_the_normal_equations_hold(seed: int, out: int, inputs: int, damping: float) -> None:
    weight, x, hat = problem(seed, out, inputs)
    gram = hat @ hat.T
    new = compensate(weight, x @ hat.T, gram, damping=damping)
    residual = (weight @ x - new @ hat) @ hat.T - damping * gram.diagonal().mean() * (new - weight)
    size = (weight.abs() @ x.abs() @ hat.abs().T).max()
    assert (residual.abs() <= 1e-9 * size + 1e-30).all()


@settings(max_examples=examples(50))
@given(SEEDS, SIZES, SIZES, st.sampled_from([1e-9, 0.01, 1.0, 100.0]))
def test_the_error_is_never_above_that_of_no_update(seed: int, out: int, inputs: int, damping: float) -> None:
    weight, x, hat = problem(seed, out, inputs)
    new = compensate(weight, x @ hat.T, hat @ hat.T, damping=damping)
    assert error(weight, new, x, hat) <= error(weight, weight, x, hat) * (1 + 1e-9)


def test_the_printed_sign_adds_to_the_error() -> None:
    """Equations 9 and 10 have a minus. What the plus takes off the squared error, the minus adds three times over."""
    weight, x, hat = problem(4, 32, 16, 4096)
    new = compensate(weight, x @ hat.T, hat @ hat.T, damping=0.0)
    plain, plus, minus = (error(weight, w, x, hat) for w in (weight, new, 2 * weight - new))
    assert plus < 0.7 * plain
    assert minus - plain == pytest.approx(3 * (plain - plus), rel=1e-9)


def test_groups_are_solved_apart() -> None:
    parts = [problem(seed, 3, 5) for seed in range(4)]
    sums = [(w, x @ hat.T, hat @ hat.T) for w, x, hat in parts]
    together = compensate(*(torch.stack(each) for each in zip(*sums, strict=True)))
    for one, each in zip(together, sums, strict=True):
        torch.testing.assert_close(one, compensate(*each), rtol=1e-12, atol=1e-12)


def test_weights_of_dead_inputs_stay() -> None:
    weight, x, hat = problem(1, 4, 6)
    x[2], hat[2] = 0, 0
    new = compensate(weight, x @ hat.T, hat @ hat.T, damping=0.0)
    assert torch.equal(new[:, 2], weight[:, 2])
    assert not torch.equal(new[:, 0], weight[:, 0])
    none = torch.zeros(6, 6)
    assert torch.equal(compensate(weight.float(), none, none), weight.float())


def test_what_cannot_be_solved_is_refused() -> None:
    weight, row = torch.ones(2, 2), torch.ones(2, 2)
    with pytest.raises(QuantizationError, match="over the layer's 2 inputs are singular: give a damping above 0"):
        compensate(weight, row, row, damping=0.0)
    with pytest.raises(QuantizationError, match=r"damping = -0\.1: must be 0 or more, as a share of the mean"):
        compensate(weight, row, row, damping=-0.1)
    with pytest.raises(QuantizationError, match="sums over the layer's inputs are not finite: look for overflow"):
        compensate(weight, row, row * torch.inf)
