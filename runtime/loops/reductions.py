"""Reductions of rows that arrive in pieces, each kept in a few integers: their order changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.instructions import RowReduce
from isa.numerics.rows import MOMENT_LIMIT, SUM_LIMIT
from runtime.loops.compiled import part
from runtime.loops.elements import number
from runtime.loops.layout import KIND, POWER, SQUARE_FACTORS, SUM_FACTORS
from runtime.loops.memory import Address, get_f32, get_i64, put_f32, put_i64
from runtime.loops.numerics import NAN, ZERO, bits_of, canonical, float_of, rint, where
from runtime.loops.streams import Row

TOTAL, SECOND, BEYOND = range(3)
"""Kept of a row, int64 each: sum, or the best in the order of :func:`_order`; sum of squares, or the index of the best;
how many elements are out of range."""
MOST, WIDEST = np.float32(SUM_LIMIT), np.float32(MOMENT_LIMIT)
BIAS = np.float64(1.5 * 2.0**52)
BIAS_BITS = int(BIAS.view(np.int64))
"""The bits of ``BIAS`` plus a whole number below 2^51 are its bits plus that number."""
NAN_ORDER = 0x7FC00000
LOWEST = -(2**31)


@part
def _order(x: Any) -> Any:
    """int32 that rises with x, -0 below +0; a NaN is above all."""
    bits = bits_of(x)
    return np.int32(where(x != x, NAN_ORDER, bits ^ ((bits >> 31) & 0x7FFFFFFF)))


@part
def begin(reduction: Row, kept: Address, rows: int) -> None:
    """Before the first piece of some rows."""
    kind = get_i64(reduction, KIND)
    best = kind == RowReduce.MAX or kind == RowReduce.MIN or kind == RowReduce.ARGMAX
    for r in range(rows):
        put_i64(kept, 3 * r + TOTAL, LOWEST if best else 0)
        put_i64(kept, 3 * r + SECOND, 0)
        put_i64(kept, 3 * r + BEYOND, 0)


@part
def _extreme(values: Address, n: int, sign: Any, kept: Address) -> None:
    best = np.int32(get_i64(kept, TOTAL))
    for i in range(n):
        best = max(best, _order(get_f32(values, i) * sign))
    put_i64(kept, TOTAL, best)


@part
def _first(values: Address, n: int, start: int, kept: Address) -> None:
    for i in range(n):
        order = _order(get_f32(values, i) + ZERO)  # both zeros are equal
        if order > get_i64(kept, TOTAL):
            put_i64(kept, TOTAL, order)
            put_i64(kept, SECOND, start + i)


@part
def _sum(values: Address, n: int, power: Any, kept: Address) -> None:
    total, beyond = get_i64(kept, TOTAL), get_i64(kept, BEYOND)
    for i in range(n):
        v = rint(get_f32(values, i) * power)
        inside = abs(v) < MOST
        total += np.float64(np.float64(where(inside, v, ZERO)) + BIAS).view(np.int64) - BIAS_BITS
        beyond += where(inside, 0, 1)
    put_i64(kept, TOTAL, total)
    put_i64(kept, BEYOND, beyond)


@part
def _moments(values: Address, n: int, power: Any, kept: Address) -> None:
    total, squares, beyond = get_i64(kept, TOTAL), get_i64(kept, SECOND), get_i64(kept, BEYOND)
    for i in range(n):
        v = rint(get_f32(values, i) * power)
        inside = abs(v) <= WIDEST
        integer = np.int64(np.int32(where(inside, v, ZERO)))
        total += integer
        squares += integer * integer
        beyond += where(inside, 0, 1)
    put_i64(kept, TOTAL, total)
    put_i64(kept, SECOND, squares)
    put_i64(kept, BEYOND, beyond)


@part
def gather(reduction: Row, values: Address, n: int, start: int, kept: Address) -> None:
    """A piece of a row: ``n`` elements from number ``start`` on."""
    kind, power = get_i64(reduction, KIND), number(get_i64(reduction, POWER))
    if kind == RowReduce.SUM:
        _sum(values, n, power, kept)
    elif kind == RowReduce.MAX:
        _extreme(values, n, np.float32(1), kept)
    elif kind == RowReduce.MIN:
        _extreme(values, n, np.float32(-1), kept)
    elif kind == RowReduce.ARGMAX:
        _first(values, n, start, kept)
    else:
        _moments(values, n, power, kept)


@part
def _scaled(total: int, beyond: int, reduction: Row, factors: int) -> Any:
    """An integer, rounded once to binary32, times two powers of two, of which only the last rounds."""
    first, second = number(get_i64(reduction, factors)), number(get_i64(reduction, factors + 1))
    return where(beyond > 0, NAN, np.float32(total) * first * second)


@part
def finish(reduction: Row, kept: Address, n: int, out: Address) -> None:
    """The result of a row of ``n`` elements, one binary32 or two."""
    kind = get_i64(reduction, KIND)
    total, squares, beyond = get_i64(kept, TOTAL), get_i64(kept, SECOND), get_i64(kept, BEYOND)
    if kind == RowReduce.SUM:
        put_f32(out, 0, _scaled(total, beyond, reduction, SUM_FACTORS))
    elif kind == RowReduce.MAX or kind == RowReduce.MIN:
        best = float_of(total ^ ((total >> 31) & 0x7FFFFFFF))
        put_f32(out, 0, canonical(best if kind == RowReduce.MAX else -best))
    elif kind == RowReduce.ARGMAX:
        put_f32(out, 0, np.float32(squares))
    elif kind == RowReduce.SQUARES:
        put_f32(out, 0, _scaled(squares, beyond, reduction, SQUARE_FACTORS))
    else:
        put_f32(out, 0, _scaled(total, beyond, reduction, SUM_FACTORS))
        put_f32(out, 1, _scaled(n * squares - total * total, beyond, reduction, SQUARE_FACTORS))
