"""Binary32 by exact rationals: what a single rounding gives, without any floating-point arithmetic."""

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import torch

LARGEST_EXPONENT, SMALLEST = 128, -149


def binary32(value: Fraction | int) -> np.float32:
    """``value`` rounded once to nearest, ties to even; beyond the largest number an infinity."""
    value = Fraction(value)
    if value == 0:
        return np.float32(0)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - 23, SMALLEST)
    rounded = round(value / unit) * unit
    if abs(rounded) >= 1 << LARGEST_EXPONENT:
        return np.float32(math.copysign(math.inf, rounded))
    return np.float32(float(rounded))


def rational(row: Iterable[float]) -> list[Fraction] | None:
    """The numbers of a row; None where one is not finite."""
    values = [float(x) for x in row]
    return [Fraction(x) for x in values] if all(map(math.isfinite, values)) else None


def same(found: object, want: object) -> bool:
    """Equal bits, of numpy arrays or torch tensors, up to which NaN a NaN is."""
    arrays = [x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (found, want)]
    if arrays[0].dtype != arrays[1].dtype or arrays[0].shape != arrays[1].shape:
        return False
    a, b = (np.where(np.isnan(x), np.float32(np.nan), x).astype(np.float32).view(np.int32) for x in arrays)
    return bool(np.array_equal(a, b))
