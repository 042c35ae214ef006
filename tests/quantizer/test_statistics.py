"""What observers keep: averages of batches, and histograms that depend on the values alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isa.errors import QuantizationError
from quantizer.statistics import FINEST, Averages, Extremes, Histogram, rank

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30)
BATCHES = st.lists(VALUES, min_size=1, max_size=4)
BINS = 64


def histogram(*batches: torch.Tensor, bins: int = BINS) -> Histogram:
    found = Histogram(bins)
    for batch in batches:
        found.add(batch)
        found.close()
    return found


@given(BATCHES)
def test_a_histogram_counts_every_value_in_its_bin(batches: list[list[float]]) -> None:
    found = histogram(*map(torch.tensor, batches))
    x = torch.tensor([v for batch in batches for v in batch]).double()
    want = torch.zeros(2 * BINS, dtype=torch.int64)
    for place in torch.floor(x[x != 0] / found.width).long() + BINS:
        want[place] += 1
    assert torch.equal(found.counts, want)
    assert (found.zeros, found.total) == (int((x == 0).sum()), len(x))


@given(BATCHES)
def test_the_order_of_batches_makes_no_difference(batches: list[list[float]]) -> None:
    tensors = [torch.tensor(batch) for batch in batches]
    one, other, whole = histogram(*tensors), histogram(*tensors[::-1]), histogram(torch.cat(tensors))
    for found in (other, whole):
        assert torch.equal(found.counts, one.counts)
        assert (found.width, found.zeros) == (one.width, one.zeros)


@given(VALUES)
def test_bins_are_narrow(values: list[float]) -> None:
    largest = max(map(abs, values))
    assert histogram(torch.tensor(values)).width <= max(2 / BINS * largest, 2.0**FINEST)


@given(VALUES, st.floats(0.5, 1.0))
def test_quantiles_err_outwards_by_a_bin_at_most(values: list[float], share: float) -> None:
    x = torch.tensor(values).sort().values.double()
    found = histogram(torch.tensor(values))
    exact = x[rank(share, len(x)) - 1].item()
    assert exact <= found.at_least(share) <= exact + found.width
    exact = x[len(x) - rank(share, len(x))].item()
    assert exact - found.width <= found.at_most(share) <= exact


@given(VALUES)
def test_the_whole_share_ends_at_the_extremes(values: list[float]) -> None:
    found = histogram(torch.tensor(values))
    x = torch.tensor(values)
    assert (found.at_most(1.0), found.at_least(1.0)) == (x.min().item(), x.max().item())


@given(VALUES)
def test_a_folded_histogram_is_that_of_magnitudes(values: list[float]) -> None:
    """Of values that are no ends of bins."""
    x = torch.tensor([math.floor(v) + 0.3 for v in values])
    folded, want = histogram(x, bins=1 << 14).folded(), histogram(x.abs(), bins=1 << 14)
    assert torch.equal(folded.counts, want.counts)
    assert folded.extremes.high == want.extremes.high


def test_memory_is_that_of_the_bins() -> None:
    found = histogram(*(10.0**i * torch.randn(1000, generator=torch.Generator().manual_seed(i)) for i in range(8)))
    assert found.counts.shape == (2 * BINS,)
    assert found.total == 8000


def test_extremes_are_those_of_all_batches() -> None:
    found = Extremes()
    assert not found.seen
    for batch in ([1.0, 2.0], [-3.0], [0.5]):
        found.add(torch.tensor(batch))
    assert (found.seen, found.low.item(), found.high.item()) == (True, -3, 2)


@pytest.mark.parametrize(("debias", "high"), [(True, 3.0), (False, 1 + 0.01 * 2 + 0.01 * (5 - 1.02))])
def test_batches_weigh_the_same_at_first_unless_plain(debias: bool, high: float) -> None:
    found = Averages(0.01, debias)
    for batch in ([0.0, 1.0], [0.0, 3.0], [0.0, 5.0]):
        found.add(torch.tensor(batch))
        found.close()
    assert found.high.item() == pytest.approx(high)


def test_pieces_of_a_batch_count_once() -> None:
    found = Averages()
    for piece in ([0.0, 1.0], [-1.0, 0.0]):
        found.add(torch.tensor(piece))
    found.close()
    found.close()
    assert (found.batches, found.low.item(), found.high.item()) == (1, -1, 1)


@pytest.mark.parametrize("make", [Extremes, Averages, Histogram])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_an_error(make: type, value: float) -> None:
    with pytest.raises(QuantizationError, match=r"an activation of shape \(2,\) that spans .* ranges must be finite"):
        make().add(torch.tensor([1.0, value]))
