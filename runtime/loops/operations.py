"""One operation of a vector program on a block of elements."""

from __future__ import annotations

import numpy as np

from isa.instructions import Func
from runtime.loops.compiled import part
from runtime.loops.elements import maximum, minimum
from runtime.loops.memory import Address, get_f32, put_f32
from runtime.loops.numerics import (
    NAN,
    ONE,
    ZERO,
    erf,
    exp,
    exp2,
    log,
    log2,
    power_of_alignment,
    reciprocal,
    rint,
    rsqrt,
    sigmoid,
    tanh,
    where,
)


@part
def operate(func: int, a: Address, b: Address, old: Address, out: Address, n: int) -> None:
    """out = func(a, b), of ``Func`` number ``func``, over blocks of ``n`` binary32 of which ``out`` overlaps no other.

    SELECT alone reads ``old``, what the result's register held.
    """
    if func == Func.MUL:
        for i in range(n):
            put_f32(out, i, get_f32(a, i) * get_f32(b, i))
    elif func == Func.ADD:
        for i in range(n):
            put_f32(out, i, get_f32(a, i) + get_f32(b, i))
    elif func == Func.SUB:
        for i in range(n):
            put_f32(out, i, get_f32(a, i) - get_f32(b, i))
    elif func == Func.DIV:
        for i in range(n):
            put_f32(out, i, get_f32(a, i) / get_f32(b, i))
    elif func == Func.MIN:
        for i in range(n):
            put_f32(out, i, minimum(get_f32(a, i), get_f32(b, i)))
    elif func == Func.MAX:
        for i in range(n):
            put_f32(out, i, maximum(get_f32(a, i), get_f32(b, i)))
    elif func == Func.GE:
        for i in range(n):
            put_f32(out, i, where(get_f32(a, i) >= get_f32(b, i), ONE, ZERO))
    elif func == Func.GT:
        for i in range(n):
            put_f32(out, i, where(get_f32(a, i) > get_f32(b, i), ONE, ZERO))
    elif func == Func.EQ:
        for i in range(n):
            put_f32(out, i, where(get_f32(a, i) == get_f32(b, i), ONE, ZERO))
    elif func == Func.ALIGN:
        for i in range(n):
            put_f32(out, i, power_of_alignment(get_f32(a, i), np.int32(get_f32(b, i))))
    elif func == Func.COPY:
        for i in range(n):
            put_f32(out, i, get_f32(a, i))
    elif func == Func.RINT:
        for i in range(n):
            put_f32(out, i, rint(get_f32(a, i)))
    elif func == Func.FLOOR:
        for i in range(n):
            put_f32(out, i, np.floor(get_f32(a, i)))
    elif func == Func.ABS:
        for i in range(n):
            put_f32(out, i, abs(get_f32(a, i)))
    elif func == Func.SQRT:
        for i in range(n):
            put_f32(out, i, where(get_f32(a, i) >= ZERO, np.sqrt(get_f32(a, i)), NAN))
    elif func == Func.SIGMOID:
        for i in range(n):
            put_f32(out, i, sigmoid(get_f32(a, i)))
    elif func == Func.TANH:
        for i in range(n):
            put_f32(out, i, tanh(get_f32(a, i)))
    elif func == Func.EXP2:
        for i in range(n):
            put_f32(out, i, exp2(get_f32(a, i)))
    elif func == Func.LOG2:
        for i in range(n):
            put_f32(out, i, log2(get_f32(a, i)))
    elif func == Func.ERF:
        for i in range(n):
            put_f32(out, i, erf(get_f32(a, i)))
    elif func == Func.RECIPROCAL:
        for i in range(n):
            put_f32(out, i, reciprocal(get_f32(a, i)))
    elif func == Func.RSQRT:
        for i in range(n):
            put_f32(out, i, rsqrt(get_f32(a, i)))
    elif func == Func.EXP:
        for i in range(n):
            put_f32(out, i, exp(get_f32(a, i)))
    elif func == Func.LOG:
        for i in range(n):
            put_f32(out, i, log(get_f32(a, i)))
    else:
        for i in range(n):
            put_f32(out, i, where(get_f32(a, i) != ZERO, get_f32(b, i), get_f32(old, i)))
