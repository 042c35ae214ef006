"""4-bit codes at uneven steps: what 16 values the device's codebook holds, and where one code ends and the next begins.

A curve bends values so that codes are even there: the range of a tensor, and so scale and zero point, are of the bent
values. The table's entries are 8-bit: what the matrix unit multiplies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from isa import numerics
from quantizer.quantizers import Grid, affine, quantize

BITS = 4
"""Width of the codes of a codebook."""


@dataclass(frozen=True)
class Codebook:
    """Codes -8 .. 7 that stand for fp32(entry - zero) * scale; 15 rising ``thresholds`` (binary32) part them."""

    thresholds: tuple[float, ...]
    entries: tuple[int, ...]
    zero: int
    scale: float

    @classmethod
    def of(cls, values: torch.Tensor, thresholds: torch.Tensor) -> Codebook:
        """For 16 rising ``values``, rounded to one of 256 even steps that span them and hold 0."""
        bytes_ = affine(8)
        scale, zero = bytes_.parameters(values[:1].float(), values[-1:].float())
        entries = quantize(values.float(), scale, zero, bytes_)
        ends = tuple(thresholds.float().tolist())
        return cls(ends, tuple(entries.tolist()), int(zero), scale.item())

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        """What the codes leave of ``x``, of any shape."""
        codes = numerics.decode(numerics.encode(x, self.thresholds), self.entries)
        return numerics.dequantize(codes, self.scale, self.zero)


class Curve(Protocol):
    """How values are bent; a frozen dataclass."""

    def bend(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor whose range an observer estimates."""
        ...

    def codebook(self, scale: float, zero: int, grid: Grid) -> Codebook:
        """The table of codes that are even steps ``scale`` of bent values; ``zero`` is the code of 0."""
        ...


@dataclass(frozen=True)
class LogNP:
    """Phi(y) = sign(y) log2(1 + |y|), QuartDepth's polishing of y = x/a (arXiv 2503.16709, eqs 5-7)."""

    def bend(self, x: torch.Tensor) -> torch.Tensor:
        """Phi(x)."""
        return x.sign() * torch.log1p(x.abs()) / math.log(2)

    def unbend(self, v: torch.Tensor) -> torch.Tensor:
        """Phi^-1(v) = sign(v) (2^|v| - 1)."""
        return v.sign() * torch.expm1(v.abs() * math.log(2))

    def codebook(self, scale: float, zero: int, grid: Grid) -> Codebook:
        """Codes are even in Phi, and so are their limits."""
        steps = torch.arange(grid.least, grid.most + 1, dtype=torch.float64) - zero
        return Codebook.of(self.unbend(steps * scale), self.unbend((steps[1:] - 0.5) * scale))


@dataclass(frozen=True)
class PowersOfTwo:
    """q = clip(round(-n log2(x/s)), 0, 15), x' = s 2^(-q/n): for probabilities (arXiv 2503.16709, eqs 3-4, with n = 1).

    s is the top of the range. Of an 8-bit table of powers of two 10 values differ: 255 halved 8 times, and 0; n = 2
    steps per octave use all codes for the same octaves.
    """

    steps: int = 1

    def bend(self, x: torch.Tensor) -> torch.Tensor:
        """Values as they are: the range only gives s."""
        return x

    def codebook(self, scale: float, zero: int, grid: Grid) -> Codebook:
        """The codes rise with x: the top one is q = 0."""
        top = scale * (grid.most - zero)
        q = torch.arange(grid.levels - 1, -1, -1, dtype=torch.float64)
        return Codebook.of(top * torch.exp2(-q / self.steps), top * torch.exp2(-(q[1:] + 0.5) / self.steps))
