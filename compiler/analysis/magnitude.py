"""Bounds of binary32 values, to prove that an intermediate result is never NaN.

A value is bounded by the largest magnitude that codes, accumulators and constants allow, with room for roundings.
Anything read from a binary32 tensor is unbounded.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import int_type, is_int

LIMIT = 1e37
"""Below the largest binary32 by more than any rounding can add."""
SLACK = 1.0 + 1e-5
"""Covers the rounding of each operation."""

Constant = Callable[[SSAValue], NDArray[np.generic] | None]


class Magnitudes:
    """Largest magnitude of float values; ``constant`` gives the array of a value known at compile time.

    Values in ``outside`` are read from a tensor, so they are unbounded, whatever makes them.
    """

    def __init__(self, constant: Constant, outside: Container[SSAValue] = ()) -> None:
        self._constant = constant
        self._known: dict[SSAValue, float] = {}
        self._outside = outside

    def finite(self, value: SSAValue) -> bool:
        """Whether ``value`` is proven to be neither NaN nor infinite."""
        return self.of(value) < LIMIT

    def of(self, value: SSAValue) -> float:
        """Upper bound of |value|; infinity when none is known."""
        if value not in self._known:
            bound = self._bound(value)
            self._known[value] = bound * SLACK if bound < LIMIT else inf
        return self._known[value]

    def _bound(self, value: SSAValue) -> float:
        if (array := self._constant(value)) is not None:
            return _largest(array)
        if value in self._outside:
            return inf
        match value.owner:
            case qnn.Conv2dOp(x=x) | qnn.LinearOp(x=x) | qnn.MatmulOp(a=x) if not is_int(x):
                return inf
            case qnn.Conv2dOp(x=x, scale=scale, bias=bias) | qnn.LinearOp(x=x, scale=scale, bias=bias):
                total = _accumulator(x) * self.of(scale)
                return total if bias is None else total + self.of(bias)
            case qnn.MatmulOp(a=a, b=b):
                return _accumulator(a) * int_type(a).scale.data * int_type(b).scale.data
            case qnn.AvgPool2dOp(input=x) | qnn.AdaptiveAvgPool2dOp(input=x):
                return _accumulator(x) * int_type(x).scale.data
            case qnn.DequantizeOp(input=x):
                return _codes(int_type(x)) * int_type(x).scale.data
            case qnn.AddOp(lhs=a, rhs=b) | qnn.SubOp(lhs=a, rhs=b):
                return self.of(a) + self.of(b)
            case qnn.MulOp(lhs=a, rhs=b):
                return self.of(a) * self.of(b) if max(self.of(a), self.of(b)) < LIMIT else inf
            case qnn.MinimumOp(lhs=a, rhs=b) | qnn.MaximumOp(lhs=a, rhs=b) | qnn.SelectOp(a=a, b=b):
                return max(self.of(a), self.of(b))
            case qnn.GeOp() | qnn.GtOp() | qnn.EqOp():
                return 1.0
            case qnn.AbsOp(input=x) | qnn.FloorOp(input=x):
                return self.of(x) + 1.0
            case qnn.ErfOp(input=x):
                return 1.0 if self.finite(x) else inf
            case qnn.ReluOp(input=x):
                return self.of(x)
            case qnn.ClampOp(input=x, min=low, max=high):
                return max(abs(low.data), abs(high.data)) if self.finite(x) and low.data <= high.data else inf
            case qnn.HardswishOp(input=x):
                return (self.of(x) + 3.0) * 6.0
            case qnn.HardsigmoidOp(input=x) | qnn.SigmoidOp(input=x) | qnn.TanhOp(input=x):
                return 1.0 if self.finite(x) else inf
            case _:
                return inf


def _accumulator(x: SSAValue) -> float:
    """The range of the sums of products with codes ``x``."""
    return 2.0**63 if int_type(x).width.data == 16 else 2.0**31


def _codes(codes: IntType) -> float:
    """Largest magnitude of q - zero, whatever the zero point."""
    return 255.0 if codes.codebook.data else 2.0**codes.width.data - 1.0


def _largest(array: NDArray[np.generic]) -> float:
    if not array.size:
        return 0.0
    largest = float(np.abs(array.astype(np.float64)).max())
    return largest if largest == largest else inf
