"""The uniform quantizers of arXiv 1806.08342, section 2: affine, symmetric, and stochastic for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchao.quantization.pt2e.utils import determine_qparams

from isa.errors import QuantizationError

EPS = 2.0**-24
"""Smallest scale: keeps the scales of dead channels and constant tensors, and the products of two, normal binary32."""


@dataclass(frozen=True)
class Grid:
    """The codes ``least`` .. ``most`` of a uniform quantizer; ``symmetric`` ones have zero point 0."""

    least: int
    most: int
    symmetric: bool

    @property
    def levels(self) -> int:
        """Number of codes."""
        return self.most - self.least + 1

    @property
    def dtype(self) -> torch.dtype:
        """The type that stores a code in PyTorch, which has none of 4 bits: they take a byte there."""
        return torch.int8 if self.levels <= 256 else torch.int16

    def parameters(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale (binary32, at least EPS) and zero point (int64) for ranges ``low`` .. ``high``, [C] or a scalar each.

        A range off zero is stretched to hold it, so that zero is a code (section 2.1). By torchao's formulas. Raises
        QuantizationError for a range that is not finite, or so wide that its scale is not.
        """
        finite = (high.clamp(min=0) - low.clamp(max=0)).isfinite()
        if not finite.all():
            worst = finite.reshape(-1).logical_not().int().argmax()
            ends = ", ".join(f"{end.reshape(-1)[worst].item():g}" for end in (low, high))
            raise QuantizationError(f"the range [{ends}] has no finite scale: look for overflow or NaN in the model")
        scheme = torch.per_channel_symmetric if self.symmetric else torch.per_channel_affine
        eps = torch.tensor(EPS)
        scale, zero = determine_qparams(low, high, self.least, self.most, self.dtype, eps, True, scheme)
        return scale.float(), zero


def affine(bits: int) -> Grid:
    """All codes of ``bits`` bits, and a zero point (section 2.1)."""
    return Grid(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, False)


def symmetric(bits: int, narrow: bool = False) -> Grid:
    """Zero point 0 (section 2.2); ``narrow`` leaves out the lowest code, so that every code has its negative."""
    return Grid(int(narrow) - (1 << (bits - 1)), (1 << (bits - 1)) - 1, True)


def quantize(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    """clamp(rne(x * fp32(1/s)) + z): codes of the shape of ``x``; ``scale`` and ``zero`` broadcast against it."""
    return _codes(torch.round(x * inverse(scale)), zero, grid)


def stochastic(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid, generator: torch.Generator | None = None
) -> torch.Tensor:
    """As ``quantize``, rounded up with the probability of the fraction: on average what saturation leaves of ``x``.

    For simulation in training alone (section 2.3): no machine rounds so, and a graph that draws numbers is refused.
    """
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    return _codes(torch.floor(x * inverse(scale) + noise), zero, grid)


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """(q - z) * s in binary32."""
    return (codes.to(torch.int32) - zero.to(torch.int32)).float() * scale.float()


def simulate(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    """What quantization leaves of ``x``: dequantize(quantize(x))."""
    return dequantize(quantize(x, scale, zero, grid), scale, zero)


def inverse(scale: torch.Tensor) -> torch.Tensor:
    """fp32(1/s), by which the machine multiplies."""
    return (1.0 / scale.double()).float()


def _codes(steps: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Clamped before the conversion: a binary32 beyond the integers has no defined one."""
    zero = zero.to(torch.float32)
    low, high = grid.least - zero, grid.most - zero
    return (torch.clamp(steps, low, high) + zero).to(grid.dtype)
