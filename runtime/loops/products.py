"""Around the matrix products, which BLAS does in binary32: codes to exact integers, and sums to accumulators."""

from __future__ import annotations

import numpy as np

from isa.instructions import DType
from runtime.loops.compiled import loop
from runtime.loops.memory import Address, get_f32, get_i8, get_i32, put_i8, put_i32
from runtime.loops.streams import take


@loop
def centre(
    kind: int,
    codes: Address,
    strides: tuple[int, int, int],
    shape: tuple[int, int, int],
    zero: int,
    out_stride: int,
    out: Address,
) -> None:
    """out [*shape] = codes - zero as binary32, of codes at byte ``strides``; the first axis of out has a stride."""
    less, one = np.float32(zero), np.float32(1)
    runs, width = shape[1], shape[2]
    if strides[1] == width and kind == DType.I8:
        runs, width = 1, runs * width
    for i in range(shape[0]):
        for j in range(runs):
            source, line = codes + i * strides[0] + j * strides[1], out + i * out_stride + 4 * width * j
            take(kind, source, 1, less, one, line, width)


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


@loop
def accumulate(sums: Address, shape: tuple[int, int], add: bool, stride: int, acc: Address) -> None:
    """acc (+)= ``sums``, binary32 [*shape] that hold integers; rows of acc, int32, lie ``stride`` bytes apart."""
    for i in range(shape[0]):
        row, line = sums + 4 * shape[1] * i, acc + stride * i
        if add:
            for j in range(shape[1]):
                put_i32(line, j, get_i32(line, j) + np.int32(get_f32(row, j)))
        else:
            for j in range(shape[1]):
                put_i32(line, j, np.int32(get_f32(row, j)))
