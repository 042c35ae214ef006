"""Reference semantics of a kernel spec: what the back end must compute, on whole (n, h, w, c) arrays."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.interpreter.rows import fill_rows, run_stages
from compiler.interpreter.vector import evaluate
from compiler.interpreter.windows import Windows, reduce_taps
from compiler.ir.kernel import (
    CopyAnchor,
    KernelSpec,
    MatrixAnchor,
    PoolAnchor,
    ResizeAnchor,
    Shape4,
    VectorProgram,
    Window,
)
from isa import numerics
from isa.instructions import DType, Mode, Reduce, Resize

Array = NDArray[Any]


def run_spec(spec: KernelSpec, operands: Sequence[Array | None]) -> Array:
    """The kernel's result (n, h, w, c), one code or number per element; the spec's constants stand for None."""
    arrays = [spec.constants[i] if a is None else seen(spec, i, a) for i, a in enumerate(operands)]
    if isinstance(spec.anchor, CopyAnchor):
        return _copy(spec, spec.anchor, arrays[0])
    shape = spec.inner or spec.output
    start = None if spec.anchor is None else _anchor(spec.anchor, arrays, shape)

    def streams(program: VectorProgram, anchored: Array | None) -> list[Array | None]:
        return [anchored if s.operand is None else arrays[s.operand] for s in program.streams]

    swept = (*shape[:3], spec.row_channels or shape[3])
    rows, start = run_stages(spec, start, swept, streams)
    result = run_program(spec.program, fill_rows(spec.program, streams(spec.program, start), rows), shape)
    if spec.pool is not None and spec.pool_program is not None:
        factor = arrays[spec.pool.weight] if isinstance(spec.pool, MatrixAnchor) else result
        total = anchor_result(spec.pool, result, factor, spec.output)
        result = run_program(spec.pool_program, streams(spec.pool_program, total), spec.output)
    return settled(spec, result)


def seen(spec: KernelSpec, operand: int, array: Array) -> Array:
    """A stored operand as the (n, h, w, c) that the kernel walks."""
    if spec.movement is None:
        return np.asarray(array).reshape(spec.operands[operand])
    return _walked(np.ravel(array)[spec.movement.input_offset :], spec.output, spec.movement.input_strides)


def settled(spec: KernelSpec, result: Array) -> Array:
    """What the kernel walked as (n, h, w, c), as its elements lie in storage."""
    if spec.movement is None:
        return result
    flat = np.empty(result.size, result.dtype)
    _walked(flat, spec.output, spec.movement.output_strides)[...] = result
    return flat.reshape(spec.output)


def _walked(flat: Array, shape: Shape4, strides: Shape4) -> Array:
    return np.lib.stride_tricks.as_strided(flat, shape, [s * flat.itemsize for s in strides])


def run_program(
    program: VectorProgram,
    streams: Sequence[Array | None],
    shape: Shape4,
    params: Sequence[Array] | None = None,
) -> Array:
    """A vector program over ``shape``; streams (n, h, w, c) broadcast."""
    full = [np.broadcast_to(s, shape) for s in streams if s is not None]
    return evaluate(program, full, params)


def _anchor(
    anchor: MatrixAnchor | PoolAnchor | ResizeAnchor | CopyAnchor, arrays: Sequence[Array], shape: Shape4
) -> Array:
    assert not isinstance(anchor, CopyAnchor)
    w = arrays[anchor.weight] if isinstance(anchor, MatrixAnchor) else arrays[anchor.act]
    return anchor_result(anchor, arrays[anchor.act], w, shape)


def anchor_result(anchor: MatrixAnchor | PoolAnchor | ResizeAnchor, x: Array, w: Array, shape: Shape4) -> Array:
    """Accumulators, or the reduction of q - zero, of an anchor over ``shape`` (n, h, w, c); ``w`` only for products."""
    if isinstance(anchor, ResizeAnchor):
        return interpolate(anchor, x, (shape[1], shape[2]))
    if isinstance(anchor, PoolAnchor):
        return _pool(anchor, x, shape)
    return product(anchor, x, w, shape)


def product(anchor: MatrixAnchor, x: Array, w: Array, shape: Shape4, start: Array | None = None) -> Array:
    """Accumulators of a matrix product over ``shape``, added to ``start``: integers wrap, F32 keeps the order.

    ``w`` and the zero points of the channels are those of the outputs that ``shape`` says.
    """
    x = x if not anchor.codebook else numerics.decode(x, anchor.codebook)
    exact = anchor.mode is not Mode.F32
    if exact:
        zeros = np.asarray(anchor.weight_zeros or (anchor.zero_weight,), np.int64)
        aligned = zeros if anchor.depthwise or anchor.dynamic_weight else zeros.reshape(-1, 1, 1, 1)
        x, w = x.astype(np.int64) - anchor.zero_act, w.astype(np.int64) - aligned
    if anchor.dynamic_weight:
        rows = w.swapaxes(-1, -2) if not anchor.transposed else w
        acc = np.stack([[_multiply(a, b, exact, s) for a, b, s in _pairs(x, rows, start)]]).reshape(shape)
    else:
        weight = w.transpose(2, 0, 1)[:, None] if anchor.depthwise else w.transpose(0, 3, 1, 2)
        planes = x.transpose(0, 3, 1, 2)
        windows = _windows(anchor.window, planes.shape[2:], shape)
        sizes = windows.sizes(planes)
        columns, o = windows.pad(planes, 0), weight.shape[0] // anchor.groups
        parts: list[Array] = []
        for g in range(anchor.groups):
            c = weight.shape[1]
            patches = windows.columns(columns[:, g * c : (g + 1) * c], sizes)
            patches = patches.reshape(shape[0], *sizes, -1)[:, : shape[1], : shape[2]].reshape(prod(shape[:3]), -1)
            held = None if start is None else start[..., g * o : (g + 1) * o].reshape(len(patches), o)
            parts.append(_multiply(patches, weight[g * o : (g + 1) * o].reshape(o, -1), exact, held))
        acc = np.concatenate(parts, 1).reshape(shape)
    if exact:
        return acc.astype(np.int32 if anchor.mode.accumulator is DType.I32 else np.int64)
    return acc


def _pairs(x: Array, rows: Array, start: Array | None) -> list[tuple[Array, Array, Array | None]]:
    flat, factors = x.reshape(-1, *x.shape[-2:]), rows.reshape(-1, *rows.shape[-2:])
    starts = [None] * len(flat) if start is None else list(start.reshape(len(flat), x.shape[-2], -1))
    return list(zip(flat, factors, starts, strict=True))


def _multiply(a: Array, w: Array, exact: bool, start: Array | None) -> Array:
    """a [M, K] times w [N, K]; ``exact``: int64 operands, else binary32 in the order of k."""
    if not exact:
        return numerics.matmul_f32(a, w, None if start is None else start.copy())
    acc = numerics.matmul_i16(a, w)
    return acc if start is None else acc + start


def interpolate(anchor: ResizeAnchor, x: Array, size: tuple[int, int]) -> Array:
    """(n, h, w, c) binary32 of an interpolation of codes or binary32 to ``size``; the nearest code as q - zero."""
    if anchor.kind is Resize.BILINEAR:
        return numerics.bilinear(x, size, anchor.num, anchor.den, anchor.phase, anchor.zero, anchor.scale)
    found = numerics.nearest(x, size, anchor.num, anchor.den, anchor.phase)
    return found if x.dtype == np.float32 else (found.astype(np.int32) - anchor.zero).astype(np.float32)


def _pool(anchor: PoolAnchor, x: Array, shape: Shape4) -> Array:
    planes = x.transpose(0, 3, 1, 2).astype(np.int32) - anchor.zero
    windows = _windows(anchor.window, planes.shape[2:], shape)
    if anchor.reduce is Reduce.MAX:
        result = reduce_taps(planes, windows, -(1 << 20), np.maximum)
    else:
        result = reduce_taps(planes, windows, 0, np.add)
    return result[:, :, : shape[1], : shape[2]].transpose(0, 2, 3, 1)


def _windows(window: Window, size: Sequence[int], shape: Shape4) -> Windows:
    """The window with paddings after the end that give at least the output's size."""
    after = [
        max(0, (shape[1 + i] - 1) * window.stride[i] + window.extent(i) - size[i] - window.pad[i])
        for i in (0, 1)
    ]
    return Windows(window.kernel, window.stride, (*window.pad, *after), window.dilation)


def _copy(spec: KernelSpec, anchor: CopyAnchor, source: Array) -> Array:
    result = np.zeros(int(np.prod(spec.output)), source.dtype)
    if anchor.fill is not None:
        result[:] = anchor.fill
    read = _offsets(anchor.sizes, anchor.input_strides) + anchor.input_offset
    write = _offsets(anchor.sizes, anchor.output_strides) + anchor.output_offset
    result[write] = source.reshape(-1)[read]
    return result.reshape(spec.output)


def _offsets(sizes: Sequence[int], strides: Sequence[int]) -> NDArray[np.int64]:
    offsets = np.zeros(1, np.int64)
    for size, stride in zip(sizes, strides, strict=True):
        offsets = (offsets[:, None] + np.arange(size) * stride).reshape(-1)
    return offsets
