"""What instructions mean, in loops over numpy integers and binary32 numbers; nothing of the simulator is used."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from isa.instructions import DType, MmuInput, MmuWindow

NUMPY = {DType.I8: "<i1", DType.I16: "<i2", DType.I32: "<i4", DType.I64: "<i8", DType.F32: "<f4"}


def bytes_of(kind: DType, n: int) -> int:
    """Bytes of a row of ``n`` elements."""
    return (n + 1) // 2 if kind is DType.I4 else n * np.dtype(NUMPY[kind]).itemsize


def row(memory: np.ndarray, address: int, n: int, kind: DType) -> np.ndarray:
    """``n`` elements from byte ``address``: codes as int64, else in their own type."""
    data = memory[address : address + bytes_of(kind, n)]
    if kind is DType.I4:
        halves = np.stack([data & 15, data >> 4], -1).reshape(-1)[:n].astype(np.int64)
        return halves - 16 * (halves > 7)
    values = np.frombuffer(data.tobytes(), NUMPY[kind])
    return values if kind is DType.F32 else values.astype(np.int64)


def rows(memory: np.ndarray, address: int, shape: Sequence[int], strides: Sequence[int], kind: DType) -> np.ndarray:
    """[n0, n1, n2]: rows of n2 elements at strides of bytes."""
    found = [row(memory, address + i * strides[0] + j * strides[1], shape[2], kind) for i, j in np.ndindex(*shape[:2])]
    return np.array(found).reshape(shape)


def packed(codes: np.ndarray) -> np.ndarray:
    """Bytes of rows of 4-bit codes, the first of two in the low half; the spare half of an odd row is 0."""
    pad = [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)]
    halves = np.pad(codes.astype(np.int64), pad) & 15
    return (halves[..., 0::2] | halves[..., 1::2] << 4).astype(np.uint8)


def patches(tile: np.ndarray, window: MmuWindow, size: tuple[int, int], zero: float) -> np.ndarray:
    """[oh * ow, kh, kw, c] of ``tile`` [h, w, c]; a tap outside reads ``zero``."""
    out = np.full((*size, window.kernel_h, window.kernel_w, tile.shape[2]), zero, tile.dtype)
    for y, x, i, j in product(*map(range, (*size, window.kernel_h, window.kernel_w))):
        r = y * window.stride_h + i * window.dilation_h - window.pad_top
        c = x * window.stride_w + j * window.dilation_w - window.pad_left
        if 0 <= r < tile.shape[0] and 0 <= c < tile.shape[1]:
            out[y, x, i, j] = tile[r, c]
    return out.reshape(-1, *out.shape[2:])


def pixels(memory: np.ndarray, address: int, tile: MmuInput, kind: DType) -> np.ndarray:
    """The activation tile [h, w, c]."""
    shape = (tile.height, tile.width, tile.channels)
    return rows(memory, address, shape, (tile.row_stride, tile.pixel_stride), kind)
