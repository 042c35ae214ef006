"""Reductions of rows (the last axis) whose result depends on no order, and what is built on them.

Elements are rounded once to integers of a fixed exponent and summed exactly; see ``vcu.reduce``. NaN and infinities
have defined results: a row with one gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import prod

import numpy as np

from isa.numerics.functions import EXPONENT_BIAS, LOG2_E, ONE, ZERO, exp2, extent, reciprocal, rsqrt, split
from isa.numerics.namespace import INF, NAN, Array, cast, clip, float_of, fp32, is_torch, namespace, where

SOFTMAX_FRACTION = 30
MOMENT_BITS, SUM_BITS = 18, 40
"""Bits to which a row of binary32 is aligned before its moments, and before its sum."""
SUM_LIMIT, MOMENT_LIMIT = 2.0**46, 2.0**18
WIDEST_MOMENTS = 8192
ALIGN_HIGHEST = 60
FLOAT64_EXACT = 2.0**53
ROWS_BLOCK = 1 << 20
"""Elements of rows that are computed at a time."""


def align(a: Array, bits: int) -> Array:
    """2**(bits - 1 - floor(log2 |a|)), exponent at most 60; 1 for 0, NaN for what is not finite."""
    with np.errstate(all="ignore"):
        return power_of_alignment(a, bits)


def power_of_alignment(a: Array, bits: Array) -> Array:
    """:func:`align` without its silence about overflow and NaN."""
    power = clip(bits - 1 - split(a)[1], -126, ALIGN_HIGHEST)
    r = where(a == ZERO, ONE, float_of((cast(power, "int32") + EXPONENT_BIAS) << 23))
    return where(abs(a) < INF, r, NAN)


def row_max(x: Array) -> Array:
    """Maximum of every row, [...]; NaN wins, +0 is above -0."""
    xp = namespace(x)
    top = x.amax(-1) if is_torch(x) else x.max(-1)
    if not is_torch(x) and np.isnan(x).any():
        top = np.where(np.isnan(x).any(-1), NAN, top)
    if not bool((top == 0).any()):
        return _binary32(top)
    positive = ((x == 0) & ~xp.signbit(x)).any(-1)
    return _binary32(xp.where(top == 0, xp.where(positive, 0.0, -0.0), top))


def row_min(x: Array) -> Array:
    """Minimum of every row, [...]; NaN wins, -0 is below +0."""
    return -row_max(-x)


def row_argmax(x: Array) -> Array:
    """Index of the first maximum of every row, int64 [...]; a NaN is one."""
    return x.argmax(-1)


def row_sum(x: Array, fraction: int = 0) -> Array:
    """fp32(sum rne(x * 2**fraction)) * 2**-fraction of every row; NaN unless every |x * 2**fraction| < 2**46."""
    v, bad, largest = _integers(x, fraction, SUM_LIMIT)
    exact = largest * x.shape[-1] < FLOAT64_EXACT  # every partial sum is a binary64: the fast way
    total = v.sum(-1, dtype=namespace(x).float64) if exact else cast(v, "int64").sum(-1)
    return _finish(total, bad, -fraction)


def row_squares(x: Array, fraction: int = 0) -> Array:
    """fp32(sum v*v) * 2**(-2*fraction), v = rne(x * 2**fraction); NaN unless every |v| <= 2**18."""
    v, bad, _ = _integers(x, fraction, MOMENT_LIMIT, inclusive=True)
    return _finish(_sum_of_squares(v), bad, -2 * fraction)


def row_moments(x: Array, fraction: int = 0) -> tuple[Array, Array]:
    """``row_sum`` and fp32(n * sum v*v - (sum v)**2) * 2**(-2*fraction), exact before their one rounding."""
    v, bad, _ = _integers(x, fraction, MOMENT_LIMIT, inclusive=True)
    total = cast(v.sum(-1, dtype=namespace(x).float64), "int64")
    spread = x.shape[-1] * _sum_of_squares(v) - total * total
    return _finish(total, bad, -fraction), _finish(spread, bad, -2 * fraction)


def _sum_of_squares(v: Array) -> Array:
    """int64; |v| <= 2**18 and at most 8192 of them: every partial sum is below 2**49, exact in binary64."""
    wide = cast(v, "float64")
    return cast((wide * wide).sum(-1), "int64")


def _integers(x: Array, fraction: int, limit: float, inclusive: bool = False) -> tuple[Array, Array, float]:
    """rne(x * 2**fraction) as binary32 integers, which rows hold one beyond ``limit``, NaN or an infinity, and the
    largest magnitude of the others; those rows are 0 where they are beyond."""
    xp = namespace(x)
    with np.errstate(all="ignore"):
        v = xp.round(x * fp32(2.0**fraction)) if fraction else xp.round(x)
        low, high = extent(v)
        largest = max(-low, high)
        if largest < limit or (inclusive and largest == limit):
            return v, xp.zeros(x.shape[:-1], dtype=xp.bool), largest
        inside = abs(v) <= limit if inclusive else abs(v) < limit
        return _binary32(xp.where(inside, v, 0.0)), ~inside.all(-1), limit


def _finish(total: Array, bad: Array, exponent: int) -> Array:
    """An exact integer, rounded once to binary32, times a power of two in two steps, of which only the last rounds."""
    xp = namespace(total)
    y = cast(total, "float32")
    if exponent:
        first, second = powers(exponent)
        with np.errstate(all="ignore"):
            y = (y * first) * second
    return _binary32(xp.where(bad, NAN, y))


def powers(exponent: int) -> tuple[float, float]:
    """Two powers of two, both binary32, whose product is 2**exponent."""
    exponent = min(exponent, 254)  # 2**127 is a binary32, and 1 * 2**128 is infinite already
    return fp32(2.0 ** (exponent // 2)), fp32(2.0 ** (exponent - exponent // 2))


def _binary32(x: Array) -> Array:
    return cast(x, "float32")


def _by_blocks(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function of rows, some of them at a time on the CPU: all scores of an encoder are gigabytes between steps."""

    @wraps(function)
    def wrapper(x: Array) -> Array:
        if prod(x.shape) <= ROWS_BLOCK or (is_torch(x) and x.device.type != "cpu"):
            return function(x)
        xp, rows, step = namespace(x), x.reshape(-1, x.shape[-1]), max(1, ROWS_BLOCK // x.shape[-1])
        out = xp.empty(rows.shape, dtype=xp.float32)
        for start in range(0, len(rows), step):
            out[start : start + step] = function(rows[start : start + step])
        return out.reshape(x.shape)

    return wrapper


@_by_blocks
def softmax(x: Array) -> Array:
    """Softmax of every row: exp2((x - max) * log2 e) over its sum; a row with NaN or +inf, or of -inf alone, is NaN."""
    with np.errstate(all="ignore"):
        e = exp2((x - row_max(x)[..., None]) * LOG2_E)
        return e * reciprocal(row_sum(e, SOFTMAX_FRACTION))[..., None]


def layer_norm(
    x: Array, gamma: Array | None, beta: Array | None, eps: float, scale: float | None = None
) -> Array:
    """(x - mean) / sqrt(variance + eps) of every row, times gamma, plus beta.

    With ``scale`` x holds exact integers q - zero of that step; else x is aligned to 18 bits of its largest exponent.
    """
    v, epsilon = _units(x, eps, scale)
    total, spread = row_moments(v)
    n = x.shape[-1]
    mean = total * fp32(1.0 / n)
    inverse = rsqrt(spread * fp32(1.0 / n**2) + epsilon)
    return _affine((v - mean[..., None]) * inverse[..., None], gamma, beta)


def rms_norm(x: Array, gamma: Array | None, eps: float, scale: float | None = None) -> Array:
    """x / sqrt(mean of squares + eps) of every row, times gamma; ``scale`` as for :func:`layer_norm`."""
    v, epsilon = _units(x, eps, scale)
    inverse = rsqrt(row_squares(v) * fp32(1.0 / x.shape[-1]) + epsilon)
    return _affine(v * inverse[..., None], gamma, None)


def _units(x: Array, eps: float, scale: float | None) -> tuple[Array, Array | float]:
    """x in the units of its integer sums, and eps in those of their squares."""
    if scale is not None:
        return cast(x, "float32"), fp32(eps / (scale * scale))
    with np.errstate(all="ignore"):
        r = align(row_max(abs(x)), MOMENT_BITS)
        return x * r[..., None], (r * r) * fp32(eps)


def _affine(y: Array, gamma: Array | None, beta: Array | None) -> Array:
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


def sum_rows(x: Array, scale: float | None = None) -> Array:
    """Sum of every row; with ``scale`` x holds exact integers q - zero, else it is aligned to 40 bits first."""
    if scale is not None:
        return row_sum(cast(x, "float32")) * fp32(scale)
    with np.errstate(all="ignore"):
        r = align(row_max(abs(x)), SUM_BITS)
        return row_sum(x * r[..., None]) / r


def mean_rows(x: Array, scale: float | None = None) -> Array:
    """``sum_rows`` times fp32(1/n)."""
    return sum_rows(x, scale) * fp32(1.0 / x.shape[-1])
