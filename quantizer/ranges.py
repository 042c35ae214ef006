"""Range estimators: which part of the numbers a tensor's codes span (arXiv 1806.08342, section 2.5 and 3.1).

They are data, as a recipe writes them, and functions. ``of_rows`` takes the values themselves, [C, n] of the channels
of a weight (one for all in per-tensor granularity), and gives ends [C]; it is exact. ``start`` makes what an observer
of activations keeps, ``of_statistic`` reads the range off it. Ends are binary32, and 0 may lie outside of them.

torchao's observers of minima and maxima compute what ``MinMax`` and ``Average(debias=False)`` do, but take any value
and every piece of a batch for one. Its ``HistogramObserver`` searches with the 256 codes of int8 whatever the width,
stops at the first candidate that is worse, and interpolates counts when the range grows: ours serves instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch

from quantizer.quantizers import Grid, inverse
from quantizer.rules import PowerOfTwo, Within, check
from quantizer.statistics import PIECE, SLOWEST, Averages, Extremes, Histogram, Statistic, rank

Ends = tuple[torch.Tensor, torch.Tensor]
ROUNDS = 4
"""How often the search goes over both ends of an affine range."""
KEPT = 0.95
"""Share of the values other than 0 that the search by entropy does not clip."""
FEWEST = 1 << 8
MOST = 1 << 16


@runtime_checkable
class Estimator(Protocol):
    """What every range estimator can do; a frozen dataclass whose fields are its parameters."""

    by: ClassVar[str]
    """Its name in a recipe."""
    of_batches: ClassVar[bool]
    """Whether it says nothing of constants."""
    per_channel: ClassVar[bool]
    """Whether a channel's few values are enough for it."""

    def start(self) -> Statistic:
        """What an observer keeps for it."""
        ...

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """The range [low, high], two scalars, of what ``start`` made and an observer filled."""
        ...

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """The ranges of channels: [C, n] to two [C]."""
        ...


@dataclass(frozen=True)
class MinMax:
    """All values: the least and the largest that were seen, and ``headroom`` for those that were not."""

    headroom: Annotated[float, Within(0, 8)] = 0.0
    """How far each end moves away from 0, as a share of its distance: one unseen value that is clipped is more noise
    than all the rounding of 16 bits."""
    by: ClassVar[str] = "minmax"
    of_batches: ClassVar[bool] = False
    per_channel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self)

    def start(self) -> Extremes:
        """Two numbers."""
        return Extremes()

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """The extremes and the headroom."""
        assert isinstance(seen, Extremes)
        return self._widened(seen.low, seen.high)

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """The extremes of each row and the headroom."""
        low, high = torch.aminmax(rows, dim=1)
        return self._widened(low, high)

    def _widened(self, low: torch.Tensor, high: torch.Tensor) -> Ends:
        """The same ends, bit for bit, without headroom; with it they stay finite."""
        most = torch.finfo(torch.float32).max
        return (low * (1 + self.headroom)).clamp(min=-most), (high * (1 + self.headroom)).clamp(max=most)


@dataclass(frozen=True)
class Average:
    """Moving average of the batches' minima and maxima: the whitepaper's estimator for activations (arXiv 1806.08342,
    section 2.5)."""

    constant: Annotated[float, Within(0, 1, above=True)] = SLOWEST
    """Weight of a new batch."""
    debias: bool = True
    """A new batch weighs no less than those before it, until they are 1 / ``constant``."""
    by: ClassVar[str] = "average"
    of_batches: ClassVar[bool] = True
    per_channel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self)

    def start(self) -> Averages:
        """Two numbers and a count."""
        return Averages(self.constant, self.debias)

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """The averages."""
        assert isinstance(seen, Averages)
        return seen.low, seen.high

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """The extremes of each row: the average of equal batches."""
        return MinMax().of_rows(rows, grid)


@dataclass(frozen=True)
class _Binned:
    """Base of those that read a histogram of activations."""

    bins: Annotated[int, PowerOfTwo(FEWEST, MOST)] = 2048
    """Of the histogram, on either side of 0: 16 bytes each, per observed tensor."""

    def __post_init__(self) -> None:
        check(self)

    def start(self) -> Histogram:
        """A histogram."""
        return Histogram(self.bins)


@dataclass(frozen=True)
class Percentile(_Binned):
    """``percent`` of the values lie at or below the upper end, and as many at or above the lower end.

    In symmetric codes it is of the magnitudes, and both ends are the same distance from 0. Exact for weights; off a
    histogram an end lies at most one bin outside of the exact one, that is 2 / bins of the largest magnitude.
    """

    percent: Annotated[float, Within(50, 100, above=True)] = 99.99
    """Share of the values, in per cent, that each end leaves inside."""
    by: ClassVar[str] = "percentile"
    of_batches: ClassVar[bool] = False
    per_channel: ClassVar[bool] = True

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """Ends of bins."""
        assert isinstance(seen, Histogram)
        share = self.percent / 100
        high = (seen.folded() if grid.symmetric else seen).at_least(share)
        low = -high if grid.symmetric else seen.at_most(share)
        return torch.tensor(low), torch.tensor(high)

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """Values of the rows."""
        rows = rows.abs() if grid.symmetric else rows
        place = rank(self.percent / 100, rows.shape[1])
        high = rows.kthvalue(place, dim=1).values
        low = -high if grid.symmetric else rows.kthvalue(rows.shape[1] + 1 - place, dim=1).values
        return low, high


@dataclass(frozen=True)
class MeanError(_Binned):
    """The range whose quantization error is least: the mean of |x - x'|^``power``, searched in ``steps`` candidates.

    Candidates are the extremes, shrunk by k / steps; in affine codes first both ends together, then one after the other
    until nothing gets better: never worse than min/max, but a local minimum. (QDrop's grid search takes power 2.4.)
    Exact for weights. Off a histogram the values of a bin count as spread evenly over it, so where a bin is wider than
    a step, the rounding error in it is that of even spread, s^2/12 at power 2.
    """

    power: Annotated[float, Within(0, 8, above=True)] = 2.0
    """Of the error's magnitude: 2 is its square."""
    steps: Annotated[int, Within(2, 1000)] = 100
    """Candidates for an end."""
    by: ClassVar[str] = "mse"
    of_batches: ClassVar[bool] = False
    per_channel: ClassVar[bool] = True

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """By the even spread of the bins."""
        assert isinstance(seen, Histogram)
        rows = seen.rows()

        def loss(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
            scale, zero = grid.parameters(low, high)
            return spread_error(rows, scale.double(), zero.double(), grid, self.power)

        low, high = self._search(seen.extremes.low.reshape(1), seen.extremes.high.reshape(1), grid, loss)
        return low[0], high[0]

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """By the values."""
        blocks = rows.split(max(1, PIECE // rows.shape[1]))
        low, high = zip(*(self._of_block(block, grid) for block in blocks), strict=True)
        return torch.cat(low), torch.cat(high)

    def _of_block(self, rows: torch.Tensor, grid: Grid) -> Ends:
        def one(scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
            steps = (rows * inverse(scale)[:, None]).round_()
            for end, bound in ((grid.least, torch.maximum), (grid.most, torch.minimum)):  # clamp_ is five times slower
                bound(steps, (end - zero).float()[:, None], out=steps)
            error = steps.mul_(scale[:, None]).sub_(rows)
            error = error.square_() if self.power == 2 else error.abs_().pow_(self.power)
            return error.sum(1, dtype=torch.float64)

        def loss(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
            return torch.stack([one(*each) for each in zip(*grid.parameters(low, high), strict=True)])

        return self._search(*MinMax().of_rows(rows, grid), grid, loss)

    def _search(self, low: torch.Tensor, high: torch.Tensor, grid: Grid, loss: Callable[..., torch.Tensor]) -> Ends:
        """The best candidates for ranges [C] within [low, high]; ``loss`` of two ends [K, C] gives [K, C]."""
        extremes = low.clamp(max=0), high.clamp(min=0)
        shares = torch.arange(self.steps, 0, -1)[:, None] / self.steps
        best, least = extremes, loss(*(end[None] for end in extremes))[0]

        def sweep(*moved: bool) -> bool:
            nonlocal best, least
            ends = zip(extremes, moved, best, strict=True)
            tried = [end * shares if moves else kept.expand(self.steps, -1) for end, moves, kept in ends]
            losses = loss(*tried)
            first = torch.from_numpy(losses.numpy().argmin(0))[None]  # of equal ones the widest
            value = losses.gather(0, first)[0]
            better = value < least
            low, high = (torch.where(better, t.gather(0, first)[0], b) for t, b in zip(tried, best, strict=True))
            best, least = (low, high), torch.where(better, value, least)
            return bool(better.any())

        sweep(True, True)
        if grid.symmetric or any(not end.any() for end in extremes):  # one end alone
            return best
        for _ in range(ROUNDS):
            if not any([sweep(False, True), sweep(True, False)]):
                break
        return best


@dataclass(frozen=True)
class Entropy(_Binned):
    """The range that loses least information: Kullback-Leibler divergence, as TensorRT calibrates (Migacz, GTC 2017).

    Candidates clip magnitudes above a threshold, ``steps`` of them, up to the largest magnitude, and from where there
    is a bin per code and a twentieth is clipped: a few bins alone would be lossless, whatever they leave out. P are the
    bins inside, with what is clipped added to the outermost; Q gives every bin that holds anything an equal part of its
    code's count. Zeros, which are exact in any range, do not count. With more codes than bins, as at 16 bits, nothing
    is clipped. Too few values, as a channel's, make no distribution.
    """

    steps: Annotated[int, Within(2, 1000)] = 100
    """Thresholds that are tried."""
    by: ClassVar[str] = "entropy"
    of_batches: ClassVar[bool] = False
    per_channel: ClassVar[bool] = False

    def of_statistic(self, seen: Statistic, grid: Grid) -> Ends:
        """The best threshold, a bin's end."""
        assert isinstance(seen, Histogram)
        low, high = seen.extremes.low.clamp(max=0), seen.extremes.high.clamp(min=0)
        rows = seen.rows()
        lower, upper, counts = rows
        if not len(lower):  # zeros alone
            return low, high
        ends, order = torch.ceil(torch.where(lower < 0, -lower, upper) / seen.width).sort()  # in bins from 0
        kept = torch.searchsorted(counts[order].cumsum(0), math.ceil(KEPT * int(counts.sum())))
        first = max(ends[kept].item(), grid.levels / (1 + bool(low < 0 < high)))
        places = torch.linspace(ends[-1].item(), min(first, ends[-1].item()), self.steps).ceil()
        lows, highs = (-places * seen.width).clamp(min=low), (places * seen.width).clamp(max=high)
        scales, zeros = grid.parameters(lows, highs)
        candidates = zip(lows.tolist(), highs.tolist(), inverse(scales), zeros, strict=True)
        losses = [divergence(rows, *candidate, grid) for candidate in candidates]
        best = losses.index(min(losses))  # of equal ones the widest
        return lows[best], highs[best]

    def of_rows(self, rows: torch.Tensor, grid: Grid) -> Ends:
        """By the histogram of each row."""
        ends: list[Ends] = []
        for row in rows:
            seen = self.start()
            seen.add(row)
            ends.append(self.of_statistic(seen, grid))
        low, high = zip(*ends, strict=True)
        return torch.stack(low), torch.stack(high)


ESTIMATORS: dict[str, type[Estimator]] = {e.by: e for e in (MinMax, Average, Percentile, MeanError, Entropy)}
"""By the name in a recipe."""

Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def spread_error(rows: Rows, scale: torch.Tensor, zero: torch.Tensor, grid: Grid, power: float) -> torch.Tensor:
    """Sum of |x - x'|^power over histogram ``rows``, whose values are spread evenly between a row's ends.

    ``scale`` and ``zero`` of any shape, binary64 as the result. No row straddles 0. Of one sign, the integral of the
    error from 0 to t is that of the whole half steps below t, of the rest, and of what lies beyond the outermost code.
    """
    lower, upper, counts = rows
    scale, zero = scale[..., None], zero[..., None]
    negative = lower < 0
    near, far = torch.where(negative, -upper, lower), torch.where(negative, -lower, upper)
    edge = torch.where(negative, (zero - grid.least) * scale, (grid.most - zero) * scale)
    width = far - near
    middle = (near + far) / 2
    point = (middle - torch.minimum((middle / scale).round() * scale, edge)).abs() ** power
    area = _integral(far, edge, scale, power) - _integral(near, edge, scale, power)
    mean = torch.where(width > 0, area / width.clamp(min=torch.finfo(torch.float64).tiny), point)
    return (counts * mean).sum(-1)


def _integral(t: torch.Tensor, edge: torch.Tensor, scale: torch.Tensor, power: float) -> torch.Tensor:
    """Of |error|^power over 0 .. t, where codes are multiples of ``scale`` up to ``edge``."""
    inside, beyond = torch.minimum(t, edge), (t - edge).clamp_(min=0)
    steps = (inside / scale).round_()
    rest = inside - steps * scale
    whole = 2 * steps * (scale / 2) ** (power + 1)
    return (whole + rest.sign() * rest.abs() ** (power + 1) + beyond ** (power + 1)) / (power + 1)


def divergence(rows: Rows, low: float, high: float, per_scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> float:
    """Kullback-Leibler divergence of histogram ``rows`` from what codes over [low, high] leave of them."""
    lower, upper, counts = rows
    middle = (lower + upper) / 2
    first = int(torch.searchsorted(middle, low))
    last = int(torch.searchsorted(middle, high, right=True))  # a bin of one value ends where it begins
    mass = counts[first:last].double()
    if not len(mass):
        return math.inf
    wanted = mass.clone()
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last:].sum()
    codes = torch.round(middle[first:last] * per_scale).clamp_(grid.least - zero, grid.most - zero).long()
    codes -= codes[0].item()
    shared = torch.bincount(codes, mass) / torch.bincount(codes)
    p, q = wanted / wanted.sum(), shared[codes] / mass.sum()
    return (p * (p / q).log()).sum().item()
