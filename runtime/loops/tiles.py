"""What lies in front of stream A: interpolation and window reductions, into a dense binary32 tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from isa.instructions import DType
from runtime.loops.compiled import loop, part
from runtime.loops.elements import number
from runtime.loops.layout import ADDRESS, DTYPE, STRIDE0, STRIDE1, STRIDE2, ZERO
from runtime.loops.memory import Address, get_f32, get_i8, get_i16, get_i32, get_i64, put_f32, put_i32
from runtime.loops.streams import Row, read


@part
def _between(first: Address, second: Address, t: Any, out: Address, n: int) -> None:
    """out = first + (second - first) * t, but first itself where t is negative."""
    if t < np.float32(0):
        for i in range(n):
            put_f32(out, i, get_f32(first, i))
    else:
        for i in range(n):
            put_f32(out, i, get_f32(first, i) + (get_f32(second, i) - get_f32(first, i)) * t)


@loop
def interpolate(
    stream: Row,
    memory: Address,
    size: tuple[int, int],
    shape: tuple[int, int, int],
    rows: Address,
    columns: Address,
    scale: int,
    room: Address,
    out: Address,
) -> None:
    """``out`` [*shape]: the tile of ``size`` rows and columns in a stream, between places, times ``scale`` (bits).

    ``rows`` and ``columns``: int64 i0, i1 and bits of t per output; a negative t takes i0 alone. ``room`` has binary32
    for a row of the tile and, behind it, for all of its rows, interpolated along columns.
    """
    n0, n1, n2 = shape
    row_bytes, lines, factor = 4 * n1 * n2, room + 4 * size[1] * n2, number(scale)
    for row in range(size[0]):
        read(stream, memory + get_i64(stream, ADDRESS) + row * get_i64(stream, STRIDE0), size[1], n2, room)
        for j in range(n1):
            first, second = room + 4 * n2 * get_i64(columns, j), room + 4 * n2 * get_i64(columns, n1 + j)
            line = lines + row * row_bytes + 4 * n2 * j
            _between(first, second, number(get_i64(columns, 2 * n1 + j)), line, n2)
    for i in range(n0):
        first, second = lines + row_bytes * get_i64(rows, i), lines + row_bytes * get_i64(rows, n0 + i)
        line = out + i * row_bytes
        _between(first, second, number(get_i64(rows, 2 * n0 + i)), line, n1 * n2)
        for k in range(n1 * n2):
            put_f32(line, k, get_f32(line, k) * factor)


@part
def _tap(kind: int, codes: Address, step: int, maxima: bool, zero: int, total: Address, n: int) -> None:
    if kind == DType.I16:
        for c in range(n):
            put_i32(total, c, max(get_i32(total, c), np.int32(get_i16(codes, c * step // 2))))
    elif maxima:
        for c in range(n):
            put_i32(total, c, max(get_i32(total, c), np.int32(get_i8(codes, c * step))))
    else:
        for c in range(n):
            put_i32(total, c, get_i32(total, c) + get_i8(codes, c * step) - zero)


@loop
def reduce_window(
    stream: Row,
    memory: Address,
    size: tuple[int, int],
    shape: tuple[int, int, int],
    window: tuple[int, int, int, int, int, int, int, int],
    maxima: bool,
    scale: int,
    room: Address,
    out: Address,
) -> None:
    """``out`` [*shape]: maxima or sums of q - zero over taps of a window on a tile of ``size``, times ``scale`` (bits).

    ``window``: kernel, stride, dilation, padding (each h, w). Without a tap a maximum is the lowest code. ``room`` has
    int32 for the channels.
    """
    kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left = window
    kind, zero, n2 = get_i64(stream, DTYPE), get_i64(stream, ZERO), shape[2]
    start = memory + get_i64(stream, ADDRESS)
    lowest = (-(2**15) if kind == DType.I16 else -128) if maxima else 0
    for y in range(shape[0]):
        for x in range(shape[1]):
            for c in range(n2):
                put_i32(room, c, lowest)
            for i in range(kernel_h):
                row = y * stride_h + i * dilation_h - top
                for j in range(kernel_w):
                    column = x * stride_w + j * dilation_w - left
                    if 0 <= row < size[0] and 0 <= column < size[1]:
                        at = row * get_i64(stream, STRIDE0) + column * get_i64(stream, STRIDE1)
                        _tap(kind, start + at, get_i64(stream, STRIDE2), maxima, zero, room, n2)
            line, less = out + 4 * n2 * (y * shape[1] + x), np.float32(zero if maxima else 0)
            for c in range(n2):
                put_f32(line, c, (np.float32(get_i32(room, c)) - less) * number(scale))
