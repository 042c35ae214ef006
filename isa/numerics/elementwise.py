"""Elementwise binary32 operations of one or a few roundings; ``out`` may be the input itself."""

from __future__ import annotations

import numpy as np

from isa.numerics.functions import erf, sigmoid, tanh
from isa.numerics.namespace import NAN, Array, fp32, is_torch, namespace, where

SIXTH = fp32(1.0 / 6.0)
SQRT_HALF = fp32(0.5**0.5)
SQRT_2_PI = fp32((2.0 / 3.141592653589793) ** 0.5)
CUBIC = fp32(0.044715)


def relu(x: Array, out: Array | None = None) -> Array:
    """max(x, 0), +0 of -0; NaN stays NaN."""
    xp = namespace(x)
    y = xp.clamp_min(x, 0, out=out) if is_torch(x) else xp.maximum(x, xp.float32(0), out=out)
    return _positive_zero(y, out)


def clamp(x: Array, lo: float, hi: float, out: Array | None = None) -> Array:
    """min(max(x, lo), hi) with binary32 bounds, of which a zero is +0; NaN stays NaN."""
    xp = namespace(x)
    lo, hi = fp32(lo) + 0.0, fp32(hi) + 0.0
    if is_torch(x):
        y = xp.clamp(x, lo, hi, out=out)
    else:
        y = xp.minimum(xp.maximum(x, xp.float32(lo), out=out), xp.float32(hi), out=out)
    return _positive_zero(y, out) if lo == 0 else y


def _positive_zero(y: Array, out: Array | None) -> Array:
    """+0 for -0: libraries give either one as the maximum of both."""
    return namespace(y).add(y, 0.0, out=out)


def maximum(a: Array, b: Array) -> Array:
    """IEEE 754-2019's: NaN wins, +0 is above -0."""
    with np.errstate(all="ignore"):
        return where((a == 0) & (b == 0), a + b, namespace(a).maximum(a, b))


def minimum(a: Array, b: Array) -> Array:
    """IEEE 754-2019's: NaN wins, -0 is below +0."""
    return -maximum(-a, -b)


def hardsigmoid(x: Array) -> Array:
    """min(max(x + 3, 0), 6) * fp32(1/6)."""
    xp = namespace(x)
    t = clamp(xp.add(x, 3.0), 0.0, 6.0)
    return xp.multiply(t, SIXTH)


def hardswish(x: Array) -> Array:
    """(x * min(max(x + 3, 0), 6)) * fp32(1/6)."""
    xp = namespace(x)
    t = clamp(xp.add(x, 3.0), 0.0, 6.0)
    return xp.multiply(xp.multiply(x, t), SIXTH)


def canonical(x: Array) -> Array:
    """``x`` with the one NaN, 0x7fc00000, for every NaN."""
    return where(x == x, x, NAN)


def sqrt(x: Array) -> Array:
    """IEEE square root; NaN of negative values. By numpy: torch's of large arrays is not always rounded correctly."""
    with np.errstate(all="ignore"):
        found = np.asarray(x)
        y = np.where(found >= 0, np.sqrt(found), NAN)
    return namespace(x).from_numpy(np.asarray(y)) if is_torch(x) else y


def div(a: Array, b: Array) -> Array:
    """IEEE quotient."""
    with np.errstate(all="ignore"):
        return a / b


def gelu(x: Array) -> Array:
    """(x * 0.5) * (erf(x * fp32(sqrt 1/2)) + 1)."""
    return (x * 0.5) * (erf(x * SQRT_HALF) + 1.0)


def gelu_tanh(x: Array) -> Array:
    """(x * 0.5) * (tanh((x + x*x*x * 0.044715) * sqrt(2/pi)) + 1), constants rounded to binary32."""
    with np.errstate(all="ignore"):
        inner = (x + ((x * x) * x) * CUBIC) * SQRT_2_PI
    return (x * 0.5) * (tanh(inner) + 1.0)


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    with np.errstate(all="ignore"):
        return x * sigmoid(x)
