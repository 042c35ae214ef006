"""Between memory and blocks of binary32: streams of every storage type and stride."""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.instructions import DType
from runtime.loops.compiled import part
from runtime.loops.elements import number, quantized, saturated
from runtime.loops.layout import ADDRESS, DTYPE, ENCODED, SCALE, STRIDE0, STRIDE1, STRIDE2, ZERO
from runtime.loops.memory import (
    Address,
    get_f32,
    get_i8,
    get_i16,
    get_i32,
    get_i64,
    put_f32,
    put_i8,
    put_i16,
    put_i32,
)
from runtime.loops.numerics import canonical

Row = Address
"""Of a row of eight int64, see :mod:`runtime.loops.layout`."""


@part
def place(stream: Row, i0: int, i1: int, start: int) -> int:
    """The byte address, in its memory, of element ``start``, an even one, of a row."""
    kind = get_i64(stream, DTYPE)
    along = start // 2 if kind == DType.I4 or kind == ENCODED else start
    row = get_i64(stream, ADDRESS) + i0 * get_i64(stream, STRIDE0) + i1 * get_i64(stream, STRIDE1)
    return row + along * get_i64(stream, STRIDE2)


@part
def take(kind: int, source: Address, step: int, zero: Any, scale: Any, out: Address, n: int) -> None:
    """out[i] = (source[i * step] - zero) * scale, ``step`` in bytes; of 4-bit codes two lie in every byte."""
    if kind == DType.I8:
        for i in range(n):
            put_f32(out, i, (np.float32(get_i8(source, i * step)) - zero) * scale)
    elif kind == DType.I32:
        step //= 4
        for i in range(n):
            put_f32(out, i, np.float32(get_i32(source, i * step)))
    elif kind == DType.F32:
        step //= 4
        for i in range(n):
            put_f32(out, i, get_f32(source, i * step))
    elif kind == DType.I16:
        step //= 2
        for i in range(n):
            put_f32(out, i, (np.float32(get_i16(source, i * step)) - zero) * scale)
    elif kind == DType.I64:
        step //= 8
        for i in range(n):
            put_f32(out, i, np.float32(get_i64(source, i * step)))
    else:
        for i in range(n // 2):
            pair = get_i8(source, i)
            put_f32(out, 2 * i, (np.float32(((pair & 15) ^ 8) - 8) - zero) * scale)
            put_f32(out, 2 * i + 1, (np.float32(pair >> 4) - zero) * scale)
        if n % 2:
            put_f32(out, n - 1, (np.float32(((get_i8(source, n // 2) & 15) ^ 8) - 8) - zero) * scale)


@part
def read(stream: Row, source: Address, rows: int, width: int, out: Address) -> None:
    """``rows`` x ``width`` elements of a stream from ``source`` on, as binary32."""
    kind, step, along = get_i64(stream, DTYPE), get_i64(stream, STRIDE1), get_i64(stream, STRIDE2)
    zero, scale = np.float32(get_i64(stream, ZERO)), number(get_i64(stream, SCALE))
    if width == 1 and kind != DType.I4:
        rows, width, along = 1, rows, step
    elif step == width * along and kind != DType.I4:
        rows, width = 1, rows * width
    for r in range(rows):
        line = out + 4 * r * width
        if along == 0:
            take(kind, source + r * step, 0, zero, scale, line, 1)
            for i in range(1, width):
                put_f32(line, i, get_f32(line, 0))
        else:
            take(kind, source + r * step, along, zero, scale, line, width)


@part
def _encode(value: Address, thresholds: Address, zero: int, codes: Address, n: int) -> None:
    """-8 + (number of ``thresholds``, rising binary32, that are <= value), as int8; NaN gives ``zero``."""
    for i in range(n):
        y, code = get_f32(value, i), -8
        for k in range(15):
            code += y >= number(get_i64(thresholds, k))
        put_i8(codes, i, zero if y != y else code)


@part
def _pack(codes: Address, target: Address, n: int) -> None:
    """int8 codes to bytes of two, the first in the low half; 0 after an odd end."""
    for i in range(n // 2):
        put_i8(target, i, (get_i8(codes, 2 * i) & 15) | (get_i8(codes, 2 * i + 1) << 4))
    if n % 2:
        put_i8(target, n // 2, get_i8(codes, n - 1) & 15)


@part
def _give(stream: Row, value: Address, target: Address, step: int, n: int, thresholds: Address, codes: Address) -> None:
    """A run of elements ``step`` bytes apart from ``target`` on; ``codes`` is room for ``n`` bytes."""
    kind, zero, scale = get_i64(stream, DTYPE), get_i64(stream, ZERO), number(get_i64(stream, SCALE))
    if kind == DType.I8:
        low, high = np.float32(-128 - zero), np.float32(127 - zero)
        for i in range(n):
            put_i8(target, i * step, quantized(get_f32(value, i), scale, low, high, zero))
    elif kind == DType.F32:
        step //= 4
        for i in range(n):
            put_f32(target, i * step, canonical(get_f32(value, i)))
    elif kind == DType.I16:
        low, high = np.float32(-(2**15) - zero), np.float32(2**15 - 1 - zero)
        step //= 2
        for i in range(n):
            put_i16(target, i * step, quantized(get_f32(value, i), scale, low, high, zero))
    elif kind == DType.I32:
        step //= 4
        for i in range(n):
            put_i32(target, i * step, saturated(get_f32(value, i)))
    elif kind == ENCODED:
        _encode(value, thresholds, zero, codes, n)
        _pack(codes, target, n)
    else:
        low, high = np.float32(-8 - zero), np.float32(7 - zero)
        for i in range(n):
            put_i8(codes, i, quantized(get_f32(value, i), scale, low, high, zero))
        _pack(codes, target, n)


@part
def write(
    stream: Row, value: Address, target: Address, rows: int, width: int, thresholds: Address, codes: Address
) -> None:
    """``rows`` x ``width`` binary32 to a stream from ``target`` on."""
    kind, step, along = get_i64(stream, DTYPE), get_i64(stream, STRIDE1), get_i64(stream, STRIDE2)
    if kind != DType.I4 and kind != ENCODED:
        if width == 1:
            rows, width, along = 1, rows, step
        elif step == width * along:
            rows, width = 1, rows * width
    for r in range(rows):
        _give(stream, value + 4 * r * width, target + r * step, along, width, thresholds, codes)
