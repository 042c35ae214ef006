"""What an observer keeps of the batches that it saw: two numbers, or a histogram, never the values.

Each has ``add`` (a tensor of the current batch, any shape) and ``close`` (the batch ends: however it was cut into
pieces, it counts once). All of it is deterministic.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from isa.errors import QuantizationError

SLOWEST = 0.01
"""Weight of a new batch once 100 batches were seen."""
PIECE = 1 << 16
"""Elements that are binned at once: bounds the memory, and stays in the cache."""
FINEST = -40
"""Exponent of the narrowest bins: 2^-16 of the smallest scale."""


class Statistic(Protocol):
    """What all have in common."""

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        ...

    def add(self, x: torch.Tensor) -> None:
        """Take in a piece of the current batch. Raises QuantizationError for NaN and infinities."""
        ...

    def close(self) -> None:
        """End the batch."""
        ...


class Extremes:
    """The least and the largest value of all batches."""

    def __init__(self) -> None:
        self.low = torch.tensor(math.inf)
        self.high = torch.tensor(-math.inf)

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        return bool(self.low <= self.high)

    def add(self, x: torch.Tensor) -> None:
        """Take in a piece of the current batch. Raises QuantizationError for NaN and infinities."""
        low, high = torch.aminmax(x)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            advice = "; give an attention mask as booleans, not as -inf that is added" if low == -torch.inf else ""
            raise QuantizationError(
                f"a calibration batch made an activation of shape {tuple(x.shape)} that spans [{low}, {high}]: "
                f"ranges must be finite; check the batch and the model for overflow or NaN{advice}"
            )
        self.low, self.high = torch.minimum(low, self.low), torch.maximum(high, self.high)

    def close(self) -> None:
        """Batches make no difference."""


class Averages:
    """Moving average of the batches' minima and maxima, a new batch weighing ``constant``.

    ``debias`` lets all batches weigh the same until they are 1/constant: the plain average starts at the first batch,
    which then outweighs every other of a short calibration.
    """

    def __init__(self, constant: float = SLOWEST, debias: bool = True) -> None:
        self.constant = constant
        self.debias = debias
        self.batches = 0
        self.low = torch.tensor(math.inf)
        self.high = torch.tensor(-math.inf)
        self._batch = Extremes()

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        return self.batches > 0 or self._batch.seen

    def add(self, x: torch.Tensor) -> None:
        """Take in a piece of the current batch."""
        self._batch.add(x)

    def close(self) -> None:
        """Let what was added since the last call count as one batch."""
        if not self._batch.seen:
            return
        low, high = self._batch.low, self._batch.high
        self._batch = Extremes()
        self.batches += 1
        if self.batches == 1:
            self.low, self.high = low.clone(), high.clone()
            return
        weight = max(1.0 / self.batches, self.constant) if self.debias else self.constant
        self.low += weight * (low - self.low)
        self.high += weight * (high - self.high)


class Histogram:
    """Counts in ``2 * bins`` bins of one width, a power of two, that meet at 0; zeros themselves are counted apart.

    Bin k holds k * w <= x < (k + 1) * w. A value beyond the bins doubles the width until it fits, and neighbours merge
    exactly: the counts are those of all values together, in any order of batches, at the final width. That is at most
    2 / bins of the largest magnitude: where outliers are far from the rest, the rest has few bins, and whatever is
    read off errs by one of them. ``bins`` is a power of two.
    """

    def __init__(self, bins: int = 2048) -> None:
        self.bins = bins
        self.counts = torch.zeros(2 * bins, dtype=torch.int64)
        self.zeros = 0
        self.extremes = Extremes()
        self._exponent = FINEST

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        return self.extremes.seen

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def total(self) -> int:
        """Number of values."""
        return self.zeros + int(self.counts.sum())

    def add(self, x: torch.Tensor) -> None:
        """Take in a piece of the current batch."""
        self.extremes.add(x)
        self._widen(max(-self.extremes.low.item(), self.extremes.high.item()))
        for piece in x.detach().reshape(-1).split(PIECE):
            zeros = int((piece == 0).sum())
            places = torch.floor(piece.double() / self.width).to(torch.int64) + self.bins
            self.counts += torch.bincount(places, minlength=2 * self.bins)
            self.counts[self.bins] -= zeros
            self.zeros += zeros

    def close(self) -> None:
        """Batches make no difference."""

    def _widen(self, magnitude: float) -> None:
        """Merge bins until ``magnitude`` is below ``bins * width``."""
        wanted = math.frexp(magnitude)[1] - int(math.log2(self.bins))
        if magnitude == 0 or wanted <= self._exponent:
            return
        merged = 1 << min(wanted - self._exponent, int(math.log2(self.bins)))
        kept = self.bins // merged
        sums = self.counts.view(-1, merged).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[self.bins - kept : self.bins + kept] = sums
        self._exponent = wanted

    def rows(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lower and upper ends (binary64, within the extremes) and counts of the bins that hold anything, rising."""
        places = self.counts.nonzero().squeeze(1)
        low, high = self.extremes.low.double(), self.extremes.high.double()
        lower = (places - self.bins).double() * self.width
        return lower.clamp(low, high), (lower + self.width).clamp(low, high), self.counts[places]

    def folded(self) -> Histogram:
        """The histogram of the magnitudes; those of negative values that end a bin count in the bin below."""
        result = Histogram(self.bins)
        result._exponent = self._exponent
        result.counts[self.bins :] = self.counts[self.bins :] + self.counts[: self.bins].flip(0)
        result.zeros = self.zeros
        low, high = self.extremes.low, self.extremes.high
        result.extremes.low = torch.zeros(())
        result.extremes.high = torch.maximum(-low, high)
        return result

    def at_least(self, share: float) -> float:
        """The least end of a bin that ``share`` of the values do not exceed: at most one bin above the quantile."""
        _, upper, counts = self._masses()
        return _reached(upper, counts, share)

    def at_most(self, share: float) -> float:
        """The greatest end of a bin that ``share`` of the values do not fall below: at most one bin below it."""
        lower, _, counts = self._masses()
        return _reached(lower.flip(0), counts.flip(0), share)

    def _masses(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``rows`` with the zeros in their place."""
        lower, upper, counts = self.rows()
        below = int((lower < 0).sum())
        none, zeros = lower.new_zeros(1), counts.new_tensor([self.zeros])
        parts = ((lower, none), (upper, none), (counts, zeros))
        lower, upper, counts = (torch.cat([x[:below], own, x[below:]]) for x, own in parts)
        return lower, upper, counts


def rank(share: float, count: int) -> int:
    """How many of ``count`` values in order make ``share`` of them, at least one."""
    return min(count, max(1, math.ceil(share * count - 1e-9)))  # 0.999 * 1000 is not quite 999


def _reached(ends: torch.Tensor, counts: torch.Tensor, share: float) -> float:
    """The first of ``ends`` up to which ``counts`` sum to ``share`` of all."""
    sums = counts.cumsum(0)
    return ends[torch.searchsorted(sums, rank(share, int(sums[-1])))].item()
