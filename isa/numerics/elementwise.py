"""Elementwise binary32 operations of one or a few roundings; ``out`` may be the input itself."""

from __future__ import annotations

from isa.numerics.namespace import Array, fp32, is_torch, namespace

SIXTH = fp32(1.0 / 6.0)


def relu(x: Array, out: Array | None = None) -> Array:
    """max(x, 0); NaN stays NaN."""
    xp = namespace(x)
    return xp.clamp_min(x, 0, out=out) if is_torch(x) else xp.maximum(x, xp.float32(0), out=out)


def clamp(x: Array, lo: float, hi: float, out: Array | None = None) -> Array:
    """min(max(x, lo), hi) with binary32 bounds; NaN stays NaN."""
    xp = namespace(x)
    lo, hi = fp32(lo), fp32(hi)
    if is_torch(x):
        return xp.clamp(x, lo, hi, out=out)
    return xp.minimum(xp.maximum(x, xp.float32(lo), out=out), xp.float32(hi), out=out)


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
