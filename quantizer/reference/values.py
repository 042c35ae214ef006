"""What flows through the reference: binary32 tensors, codes, and codes that nobody has dequantized yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from isa import numerics
from isa.errors import UnsupportedError

OFFSETS = {torch.int8: 0, torch.uint8: 128, torch.int16: 0, torch.uint16: 32768}
"""Unsigned codes are held as q - offset with zero point z - offset: the same values."""


@dataclass(frozen=True)
class Codes:
    """A quantized tensor: int8 or int16 ``codes`` that the graph knows as ``codes + offset``."""

    codes: torch.Tensor
    offset: int = 0

    def plain(self) -> torch.Tensor:
        """The tensor as the graph knows it."""
        if not self.offset:
            return self.codes
        return (self.codes.to(torch.int32) + self.offset).to(torch.uint8 if self.offset == 128 else torch.uint16)

    def moved(self, codes: torch.Tensor) -> Codes:
        """``codes`` of the same dtype."""
        return Codes(codes, self.offset)

    def same_grid(self, other: object) -> bool:
        """Whether ``other`` has the same dtype: what its codes stand for is said behind it."""
        return isinstance(other, Codes) and (self.codes.dtype, self.offset) == (other.codes.dtype, other.offset)


@dataclass(frozen=True)
class Lazy:
    """(codes - zero) * fp32(scale), not computed until an op wants binary32; codes are int8 or int16 of any shape."""

    codes: torch.Tensor
    scale: float
    zero: int

    @property
    def span(self) -> int:
        """Largest |q - zero| of codes of this type."""
        return 255 if self.codes.dtype is torch.int8 else 65535

    def float(self) -> torch.Tensor:
        """The binary32 tensor."""
        return numerics.dequantize(self.codes, self.scale, self.zero)

    def same_grid(self, other: object) -> bool:
        """Whether ``other`` is lazy with the same scale and zero point."""
        return isinstance(other, Lazy) and (self.scale, self.zero) == (other.scale, other.zero)

    def moved(self, codes: torch.Tensor) -> Lazy:
        """``codes`` on this grid."""
        return Lazy(codes, self.scale, self.zero)


@dataclass(frozen=True)
class Weight:
    """Constant int8 or int16 codes [O, ...] with a double scale and an integer zero point per output channel [O]."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    @cached_property
    def symmetric(self) -> bool:
        """Whether every zero point is 0."""
        return not bool(self.zeros.any())

    @property
    def plain(self) -> bool:
        """Whether the fast product of int8 codes applies."""
        return self.symmetric and self.codes.dtype is torch.int8

    @cached_property
    def rows(self) -> torch.Tensor:
        """int8 [O, K] with K in (kh, kw, c) order, for integer products."""
        codes = self.codes.permute(0, 2, 3, 1) if self.codes.dim() == 4 else self.codes
        return codes.reshape(codes.shape[0], -1).contiguous()

    @cached_property
    def sums(self) -> torch.Tensor:
        """Sum of the codes of each output channel, int32 [O]."""
        return numerics.row_sums(self.rows)

    @cached_property
    def centred(self) -> torch.Tensor:
        """codes - zero as float64, in the shape of ``codes``."""
        return self.codes.double() - self.zeros.double().view(-1, *[1] * (self.codes.dim() - 1))

    @cached_property
    def magnitude(self) -> float:
        """Largest sum of |code - zero| over an output channel: bounds every partial sum of a product."""
        return float(self.centred.abs().flatten(1).sum(1).max())

    @cached_property
    def centred32(self) -> torch.Tensor:
        """``centred`` as float32: exact."""
        return self.centred.float()

    def product_scale(self, activation: float) -> torch.Tensor:
        """fp32(sx) * fp32(sw[c]), binary32 [O]."""
        return numerics.product_scale(activation, self.scales)

    def float(self) -> torch.Tensor:
        """The binary32 tensor."""
        shape = (-1, *[1] * (self.codes.dim() - 1))
        centred = self.codes.int() - self.zeros.int().view(shape)
        return centred.float() * self.scales.float().view(shape)


def as_float(x: object) -> torch.Tensor:
    """``x`` as a binary32 tensor."""
    return x.float() if isinstance(x, (Lazy, Weight)) else x  # type: ignore[return-value]


def is_float(x: object) -> bool:
    """Whether ``x`` is a binary32 tensor that nothing has quantized."""
    return isinstance(x, torch.Tensor)


def as_lazy(x: object, op: str) -> Lazy:
    """``x`` if it is quantized; raises UnsupportedError, for the machine computes ``op`` on integers."""
    if not isinstance(x, Lazy):
        raise UnsupportedError(f"{op} works on codes, but its operand is float: quantize it")
    return x


def as_weight(w: object, op: str, axis: int = 0) -> Weight:
    """``w`` as a weight per output channel, its dimension ``axis``; per-tensor scales are repeated."""
    if isinstance(w, Weight):
        return w
    lazy = as_lazy(w, f"the weight of {op}")
    n = lazy.codes.shape[axis]
    return Weight(lazy.codes, torch.full((n,), lazy.scale, dtype=torch.float64), torch.full((n,), lazy.zero))
