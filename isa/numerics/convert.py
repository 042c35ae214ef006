"""Between int8 codes, int32 accumulators and binary32: the only places where a number changes its type."""

from __future__ import annotations

import numpy as np

from isa.numerics.namespace import Array, cast, fp32, is_torch, namespace

INT8_MIN, INT8_MAX = -128, 127


def inverse_scale(scale: float) -> float:
    """fp32(1/s): the binary32 of the double quotient, which ``quantize`` multiplies by."""
    return fp32(1.0 / scale)


def product_scale(sx: float, sw: Array) -> Array:
    """fp32(sx) * fp32(sw), rounded once: accumulator unit of conv2d, linear and matmul.

    ``sw`` is one double (the result is a Python float) or an array of one per output channel (binary32 array).
    """
    if isinstance(sw, float | int):
        return float(np.float32(sx) * np.float32(sw))
    return cast(sw, "float32") * fp32(sx)


def dequantize(q: Array, scale: float, zero: int, out: Array | None = None) -> Array:
    """fp32(q - zero) * fp32(scale) for int8 (or wider) codes ``q``; ``out`` may be a binary32 array of q's shape."""
    xp = namespace(q)
    if q.dtype in (xp.int8, xp.uint8):
        y = cast(q, "float32")  # exact, and so is the subtraction below
        y = xp.subtract(y, float(zero), out=y)
    else:
        y = cast(cast(q, "int32") - zero, "float32")
    return xp.multiply(y, fp32(scale), out=y if out is None else out)


def quantize(
    y: Array,
    inverse: float,
    zero: int,
    lo: int = INT8_MIN,
    hi: int = INT8_MAX,
    dtype: str = "int8",
    scratch: Array | None = None,
) -> Array:
    """clamp(rne(y * inverse) + zero, lo, hi) as ``dtype``; NaN gives ``zero``, infinities saturate.

    ``inverse`` is ``inverse_scale(scale)``. ``scratch`` is a binary32 array of y's shape (may be y itself) that
    the call overwrites instead of allocating one.
    """
    xp = namespace(y)
    if is_torch(y):
        # Clamped before the zero point is added, which is the same and keeps every step exact but the first.
        t = xp.mul(y, inverse, out=scratch).round_().clamp_(lo - zero, hi - zero)
        if bool(t.sum().isnan()):  # what is clamped has a finite sum
            t.nan_to_num_(nan=0.0)
        return (t.add_(float(zero)) if zero else t).to(getattr(xp, dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        t = np.multiply(y, np.float32(inverse), out=scratch)
    if t.ndim == 0:
        t = np.asarray(t)
    np.rint(t, out=t)
    np.add(t, np.float32(zero), out=t)
    np.clip(t, np.float32(lo), np.float32(hi), out=t)
    np.nan_to_num(t, copy=False, nan=float(zero))
    return t.astype(dtype)


def accumulate_to_float(acc: Array, scale: Array, bias: Array | None = None) -> Array:
    """fp32(acc) * scale, then + bias: int32 accumulators [..., C] to binary32, per channel on the last axis.

    ``scale`` is a float or binary32 [C] (see ``product_scale``), ``bias`` binary32 [C] or None. An ``acc`` that
    already is binary32 (exact integers) is overwritten.
    """
    xp = namespace(acc)
    y = cast(acc, "float32")
    y = xp.multiply(y, scale, out=y)
    return y if bias is None else xp.add(y, bias, out=y)


def sum_to_mean(total: Array, scale: float, count: int) -> Array:
    """(fp32(total) * fp32(scale)) * fp32(1/count): exact integer sums of q - zero to a binary32 mean.

    A ``total`` that already is binary32 is overwritten.
    """
    xp = namespace(total)
    y = cast(total, "float32")
    y = xp.multiply(y, fp32(scale), out=y)
    return xp.multiply(y, fp32(1.0 / count), out=y)
