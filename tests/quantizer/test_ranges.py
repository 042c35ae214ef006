"""Range estimators: what each promises, off the values and off histograms, and what becomes of degenerate tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.errors import DescriptionError
from quantizer.quantizers import Grid, affine, inverse, simulate, symmetric
from quantizer.ranges import (
    ESTIMATORS,
    Average,
    Entropy,
    Estimator,
    MeanError,
    MinMax,
    Percentile,
    divergence,
    spread_error,
)
from quantizer.statistics import Histogram
from tests.thinning import examples

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30)
GRIDS = st.builds(
    lambda bits, full: affine(bits) if full else symmetric(bits, narrow=True), st.sampled_from([4, 8]), st.booleans()
)
ALL = [MinMax(), Average(), Percentile(), MeanError(steps=20), MeanError(power=2.4, steps=20), Entropy(steps=20)]


def observed(estimator: Estimator, grid: Grid, *batches: torch.Tensor) -> tuple[float, float]:
    seen = estimator.start()
    for batch in batches:
        seen.add(batch)
        seen.close()
    low, high = estimator.of_statistic(seen, grid)
    return low.item(), high.item()


def exact(estimator: Estimator, grid: Grid, x: torch.Tensor) -> tuple[float, float]:
    low, high = estimator.of_rows(x[None], grid)
    return low.item(), high.item()


def error(x: torch.Tensor, ends: tuple[float, float], grid: Grid, power: float = 2.0) -> float:
    """Mean of |x - x'|^power."""
    scale, zero = grid.parameters(*map(torch.tensor, ends))
    return (simulate(x, scale, zero, grid) - x).abs().double().pow(power).mean().item()


def tailed(n: int = 20_000, seed: int = 0) -> torch.Tensor:
    """Normal values, of which one in a thousand is 30 times as large."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator)
    return torch.where(torch.rand(n, generator=generator) < 1e-3, 30 * x, x)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.by)
@settings(max_examples=examples(20))
@given(values=VALUES, grid=GRIDS)
def test_ranges_lie_within_the_values_or_reach_zero(estimator: Estimator, values: list[float], grid: Grid) -> None:
    x = torch.tensor(values)
    least, most = min(0.0, x.min().item()), max(0.0, x.max().item())
    largest = max(-least, most)
    for low, high in (observed(estimator, grid, x), exact(estimator, grid, x)):
        assert low <= high
        assert (-largest, -largest)[grid.symmetric] <= low
        assert high <= largest
        assert grid.symmetric or (least <= low and high <= most)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.by)
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-30, 5.0, -5.0, 1e30])
@pytest.mark.parametrize("grid", [affine(8), symmetric(4, narrow=True)], ids=["affine", "symmetric"])
def test_constant_tensors_keep_their_value(estimator: Estimator, value: float, grid: Grid) -> None:
    x = torch.full((50,), value)
    for ends in (observed(estimator, grid, x), exact(estimator, grid, x)):
        scale, zero = grid.parameters(*map(torch.tensor, ends))
        assert 2.0**-24 <= scale < math.inf
        assert (simulate(x, scale, zero, grid) - x).abs().max() <= 0.5001 * scale + 1e-3 * abs(value)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.by)
def test_estimates_do_not_depend_on_how_a_batch_is_cut(estimator: Estimator) -> None:
    x, grid = tailed(3000), affine(8)
    seen = estimator.start()
    for piece in x.split(700):
        seen.add(piece)
    seen.close()
    low, high = estimator.of_statistic(seen, grid)
    assert (low.item(), high.item()) == observed(estimator, grid, x)


@given(VALUES)
def test_minima_and_maxima_are_of_all_batches(values: list[float]) -> None:
    x = torch.tensor(values)
    assert observed(MinMax(), affine(8), x[:1], x, x[-1:]) == (x.min().item(), x.max().item())


@given(VALUES, st.floats(0, 8))
def test_headroom_moves_each_end_away_from_0_by_its_share(values: list[float], headroom: float) -> None:
    x, estimator = torch.tensor(values), MinMax(headroom)
    low, high = observed(estimator, affine(16), x)
    assert (low, high) == exact(estimator, affine(16), x)
    most = torch.finfo(torch.float32).max
    assert low == max(-most, (x.min() * (1 + headroom)).item())
    assert high == min(most, (x.max() * (1 + headroom)).item())


@given(VALUES, st.floats(51, 100))
def test_a_percentile_leaves_no_more_than_its_share_outside(values: list[float], percent: float) -> None:
    x, estimator = torch.tensor(values), Percentile(percent=percent, bins=256)
    most = (1 - percent / 100) * len(x) + 1e-6
    for low, high in (observed(estimator, affine(8), x), exact(estimator, affine(8), x)):
        assert (x > high).sum() <= most
        assert (x < low).sum() <= most
    for low, high in (observed(estimator, symmetric(8), x), exact(estimator, symmetric(8), x)):
        assert low == -high
        assert (x.abs() > high).sum() <= most


@given(VALUES, st.floats(51, 100))
def test_a_percentile_off_a_histogram_errs_by_a_bin_outwards(values: list[float], percent: float) -> None:
    x, estimator = torch.tensor(values), Percentile(percent=percent, bins=256)
    low, high = exact(estimator, affine(8), x)
    found_low, found_high = observed(estimator, affine(8), x)
    bin_width = 2 / 256 * x.abs().max().item() + 1e-9
    assert high <= found_high <= high + bin_width
    assert low - bin_width <= found_low <= low


@pytest.mark.parametrize("grid", [affine(4), affine(8), symmetric(4, narrow=True), symmetric(8)], ids=str)
@pytest.mark.parametrize("power", [1.0, 2.0, 2.4])
def test_the_search_is_better_than_the_extremes_where_there_are_outliers(grid: Grid, power: float) -> None:
    x, estimator = tailed(), MeanError(power=power, steps=50)
    whole = error(x, exact(MinMax(), grid, x), grid, power)
    assert error(x, exact(estimator, grid, x), grid, power) < whole
    assert error(x, observed(estimator, grid, x), grid, power) < whole


@settings(max_examples=examples(20))
@given(VALUES, GRIDS)
def test_the_search_is_never_worse_than_the_extremes(values: list[float], grid: Grid) -> None:
    x = torch.tensor(values)
    whole = error(x, exact(MinMax(), grid, x), grid)
    assert error(x, exact(MeanError(steps=20), grid, x), grid) <= whole * (1 + 1e-6)


@pytest.mark.parametrize("grid", [affine(4), symmetric(4, narrow=True)], ids=str)
def test_a_search_off_a_histogram_is_nearly_as_good(grid: Grid) -> None:
    x, estimator = tailed(), MeanError(steps=50)
    assert error(x, observed(estimator, grid, x), grid) <= 1.02 * error(x, exact(estimator, grid, x), grid)


def test_channels_are_searched_apart() -> None:
    rows, estimator, grid = torch.stack([tailed(500, s) for s in range(3)]), MeanError(steps=20), affine(4)
    low, high = estimator.of_rows(rows, grid)
    for row, *ends in zip(rows, low, high, strict=True):
        assert tuple(end.item() for end in ends) == exact(estimator, grid, row)


@given(VALUES, GRIDS, st.sampled_from([1.0, 2.0, 2.4]))
def test_the_spread_of_a_bin_is_integrated_exactly(values: list[float], grid: Grid, power: float) -> None:
    """Against the mean over 2000 places in every bin."""
    x = torch.tensor(values)
    seen = Histogram(256)
    seen.add(x)
    rows = seen.rows()
    scale, zero = grid.parameters(x.min() * 0.7, x.max() * 0.7)
    want = 0.0
    for lower, upper, count in zip(*rows, strict=True):
        places = (lower + (upper - lower) * (torch.arange(2000) + 0.5) / 2000).double()
        steps = (places / scale.double()).round().clamp(grid.least - zero, grid.most - zero)
        want += count.item() * (places - steps * scale.double()).abs().pow(power).mean().item()
    found = spread_error(rows, scale.double(), zero.double(), grid, power).item()
    assert found == pytest.approx(want, rel=2e-3, abs=1e-12)


def lost(counts: list[int], high: float, grid: Grid) -> float:
    """Divergence of bins of width 1 from 0 on, of what codes over [0, high] leave of them."""
    ends = torch.arange(len(counts) + 1).double()
    scale, zero = grid.parameters(torch.tensor(0.0), torch.tensor(high))
    return divergence((ends[:-1], ends[1:], torch.tensor(counts)), 0.0, high, inverse(scale), zero, grid)


def test_divergence_is_zero_where_every_bin_has_a_code() -> None:
    assert lost([3, 1, 4, 1, 5, 9, 2, 6], 8.0, affine(8)) == pytest.approx(0, abs=1e-12)


def test_divergence_of_two_bins_that_share_a_code() -> None:
    """P = (1/4, 3/4), Q = (1/2, 1/2)."""
    assert lost([1, 3], 20.0, Grid(0, 1, False)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_what_is_clipped_counts_in_the_outermost_bin() -> None:
    """P = (1/4, 3/4), Q = (1/2, 1/2)."""
    assert lost([1, 1, 2], 2.0, affine(8)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


@pytest.mark.parametrize("grid", [affine(8), affine(4), symmetric(8)], ids=str)
def test_entropy_clips_outliers_and_keeps_the_bulk(grid: Grid) -> None:
    x = tailed()
    low, high = observed(Entropy(), grid, x)
    assert high < 0.7 * x.max()
    assert ((x >= low) & (x <= high)).float().mean() > 0.99


@settings(max_examples=examples(20))
@given(VALUES, GRIDS)
def test_entropy_clips_at_most_a_twentieth(values: list[float], grid: Grid) -> None:
    x = torch.tensor(values)
    low, high = observed(Entropy(steps=20), grid, x)
    assert ((x < low) | (x > high)).sum() <= 0.05 * (x != 0).sum()


def test_entropy_keeps_a_few_values_that_have_a_code_each() -> None:
    """As pixels of 16 grey values, the largest the most frequent."""
    x = torch.cat([torch.arange(1, 17) / 16, torch.ones(30)])
    for grid in (affine(4), affine(8)):
        assert observed(Entropy(), grid, x) == (0, 1)


def test_entropy_keeps_what_has_fewer_bins_than_codes() -> None:
    x = tailed()
    assert observed(Entropy(), affine(16), x) == (x.min().item(), x.max().item())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Percentile(percent=20.0), "percent = 20.0: must be above 50 and at most 100"),
        (lambda: Percentile(bins=1000), "bins = 1000: must be a power of 2 in 256 .. 65536"),
        (lambda: MeanError(power=0.0), "power = 0.0: must be above 0 and at most 8"),
        (lambda: MeanError(steps=1), "steps = 1: must be in 2 .. 1000"),
        (lambda: Entropy(steps=5000), "steps = 5000: must be in 2 .. 1000"),
        (lambda: Average(constant=0.0), "constant = 0.0: must be above 0 and at most 1"),
    ],
)
def test_parameters_outside_of_their_range_are_errors(make: type, message: str) -> None:
    with pytest.raises(DescriptionError) as error:
        make()
    assert str(error.value) == message


def test_every_estimator_has_a_name() -> None:
    assert list(ESTIMATORS) == ["minmax", "average", "percentile", "mse", "entropy"]
