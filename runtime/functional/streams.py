"""Streams of the vector unit, checked, as rows of the table that compiled loops read."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from isa.access import CODES, ON_CHIP, interpolated, reach
from isa.errors import AccessError
from isa.instructions import DType, Reduce, Resize, Space, VcuConvert, VcuResize, VcuStream
from isa.numerics import positions
from runtime.functional.bound import Bound, bound
from runtime.functional.context import Context
from runtime.loops.layout import ACC, ONE, SRAM, TILE, Row, Shape, bits
from runtime.memory import TORCH_TYPES

SPACES = {Space.SRAM: SRAM, Space.ACC: ACC}
WINDOWED = (DType.I8, DType.I16)
"""What a window reduces; sums are of the first only."""


def stream_row(stream: VcuStream, address: int, convert: VcuConvert) -> Row:
    """A stream at ``address``; what is no code has no zero point and no scale, and a scale of 0 is none."""
    coded = stream.dtype in CODES
    zero, scale = (convert.zero, convert.scale or 1.0) if coded else (0, 1.0)
    strides = (stream.stride0, stream.stride1, stream.stride2)
    return (stream.dtype, SPACES[stream.space], address, *strides, zero, bits(scale))


def plain(context: Context, number: int, address: int, shape: Shape) -> Row:
    """Stream ``number`` as it lies. Raises AccessError."""
    stream = context.state.vcu_streams[number]
    _check_view(context, stream, address, shape)
    return stream_row(stream, address, context.state.vcu_converts[number])


def _check_view(context: Context, stream: VcuStream, address: int, shape: Shape) -> None:
    """Raises AccessError where a stream leaves its space or an element lies askew."""
    strides = (stream.stride0, stream.stride1, stream.stride2)
    distinct = tuple(n if stride else 1 for n, stride in zip(shape, strides, strict=True))
    if stream.dtype is DType.I4:
        if stream.stride2 > 1:
            raise AccessError(f"stride2 = {stream.stride2} of 4-bit codes: must be 0 or 1")
        distinct, strides = (*distinct[:2], (distinct[2] + 1) // 2), (*strides[:2], 1)
    context.memory.view(ON_CHIP[stream.space], TORCH_TYPES[stream.dtype], address, distinct, strides)


def _dense(shape: Shape) -> Row:
    """A binary32 tile made for the run."""
    return (DType.F32, TILE, 0, 4 * shape[1] * shape[2], 4 * shape[2], 4, 0, ONE)


def resized(context: Context, address: int, shape: Shape) -> tuple[Row, torch.Tensor, Bound]:
    """Stream A interpolated over the tile that the two axes describe: the row, its memory and the step that fills it.

    Raises AccessError.
    """
    state = context.state
    stream, (rows, columns) = state.vcu_streams[0], state.vcu_resizes
    if rows.kind != columns.kind:
        raise AccessError(f"vcu.resize {rows.kind.name} and {columns.kind.name}: both axes have the same kind")
    if 0 in (rows.den, columns.den):
        raise AccessError("vcu.resize den = 0: must be at least 1")
    h, w = interpolated(shape[0], rows), interpolated(shape[1], columns)
    at = address + h.start * stream.stride0 + w.start * stream.stride1
    _check_view(context, stream, at, (len(h), len(w), shape[2]))
    row = stream_row(stream, at, state.vcu_converts[0])
    tile = context.scratch("tile", shape, torch.float32)
    room = context.scratch("lines", (len(w) * shape[2] + len(h) * shape[1] * shape[2],), torch.float32)
    axes = _places(shape[0], rows, h.start), _places(shape[1], columns, w.start)
    *exact, scale = row
    table, memory = np.array([*exact, ONE]), context.memory.bytes[ON_CHIP[stream.space]]
    step = bound("tiles.interpolate", table, memory, (len(h), len(w)), shape, *axes, scale, room, tile)
    return _dense(shape), tile, step


@lru_cache(maxsize=64)
def _places(outputs: int, axis: VcuResize, start: int) -> NDArray[np.int64]:
    """[3, outputs]: both neighbours of every output, from ``start`` on, and bits of the second's weight.

    The weight is negative where only the first counts.
    """
    first, second, t = positions(outputs, axis.size, axis.num, axis.den, axis.phase)
    weight = np.full_like(t, -1) if axis.kind is Resize.NEAREST else t
    return np.stack([first - start, second - start, weight.view(np.int32).astype(np.int64)])


def windowed(context: Context, address: int, shape: Shape) -> tuple[Row, torch.Tensor, Bound]:
    """Stream A reduced over window taps, an exact integer, then scaled: see :func:`resized`."""
    state = context.state
    stream, window = state.vcu_streams[0], state.vcu_window
    maxima = window.reduce == Reduce.MAX
    allowed = WINDOWED if maxima else WINDOWED[:1]
    if stream.dtype not in allowed:
        names = " or ".join(kind.name for kind in allowed)
        raise AccessError(f"stream A is {stream.dtype.name} under a window reduction: must be {names}")
    rows = (window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, window.height)
    columns = (window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, window.width)
    h, w = reach(shape[0], *rows), reach(shape[1], *columns)
    at = address + h.start * stream.stride0 + w.start * stream.stride1
    strides = (stream.stride0, stream.stride1, stream.stride2)
    space = ON_CHIP[stream.space]
    context.memory.view(space, TORCH_TYPES[stream.dtype], at, (len(h), len(w), shape[2]), strides)
    *exact, scale = stream_row(stream, address, state.vcu_converts[0])
    tile = context.scratch("tile", shape, torch.float32)
    room = context.scratch("taps of channels", (shape[2],), torch.int32)
    taps = tuple(n for pair in zip(rows[:4], columns[:4], strict=True) for n in pair)
    memory, size = context.memory.bytes[space], (window.height, window.width)
    step = bound("tiles.reduce_window", np.array([*exact, scale]), memory, size, shape, taps, maxima, scale, room, tile)
    return _dense(shape), tile, step
