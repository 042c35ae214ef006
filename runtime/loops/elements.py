"""What the vector unit does to one element, beside the functions of ``isa.numerics``."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.loops.compiled import part
from runtime.loops.numerics import NAN, ZERO, bits_of, float_of, rint, where

Element = Any
"""One number, binary32 unless a docstring says otherwise."""
LOWEST, HIGHEST = np.float32(-(2.0**31)), np.float32(2147483520)
"""The least and the largest binary32 that fit int32."""


@part
def number(bits: int) -> Element:
    """The binary32 with the low 32 of ``bits``."""
    return float_of(bits)


@part
def minimum(a: Element, b: Element) -> Element:
    """IEEE 754-2019's: NaN wins, -0 is below +0, as the bits of equal numbers differ only between zeros."""
    y = where(a < b, a, where(b < a, b, float_of(bits_of(a) | bits_of(b))))
    return where((a != a) | (b != b), NAN, y)


@part
def maximum(a: Element, b: Element) -> Element:
    """IEEE 754-2019's: NaN wins, +0 is above -0."""
    y = where(a > b, a, where(b > a, b, float_of(bits_of(a) & bits_of(b))))
    return where((a != a) | (b != b), NAN, y)


@part
def quantized(y: Element, scale: Element, low: Element, high: Element, zero: Element) -> Element:
    """The int32 clamp(rne(y * scale) + zero); NaN gives ``zero``. ``low`` and ``high`` bound what zero is added to."""
    t = rint(y * scale)
    t = where(t < low, low, where(t > high, high, t))
    return np.int32(where(t != t, ZERO, t)) + zero


@part
def saturated(y: Element) -> Element:
    """The int32 nearest to y, ties to even; NaN gives 0."""
    t = rint(y)
    inside = where(t < LOWEST, LOWEST, where(t > HIGHEST, HIGHEST, t))
    return where(t > HIGHEST, np.int32(2**31 - 1), np.int32(where(t != t, ZERO, inside)))
