"""One source for numpy arrays and torch tensors: take the library from the argument, never import it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor; binary32 unless a docstring says otherwise."""

NAN = np.float32("nan")
INF = np.float32("inf")


def namespace(x: Array) -> Any:
    """The array library of ``x``: the ``numpy`` or the ``torch`` module."""
    return sys.modules[type(x).__module__.split(".")[0]]


def is_torch(x: Array) -> bool:
    """Whether ``x`` is a torch tensor."""
    return type(x).__module__.startswith("torch")


def cast(x: Array, dtype: str) -> Array:
    """``x`` converted to the type called ``dtype`` (``"int32"``, ``"float32"``, ...); int to float rounds to even."""
    xp = namespace(x)
    return x.to(getattr(xp, dtype)) if is_torch(x) else np.asarray(x).astype(dtype, copy=False)


def where(condition: Array, a: Array, b: Array) -> Array:
    """``a`` where ``condition`` holds, else ``b``."""
    return namespace(condition).where(condition, a, b)


def clip(x: Array, lo: Array, hi: Array) -> Array:
    """min(max(x, lo), hi)."""
    return namespace(x).clip(x, lo, hi)


def rint(x: Array) -> Array:
    """``x`` rounded to the nearest integer, ties to even."""
    return namespace(x).round(x)


def bits_of(x: Array) -> Array:
    """The bits of a binary32 array as int32."""
    return x.view(namespace(x).int32)


def float_of(bits: Array) -> Array:
    """The binary32 array whose bits are the int32 array ``bits``."""
    return bits.view(namespace(bits).float32)


def fp32(value: float) -> float:
    """``value`` rounded once to binary32, as a Python float."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))
