"""Interpolation of images at exact rational positions; see ``vcu.resize``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from isa.numerics.namespace import Array, cast, fp32, is_torch, namespace

Pair = tuple[int, int]


def positions(
    outputs: int, size: int, num: int, den: int, phase: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(i0, i1, t) of outputs 0 .. outputs-1 on an axis of ``size``: p = max(y*num + phase, 0) / den."""
    p = np.maximum(np.arange(outputs, dtype=np.int64) * num + phase, 0)
    low = p // den
    first = np.minimum(low, size - 1)
    t = ((p - low * den) / den).astype(np.float32)
    return first, np.minimum(first + 1, size - 1), t


def resize_scale(size: int, outputs: int, align_corners: bool = False, nearest: bool = False) -> tuple[int, int, int]:
    """(num, den, phase) of PyTorch's interpolation of an axis of ``size`` to ``outputs``."""
    if nearest:
        return size, outputs, 0
    if align_corners:
        return (size - 1, outputs - 1, 0) if outputs > 1 else (0, 1, 0)
    return 2 * size, 2 * outputs, size - outputs


def resize_ratio(factor: float) -> tuple[int, int]:
    """(size, outputs) of the smallest axis that a factor enlarges exactly: 3.5 is (2, 7).

    Where a factor does not give whole sizes, PyTorch takes positions from the factor and not from the sizes: pass these
    to ``resize_scale``. Raises ValueError for a factor that is no ratio of numbers up to 1000 to binary32's precision.
    """
    ratio = Fraction(factor).limit_denominator(1000)
    if ratio <= 0 or ratio.numerator > 1000 or abs(float(ratio) - factor) > 2.0**-24 * factor:
        raise ValueError(f"{factor} is not a ratio of whole numbers up to 1000")
    return ratio.denominator, ratio.numerator


def bilinear(
    x: Array, size: Pair, num: Pair, den: Pair, phase: Pair, zero: int = 0, scale: float = 0.0
) -> Array:
    """x [..., H, W, C] to binary32 [..., h, w, C]; codes as q - zero, times fp32(scale) at the end unless it is 0.

    Along columns, then along rows: a + (b - a) * t, each operation rounded once.
    """
    y0, y1, ty = positions(size[0], x.shape[-3], num[0], den[0], phase[0])
    x0, x1, tx = positions(size[1], x.shape[-2], num[1], den[1], phase[1])
    value = x if x.dtype == namespace(x).float32 else cast(cast(x, "int32") - zero, "float32")
    left, right = _take(value, x0, -2), _take(value, x1, -2)
    with np.errstate(all="ignore"):
        lines = left + (right - left) * _like(tx[:, None], x)
        top, bottom = _take(lines, y0, -3), _take(lines, y1, -3)
        y = top + (bottom - top) * _like(ty[:, None, None], x)
        return y * fp32(scale) if scale else y


def nearest(x: Array, size: Pair, num: Pair, den: Pair, phase: Pair) -> Array:
    """x [..., H, W, C] to [..., h, w, C], the element at the floor of every position."""
    rows = positions(size[0], x.shape[-3], num[0], den[0], phase[0])[0]
    columns = positions(size[1], x.shape[-2], num[1], den[1], phase[1])[0]
    return _take(_take(x, rows, -3), columns, -2)


def _take(x: Array, index: NDArray[np.int64], axis: int) -> Array:
    xp = namespace(x)
    return xp.index_select(x, axis, xp.from_numpy(index)) if is_torch(x) else np.take(x, index, axis)


def _like(t: NDArray[np.float32], x: Array) -> Array:
    return namespace(x).from_numpy(np.ascontiguousarray(t)) if is_torch(x) else t
