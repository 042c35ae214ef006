"""Codebooks of LogNP and of powers of two: the equations, zero, what 8-bit tables leave, and where they win."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizer.curves import Codebook, LogNP, PowersOfTwo
from quantizer.quantizers import affine, simulate, symmetric
from tests.thinning import examples

FACTOR = st.floats(1e-3, 1e3)
VALUES = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20)
GRID = affine(4)


def decibels(x: torch.Tensor, y: torch.Tensor) -> float:
    return (10 * torch.log10(x.square().sum() / (x - y).square().sum())).item()


@settings(max_examples=examples(100))
@given(VALUES, FACTOR)
def test_lognp_is_the_papers_equations(values: list[float], a: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    bent = LogNP().bend(x / a)
    assert torch.allclose(bent, x.sign() * (torch.log2(x.abs() + a) - math.log2(a)), rtol=1e-9, atol=1e-9)
    again = x.sign() * (torch.exp2(bent.abs() + math.log2(a)) - a)
    assert torch.allclose(LogNP().unbend(bent) * a, again, rtol=1e-9, atol=1e-9 * a)


@settings(max_examples=examples(100))
@given(VALUES, FACTOR)
def test_lognp_inverts(values: list[float], a: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    assert ((LogNP().unbend(LogNP().bend(x / a)) * a - x).abs() <= 1e-12 * x.abs() + 1e-300).all()


RANGES = st.tuples(st.floats(-30, 0), st.floats(0, 30)).filter(lambda ends: ends[1] - ends[0] > 1e-3)


def table(low: float, high: float, grid_symmetric: bool = False) -> Codebook:
    grid = symmetric(4) if grid_symmetric else GRID
    scale, zero = grid.parameters(torch.tensor(low), torch.tensor(high))
    return LogNP().codebook(scale.item(), int(zero), grid)


@settings(max_examples=examples(100))
@given(RANGES, st.booleans())
def test_a_table_rises_and_holds_zero(ends: tuple[float, float], even: bool) -> None:
    book = table(*ends, even)
    assert (len(book.thresholds), len(book.entries)) == (15, 16)
    assert all(a < b for a, b in zip(book.thresholds, book.thresholds[1:], strict=False))
    assert list(book.entries) == sorted(book.entries)
    assert book.entries[0] >= -128
    assert book.entries[-1] <= 127
    assert book.zero in book.entries
    assert torch.equal(book.simulate(torch.zeros(3)), torch.zeros(3))


@settings(max_examples=examples(50))
@given(RANGES)
def test_the_error_is_half_a_step_of_the_curve_and_half_a_step_of_the_table(ends: tuple[float, float]) -> None:
    book, curve = table(*ends), LogNP()
    scale, zero = GRID.parameters(*map(torch.tensor, ends))
    edges = (torch.tensor([GRID.least, GRID.most]) - zero) * scale
    bent = torch.linspace(edges[0].item(), edges[1].item(), 500, dtype=torch.float64)
    x = curve.unbend(bent)
    near = curve.unbend(((bent / scale).round() * scale).double())
    assert ((near - x).abs() <= (curve.unbend(bent.abs() + scale / 2) - x.abs()) * (1 + 1e-5)).all()
    assert ((book.simulate(x.float()) - near).abs() <= book.scale * 0.51 + 1e-6 * x.abs() + _ties(bent, scale)).all()


@settings(max_examples=examples(100))
@given(RANGES, st.sampled_from([LogNP(), PowersOfTwo(1), PowersOfTwo(2)]))
def test_what_codes_leave_is_left_alone(ends: tuple[float, float], curve: LogNP | PowersOfTwo) -> None:
    """But for one step of the table, where an entry's rounding to 8 bits takes it over the limit between two codes: not
    before the largest magnitudes are 60 times LogNP's factor.
    """
    scale, zero = GRID.parameters(*map(torch.tensor, ends))
    book = curve.codebook(scale.item(), int(zero), GRID)
    reach = max(abs(step - int(zero)) for step in (GRID.least, GRID.most)) * scale.item()
    once = book.simulate(torch.linspace(-1.1, 1.1, 501) * float(LogNP().unbend(torch.tensor(reach))))
    twice = book.simulate(once)
    assert ((twice - once).abs() <= book.scale * (1 + 1e-6)).all()
    assert torch.equal(twice, once) or (isinstance(curve, LogNP) and reach > 6)


def _ties(bent: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A whole step where a value is so near a limit between codes that binary32 may fall on either side."""
    place = bent / scale.double()
    tie = (place - place.floor() - 0.5).abs() < 1e-4
    return tie * (LogNP().unbend(bent.abs() + scale) - LogNP().unbend((bent.abs() - scale).clamp(min=0)))


def test_a_tensor_of_zeros_has_a_table() -> None:
    book = table(0.0, 0.0)
    assert all(a < b for a, b in zip(book.thresholds, book.thresholds[1:], strict=False))
    assert torch.equal(book.simulate(torch.zeros(1)), torch.zeros(1))


def samples(name: str, channels: int = 8, count: int = 20_000) -> torch.Tensor:
    """[channels, count] of a distribution, each channel at another size."""
    g = torch.Generator().manual_seed(7)
    x = torch.randn(channels, count, generator=g)
    match name:
        case "laplace":
            u = torch.rand(channels, count, generator=g) - 0.5
            x = -u.sign() * torch.log1p(-2 * u.abs())
        case "student-t3":
            chi = torch.randn(3, channels, count, generator=g).square().sum(0)
            x = x / (chi / 3).sqrt()
        case "0.1% x30" | "1% x30":
            share = 0.001 if "0.1" in name else 0.01
            x = torch.where(torch.rand(channels, count, generator=g) < share, 30 * x, x)
        case _:
            pass
    return x * torch.exp2(torch.arange(channels) - 4.0)[:, None]


def uniform(x: torch.Tensor) -> torch.Tensor:
    """What 4-bit codes per channel leave."""
    scale, zero = GRID.parameters(*torch.aminmax(x, dim=1))
    return simulate(x, scale[:, None], zero[:, None], GRID)


def polished(x: torch.Tensor) -> torch.Tensor:
    """What the codes of one table leave."""
    factor = torch.quantile(x.abs(), 0.95, dim=1, keepdim=True)
    scale, zero = GRID.parameters(*torch.aminmax(LogNP().bend(x / factor)))
    return LogNP().codebook(scale.item(), int(zero), GRID).simulate(x / factor) * factor


@pytest.mark.parametrize(
    ("name", "plain", "own"),
    [
        ("gaussian", 16.3, 18.4),
        ("laplace", 11.8, 15.9),
        ("student-t3", 4.4, 12.3),
        ("0.1% x30", 2.3, 10.8),
        ("1% x30", 9.6, 14.1),
    ],
)
def test_codes_of_each_channels_own_have_the_known_ratios(name: str, plain: float, own: float) -> None:
    """The paper's form, which no array multiplies: what one table for all costs against it is below 3 dB."""
    x = samples(name)
    factor = torch.quantile(x.abs(), 0.95, dim=1, keepdim=True)
    bent = LogNP().bend(x / factor)
    scale, zero = GRID.parameters(*torch.aminmax(bent, dim=1))
    y = LogNP().unbend(simulate(bent, scale[:, None], zero[:, None], GRID)) * factor
    found = [mean_decibels(x, each) for each in (uniform(x), y, polished(x))]
    assert found[:2] == pytest.approx([plain, own], abs=0.6)
    assert found[1] - 3 < found[2] < found[1]


def mean_decibels(x: torch.Tensor, y: torch.Tensor) -> float:
    return sum(decibels(a, b) for a, b in zip(x, y, strict=True)) / len(x)


@pytest.mark.parametrize(
    ("name", "gain"), [("gaussian", 1), ("laplace", 3), ("student-t3", 6), ("0.1% x30", 6), ("1% x30", 2)]
)
def test_lognp_wins_the_more_the_heavier_the_tails(name: str, gain: float) -> None:
    """With one table for all channels, against uniform codes of each channel's own."""
    x = samples(name)
    assert mean_decibels(x, polished(x)) > mean_decibels(x, uniform(x)) + gain


def test_powers_of_two_are_the_papers_equations() -> None:
    """q = clip(round(-log2(x/s)), 0, 15), x' = s 2^-q, as far as an 8-bit table holds it: 255 steps of s."""
    top = 0.8
    scale, zero = GRID.parameters(torch.tensor(0.0), torch.tensor(top))
    for steps in (1, 2):
        book = PowersOfTwo(steps).codebook(scale.item(), int(zero), GRID)
        x = torch.rand(2000, generator=torch.Generator().manual_seed(1)) ** 4 * 1.2
        q = (-steps * torch.log2(x / top)).round().clamp(0, 15)
        expected = (255 * torch.exp2(-q / steps)).round() * (top / 255)
        off = (book.simulate(x) - expected).abs() > 1e-6
        assert off.float().mean() < 0.002  # ties between two codes
    assert len(set(PowersOfTwo(1).codebook(scale.item(), int(zero), GRID).entries)) == 10
    assert len(set(PowersOfTwo(2).codebook(scale.item(), int(zero), GRID).entries)) == 16


def test_powers_of_two_win_on_small_probabilities() -> None:
    x = torch.softmax(3 * torch.randn(64, 65, generator=torch.Generator().manual_seed(2)), 1)
    scale, zero = GRID.parameters(torch.tensor(0.0), x.max())
    plain = simulate(x, scale, zero, GRID)
    ratio = {n: decibels(x, PowersOfTwo(n).codebook(scale.item(), int(zero), GRID).simulate(x)) for n in (1, 2)}
    assert ratio[2] > max(ratio[1], decibels(x, plain))
