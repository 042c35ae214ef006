"""Around integer products: codes less their zero points as int16, codes unpacked, and depthwise sums."""

from __future__ import annotations

from isa.instructions import DType
from runtime.loops.compiled import loop, part
from runtime.loops.memory import Address, get_i8, get_i16, get_i32, put_i8, put_i16, put_i32


@part
def _less(kind: int, codes: Address, zero: int, out: Address, n: int) -> None:
    """out = codes - zero of a row."""
    if kind == DType.I8:
        for k in range(n):
            put_i16(out, k, get_i8(codes, k) - zero)
        return
    for k in range(n // 2):
        pair = get_i8(codes, k)
        put_i16(out, 2 * k, ((pair & 15) ^ 8) - 8 - zero)
        put_i16(out, 2 * k + 1, (pair >> 4) - zero)
    if n % 2:
        put_i16(out, n - 1, ((get_i8(codes, n // 2) & 15) ^ 8) - 8 - zero)


@loop
def centre(
    kind: int,
    codes: Address,
    strides: tuple[int, int],
    shape: tuple[int, int, int],
    zero: int,
    out_stride: int,
    out: Address,
) -> None:
    """out [*shape] = codes - zero as int16; ``strides`` of codes, and ``out_stride`` of out's first axis, in bytes."""
    runs, width = shape[1], shape[2]
    if strides[1] == width and kind == DType.I8:
        runs, width = 1, runs * width
    for i in range(shape[0]):
        for j in range(runs):
            _less(kind, codes + i * strides[0] + j * strides[1], zero, out + i * out_stride + 2 * width * j, width)


@loop
def unpack(packed: Address, strides: tuple[int, int], shape: tuple[int, int, int], out: Address) -> None:
    """out [*shape[:2], 2 * shape[2]]: int8 codes of bytes [*shape] that hold two each, the first in the low half."""
    for i in range(shape[0]):
        for j in range(shape[1]):
            row, line = packed + i * strides[0] + j * strides[1], out + 2 * shape[2] * (i * shape[1] + j)
            for k in range(shape[2]):
                pair = get_i8(row, k)
                put_i8(line, 2 * k, ((pair & 15) ^ 8) - 8)
                put_i8(line, 2 * k + 1, pair >> 4)


@part
def _tap(a: Address, w: Address, total: Address, n: int, add: bool) -> None:
    if add:
        for c in range(n):
            put_i32(total, c, get_i32(total, c) + get_i16(a, c) * get_i16(w, c))
    else:
        for c in range(n):
            put_i32(total, c, get_i16(a, c) * get_i16(w, c))


@loop
def depthwise(
    a: Address,
    shape: tuple[int, int, int],
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    weights: Address,
    add: bool,
    out_stride: int,
    out: Address,
) -> None:
    """out (+)= sum over taps of a * weights, int32 [h * w, n] with rows at a stride, ``shape`` (h, w, n).

    ``a``: int16; ``rows`` and ``columns``: number of taps, bytes between taps, bytes between outputs; ``weights``:
    int16 [taps, n].
    """
    for y in range(shape[0]):
        for x in range(shape[1]):
            total = out + out_stride * (y * shape[1] + x)
            pixel = a + y * rows[2] + x * columns[2]
            for i in range(rows[0]):
                for j in range(columns[0]):
                    w = weights + 2 * shape[2] * (i * columns[0] + j)
                    _tap(pixel + i * rows[1] + j * columns[1], w, total, shape[2], add or i > 0 or j > 0)
