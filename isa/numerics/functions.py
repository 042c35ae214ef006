"""Functions as fixed sequences of binary32 multiplies and adds, with integer operations on the exponent bits.

Each step rounds once, so numpy, torch and compiled loops over single elements (``runtime/loops``) agree to the bit.
Constants are binary32, which no arithmetic widens. ``MAX_ULP`` states the largest distance from the float64
value in units of the last place of the binary32 result, ``STEPS`` the number of multiplies and adds that the VCU
spends per element; tests measure both. Coefficients are weighted minimax fits, rounded to binary32 one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np

from isa.numerics.namespace import INF, NAN, Array, bits_of, cast, clip, float_of, is_torch, namespace, rint, where

F32 = np.float32
SIGN = -(2**31)
MANTISSA = (1 << 23) - 1
EXPONENT_BIAS = 127
ZERO, HALF, ONE, TWO = F32(0), F32(0.5), F32(1), F32(2)
TINY, LIFT = F32(2.0**-126), F32(2.0**24)
LOG2_E = F32(1.4426950408889634)
LN2 = F32(0.6931471805599453)
LN2_HIGH = F32(0.693359375)  # 10 bits, so that n * LN2_HIGH is exact for every |n| < 2^14
LN2_LOW = F32(0.6931471805599453 - 0.693359375)


def _binary32(*coefficients: float) -> tuple[np.float32, ...]:
    return tuple(map(F32, coefficients))


EXP2_POLY = _binary32(0.6931471824645996, 0.24022643268108368, 0.055503588169813156, 0.009619002230465412,
                      0.0013391304528340697, 0.00015196693129837513)  # fmt: skip
EXP_POLY = _binary32(0.4999999403953552, 0.16666515171527863, 0.041668228805065155, 0.008369382470846176,
                     0.0013825432397425175)  # fmt: skip
LOG2_POLY = _binary32(1.4426950216293335, -0.7213475108146667, 0.4809006452560425, -0.36067673563957214,
                      0.2884736657142639, -0.24031083285808563, 0.20644241571426392, -0.18183773756027222,
                      0.1663757711648941, -0.15211570262908936, 0.08858116716146469)  # fmt: skip
TANH_POLY = _binary32(-0.3333328068256378, 0.13331416249275208, -0.05373793840408325, 0.02063411846756935,
                      -0.005700091831386089)  # fmt: skip
ERF_POLY = _binary32(0.12837916612625122, -0.37612634897232056, 0.11283744126558304, -0.026863619685173035,
                     0.005216643214225769, -0.0008427079301327467, 0.00010888573888223818,
                     -8.66678328748094e-06)  # fmt: skip
ERFC_POLY = _binary32(0.0002172896492993459, -1.6293535232543945, -0.9141829609870911, -0.1556064784526825,
                      0.035742100328207016, -0.005762338638305664, 0.0005466091679409146, -1.633184729143977e-05,
                      -1.062485466718499e-06)  # fmt: skip


BLOCK = 1 << 17
"""Elements computed at a time, so that what lies between the steps stays in the caches."""


def elementwise(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Block by block, of torch tensors on the CPU by numpy, whose calls cost less and whose bits are the same.

    Overflow and NaN are defined results here, not events to warn of.
    """

    @wraps(function)
    def wrapper(x: Array) -> Array:
        with np.errstate(all="ignore"):
            if is_torch(x) and x.device.type == "cpu":
                return namespace(x).from_numpy(np.asarray(_blocks(function, x.detach().numpy())))
            return _blocks(function, x) if isinstance(x, np.ndarray) else function(x)

    return wrapper


def _blocks(function: Callable[[Array], Array], x: Array) -> Array:
    if x.size <= BLOCK:
        return function(x)
    flat = x.reshape(-1)
    out: Array = np.empty(x.size, x.dtype)
    for start in range(0, x.size, BLOCK):
        out[start : start + BLOCK] = function(flat[start : start + BLOCK])
    return out.reshape(x.shape)


def extent(x: Array) -> tuple[float, float]:
    """Least and largest element, both NaN where one is NaN; (0, 0) of an empty array."""
    if 0 in x.shape:
        return 0.0, 0.0
    low, high = namespace(x).aminmax(x) if is_torch(x) else (x.min(), x.max())
    return float(low), float(high)


def is_within(x: Array, low: float, high: float) -> bool:
    """Whether no element is NaN, below ``low`` or above ``high``."""
    least, largest = extent(x)
    return least >= low and largest <= high


def is_number(x: Array) -> bool:
    """Whether no element is NaN; infinities of both signs may give False as well."""
    total = float(x.sum())
    return total == total


def _poly(x: Array, coefficients: tuple[np.float32, ...]) -> Array:
    """Horner: len - 1 multiplies and as many adds."""
    y = x * coefficients[-1]
    y += coefficients[-2]
    for c in coefficients[-3::-1]:
        y *= x
        y += c
    return y


def _power(n: Array) -> Array:
    """2**n for int32 -126 <= n <= 127."""
    return float_of((n + EXPONENT_BIAS) << 23)


def _scale(x: Array, n: Array) -> Array:
    """x * 2**n in two multiplies, so that only the last can round (to a denormal) or overflow."""
    half = n >> 1
    return (x * _power(half)) * _power(n - half)


def _finite(x: Array, lo: np.float32, hi: np.float32) -> Array:
    """x within [lo, hi], NaN replaced by lo: a value whose conversion to int32 is defined."""
    if is_number(x):
        return clip(x, lo, hi)
    return where(x > lo, where(x < hi, x, hi), lo)


def split(x: Array) -> tuple[Array, Array]:
    """|x| = m * 2**e with m in [1, 2), for any finite x but 0; one multiply brings denormals into range."""
    small = abs(x) < TINY
    bits = bits_of(where(small, x * LIFT, x))
    exponent = ((bits >> 23) & 255) - EXPONENT_BIAS - cast(small, "int32") * 24
    return float_of((bits & MANTISSA) | (EXPONENT_BIAS << 23)), exponent


def _copysign(magnitude: Array, x: Array) -> Array:
    return float_of(bits_of(magnitude) | (bits_of(x) & SIGN))


def _exp_minus(a: Array) -> Array:
    """e**-a for a >= 0: r = -a - n*ln2 in two exact parts, then 1 + (r + r*r*q)."""
    a = _finite(a, ZERO, F32(105))
    n = rint(a * -LOG2_E)
    r = (-a - n * LN2_HIGH) - n * LN2_LOW
    return _scale((r * r * _poly(r, EXP_POLY) + r) + ONE, cast(n, "int32"))


def _newton_reciprocal(m: Array) -> Array:
    """1/m for m in [1, 2]: a line within 1/17, then three Newton steps."""
    r = m * F32(-8 / 17) + F32(24 / 17)
    for _ in range(3):
        r = r + r * (ONE - m * r)
    return r


@elementwise
def exp2(x: Array) -> Array:
    """2**x."""
    if is_within(x, -125, 126):  # no NaN, and 2**n scales by its bits alone: [0.7, 1.42) stays normal
        n = rint(x)
        f = x - n
        y = _poly(f, EXP2_POLY)
        y *= f
        y += ONE
        return float_of(bits_of(y) + (cast(n, "int32") << 23))
    t = _finite(x, F32(-151), F32(129))
    n = rint(t)
    f = t - n  # exact
    y = _scale(_poly(f, EXP2_POLY) * f + ONE, cast(n, "int32"))
    return where(x != x, NAN, y)


@elementwise
def exp(x: Array) -> Array:
    """e**x: r = x - n*ln2 in two exact parts, then 1 + (r + r*r*q)."""
    a = _finite(x, F32(-105), F32(90))
    n = rint(a * LOG2_E)
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    y = _scale((r * r * _poly(r, EXP_POLY) + r) + ONE, cast(n, "int32"))
    return where(x != x, NAN, y)


@elementwise
def log(x: Array) -> Array:
    """Natural logarithm, log2(x) * fp32(ln 2); 0 gives -inf, negative values NaN."""
    return log2(x) * LN2


@elementwise
def log2(x: Array) -> Array:
    """Base-2 logarithm; 0 gives -inf, negative values NaN."""
    m, e = split(x)
    big = m > F32(2.0**0.5)
    t = where(big, m * HALF, m) - ONE  # exact
    y = t * _poly(t, LOG2_POLY) + cast(e + cast(big, "int32"), "float32")
    y = where(x == INF, INF, where(x == ZERO, -INF, y))
    return where(x >= ZERO, y, NAN)


@elementwise
def reciprocal(x: Array) -> Array:
    """1/x, of zeros an infinity of the same sign."""
    m, e = split(x)
    y = _scale(_newton_reciprocal(m), -e)
    y = where(x == ZERO, INF, where(abs(x) == INF, ZERO, y))
    return where(x != x, NAN, _copysign(y, x))


@elementwise
def rsqrt(x: Array) -> Array:
    """1/sqrt(x); both zeros give +inf, negative values NaN."""
    m, e = split(x)
    odd = e & 1
    m = m * _power(odd)  # [1, 4)
    half = m * HALF
    y = float_of(0x5F3759DF - (bits_of(m) >> 1))
    for _ in range(2):
        y = y * (F32(1.5) - half * (y * y))
    y = y + y * (HALF - half * (y * y))
    y = y * _power(-(e >> 1))
    y = where(x == INF, ZERO, where(x == ZERO, INF, y))
    return where(x >= ZERO, y, NAN)


@elementwise
def sigmoid(x: Array) -> Array:
    """1 / (1 + e**-x)."""
    z = _exp_minus(abs(x))
    r = _newton_reciprocal(z + ONE)
    return where(x != x, NAN, where(x < ZERO, z * r, r))


@elementwise
def tanh(x: Array) -> Array:
    """Hyperbolic tangent: odd polynomial below 0.625, else 1 - 2z/(1+z) with z = e**-2|x|."""
    a = abs(x)
    b = _finite(a, ZERO, F32(40))
    u = b * b
    small = a + a * (u * _poly(u, TANH_POLY))
    z = _exp_minus(b * TWO)
    big = ONE - (z * TWO) * _newton_reciprocal(z + ONE)
    return where(x != x, NAN, _copysign(where(b < F32(0.625), small, big), x))


@elementwise
def erf(x: Array) -> Array:
    """Error function: odd polynomial below 1, else 1 - 2**p(|x|)."""
    a = _finite(abs(x), ZERO, F32(4))
    small = _poly(a * a, ERF_POLY)
    small *= a
    small += a
    t = _poly(a, ERFC_POLY)
    n = rint(t)
    t -= n  # exact
    big = _poly(t, EXP2_POLY)
    big *= t
    big += ONE
    big *= _power(cast(n, "int32"))
    y = _copysign(where(a < ONE, small, ONE - big), x)
    return y if is_number(x) else where(x != x, NAN, y)


PARTS = (_poly, _power, _scale, _finite, split, _copysign, _exp_minus, _newton_reciprocal)
"""What the functions are made of, beside those of ``namespace``: for a compiler of the functions, which may take
:func:`is_number` and :func:`is_within` to be False: they choose between ways to the same bits."""

STEPS: dict[str, int] = {
    "sigmoid": 36,
    "tanh": 51,
    "exp": 20,
    "exp2": 16,
    "log": 26,
    "log2": 25,
    "erf": 49,
    "reciprocal": 17,
    "rsqrt": 17,
}
"""Multiplies, adds and roundings per element; integer operations on exponent and sign bits run beside them."""
IEEE_STEPS: dict[str, int] = {"div": 20, "sqrt": 20}
"""Of quotients and square roots, which are correctly rounded: a Newton sequence and a final correction."""

MAX_ULP: dict[str, float] = {
    "sigmoid": 3.5,
    "tanh": 2.5,
    "exp": 1.5,
    "exp2": 1.5,
    "log": 3.5,
    "log2": 2.0,
    "erf": 2.0,
    "reciprocal": 1.5,
    "rsqrt": 2.0,
}
"""Stated accuracy: max |y - exact| / ulp(exact) over every binary32 input."""
