"""The error of a layer as a quadratic form: against Kronecker products, autograd, and the error itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizer.quantizers import symmetric
from quantizer.reconstruct.layerwise import round_layer
from quantizer.reconstruct.moments import Moments
from quantizer.reconstruct.options import Round
from quantizer.reconstruct.quadratic import Quadratic
from quantizer.reconstruct.rounding import Codes


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square(seed: int, groups: int, size: int) -> torch.Tensor:
    half = draw(seed, groups, size, size + 2)
    return half @ half.mT


@given(seed=st.integers(0, 1000), out=st.integers(1, 4), width=st.integers(1, 5))
def test_the_form_is_that_of_the_kronecker_product(seed: int, out: int, width: int) -> None:
    g, h, change = square(seed, 1, out), square(seed + 1, 1, width), draw(seed + 2, 1, out, width)
    explicit = torch.kron(g[0], h[0])  # rows of the weight one behind the other
    vector = change.reshape(-1)
    found = Quadratic(g, h, torch.zeros_like(change)).of(change)
    assert found == pytest.approx(float(vector @ explicit @ vector), rel=1e-9)


@pytest.mark.parametrize("weighs", ["none", "diagonal", "full"])
def test_the_gradient_is_that_of_autograd(weighs: str) -> None:
    g = {"none": None, "diagonal": draw(0, 2, 3, 1).square(), "full": square(0, 2, 3)}[weighs]
    form = Quadratic(g, square(1, 2, 4), draw(2, 2, 3, 4))
    change = draw(3, 2, 3, 4).requires_grad_()
    inner = change @ form.inputs + 2 * form.residual
    weighed = {"none": lambda: inner, "diagonal": lambda: g * inner, "full": lambda: g @ inner}[weighs]()
    value = (weighed * change).sum()
    (expected,) = torch.autograd.grad(value, change)
    assert value.item() == pytest.approx(form.value(change.detach()))
    torch.testing.assert_close(form.gradient(change.detach()), expected)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_moments_of_mixed_inputs_are_what_drawing_them_gives_on_average(share: float) -> None:
    x, quantized = draw(4, 1, 3, 50), draw(5, 1, 3, 50)
    moments = Moments(*torch.zeros(3, 1, 3, 3, dtype=torch.float64))
    moments.add(x, quantized)
    cross, gram = moments.mixed(share)
    sums = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    for pattern in range(8):  # of one position's three inputs
        taken = torch.tensor([pattern >> i & 1 for i in range(3)]).bool().reshape(1, 3, 1)
        weight = share ** int(taken.sum()) * (1 - share) ** int((~taken).sum())
        m = torch.where(taken, quantized, x)
        sums[0] += weight * (x @ m.mT)
        sums[1] += weight * (m @ m.mT)
    torch.testing.assert_close(cross, sums[0] / 50)
    torch.testing.assert_close(gram, sums[1] / 50)


METHODS = [
    Round(iterations=100, rate=0.02),
    Round(iterations=100, rate=0.02, target="weight", drop=1.0),
    Round(iterations=100, rate=0.02, metric="kfac"),
    Round(iterations=1),
    Round(method="gptq"),
]


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_never_above_nearest_rounding_s(how: Round, seed: int) -> None:
    weight, x = draw(seed, 1, 6, 8).float(), draw(seed + 10, 1, 8, 40).float()
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    quantized = (4 * x).round() / 4
    moments = Moments.empty(1, 8, x.device)
    moments.add(x, quantized)
    grid = symmetric(4, narrow=True)
    scale, zero = (each.reshape(1, 6, 1) for each in grid.parameters(weight[0].amin(1), weight[0].amax(1)))
    outputs = square(seed, 1, 6).float() if how.metric == "kfac" else None
    found = round_layer(weight, weight, moments, outputs, Codes(scale, zero, grid), how)
    assert found.found <= found.nearest


@pytest.mark.slow
def test_learning_halves_the_error_of_correlated_inputs() -> None:
    weight, x = draw(3, 1, 24, 6).float(), draw(4, 1, 6, 12).float()
    x[:, 1:4] += 2 * x[:, :1]
    moments = Moments.empty(1, 6, x.device)
    moments.add(x, x)
    grid = symmetric(4, narrow=True)
    scale, zero = (each.reshape(1, 24, 1) for each in grid.parameters(weight[0].amin(1), weight[0].amax(1)))
    how = Round(iterations=500, rate=0.01, damping=0.0)
    found = round_layer(weight, weight, moments, None, Codes(scale, zero, grid), how)
    assert found.found < 0.55 * found.nearest
