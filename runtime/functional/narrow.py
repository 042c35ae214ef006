"""Products of 8-bit and narrower codes: codes less their zero points as int16, sums in int32, all of it exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from isa.access import Memory, stored_bytes
from isa.instructions import DType, MmuRun
from runtime.functional.bound import bound
from runtime.functional.context import Context, Step
from runtime.functional.operands import (
    Setup,
    columns_of,
    fits,
    gather,
    inside_of,
    pixels_of_piece,
    reached,
    weight_bytes,
    weight_rows,
    zero_of_activations,
)

FARTHEST = (1 << 15) - 128
"""Of a zero point, so that a code less it is an int16."""
PANEL, EDGE_BYTES = 16, 384
"""Columns of packed weights that lie together, and room for a tile of sums: see ``runtime.loops.multiply``."""


def is_narrow(context: Context, inst: MmuRun) -> bool:
    """Whether the operands of a run are int16 when their zero points are subtracted, and its sums int32."""
    codes = context.state.mmu_codes
    zeros = zero_of_activations(context, inst), codes.weight_zero
    return inst.mode.accumulator is DType.I32 and not codes.per_channel and all(abs(z) < FARTHEST for z in zeros)


def narrow_product(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """acc (+)= sum (a - za) (w - zw)."""
    setup = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    _, window, _ = setup
    k = window.kernel_h * window.kernel_w * setup[0].channels
    weights, steps = _weights(context, inst, k)
    yield from steps
    a, steps = (None, []) if not fits(acc.shape[0] * k, 2) else _columns(context, inst, setup)
    edge = context.scratch("edge of a tile", (EDGE_BYTES,), torch.uint8)
    if a is None:
        inside, steps = inside_of(context, inst, setup[0], *reached(setup))
        yield from steps
        zero = zero_of_activations(context, inst)
        yield partial(_pieces, inside, setup, zero, weights, k, bool(inst.accumulate), edge, acc)
        return
    yield from steps
    yield _multiply(a, weights, k, bool(inst.accumulate), edge, acc)


def _multiply(
    a: torch.Tensor, weights: torch.Tensor, k: int, add: bool, edge: torch.Tensor, acc: torch.Tensor
) -> Step:
    """acc (+)= a @ weights."""
    stride = 4 * acc.stride(0)
    return bound("multiply.multiply", a, 2 * a.stride(0), (*acc.shape, k), weights, add, stride, acc, edge)


def _pieces(
    inside: torch.Tensor,
    setup: Setup,
    zero: int,
    weights: torch.Tensor,
    k: int,
    add: bool,
    edge: torch.Tensor,
    acc: torch.Tensor,
) -> None:
    """:func:`narrow_product` of a window whose im2col is too large, some pixels at a time."""
    step = pixels_of_piece(k)
    for start in range(0, len(acc), step):
        part = acc[start : start + step]
        a = torch.empty(len(part) * k + 1, dtype=torch.int16)[:-1].view(len(part), k)  # one more may be read
        a.copy_(gather(inside, setup, zero, start, start + len(part))).sub_(zero)
        _multiply(a, weights, k, add, edge, part)()


def _weights(context: Context, inst: MmuRun, k: int) -> tuple[torch.Tensor, list[Step]]:
    """w - zero as the multiplication wants it, converted once per load."""
    (rows, row), stride = weight_rows(context, inst)
    kind, zero, transposed = inst.mode.weight, context.state.mmu_codes.weight_zero, context.state.mmu_weight.transposed
    stored = (1, rows, stored_bytes(row, kind))
    codes = context.memory.view(Memory.SRAM, torch.int8, inst.weight, stored, (0, stride, 1))
    start, stop = weight_bytes(context, inst)
    key = ("packed", start, stop, rows, row, stride, transposed, kind, zero)
    panels = ((inst.n + PANEL - 1) // PANEL, (k + 1) // 2, PANEL, 2)
    packed, held = context.memory.derived(key, start, stop, panels, torch.int16)
    if held:
        return packed, []
    lying = context.scratch("weights", (1, rows, row), torch.int16)
    return packed, [
        centring(kind, codes, row, zero, lying),
        bound("multiply.pack", lying, inst.n, k, bool(transposed), packed),
    ]


def centring(kind: DType, codes: torch.Tensor, elements: int, zero: int, out: torch.Tensor) -> Step:
    """``out`` [h, w, elements] = codes - zero: ``codes`` [h, w, stored bytes], rows of ``out`` at any distance."""
    shape, strides = (*codes.shape[:2], elements), (codes.stride(0), codes.stride(1))
    return bound("products.centre", int(kind), codes, strides, shape, zero, 2 * out.stride(0), out)


def _columns(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """im2col of a - zero, int16 [pixels, K], or None where padding needs too much memory."""
    _, window, out = setup
    pointwise = window.kernel_h == 1 == window.kernel_w and window.pad_top == 0 == window.pad_left
    grid, steps = narrow_grid(context, inst, setup, (window.stride_h, window.stride_w) if pointwise else (1, 1))
    if grid is None or (pointwise and grid.shape[:2] == (out.height, out.width)):
        return None if grid is None else grid.view(out.height * out.width, -1), steps
    found, more = columns_of(context, grid, setup)
    return found, [*steps, *more]


def narrow_grid(
    context: Context, inst: MmuRun, setup: Setup, every: tuple[int, int] = (1, 1)
) -> tuple[torch.Tensor | None, list[Step]]:
    """a - zero, int16 [rows, columns, channels], of what a window reaches, the padding with it.

    ``every``: take every so many-th row and column, of a window without padding. None if it needs too much memory.
    """
    tile, window, out = setup
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return _whole_grid(context, inst, range(0, rows, max(every[0], 1)), range(0, cols, max(every[1], 1)))
    if not fits(rows * cols * tile.channels, 2):
        return None, []
    padded = context.scratch("narrow grid", (rows, cols, tile.channels), torch.int16)
    steps: list[Step] = [padded.zero_]
    h, w = reached(setup)
    if h and w:
        target = padded[h.start + top : h.stop + top, w.start + left : w.stop + left]
        steps += _centre_inside(context, inst, h, w, target)
    return padded, steps


def _whole_grid(context: Context, inst: MmuRun, rows: range, cols: range) -> tuple[torch.Tensor, list[Step]]:
    """:func:`narrow_grid` of a window inside the tile; converted once while the tile lies there."""
    tile, zero, kind = context.state.mmu_input, zero_of_activations(context, inst), inst.mode.activation
    shape = (len(rows), len(cols), tile.channels)
    if context.state.mmu_codes.decode:
        grid = context.scratch("narrow grid", shape, torch.int16)
        return grid, _centre_inside(context, inst, rows, cols, grid)
    stop = rows[-1] * tile.row_stride + cols[-1] * tile.pixel_stride + stored_bytes(tile.channels, kind)
    key = ("narrow", inst.act, rows, cols, tile.row_stride, tile.pixel_stride, tile.channels, kind, zero)
    grid, held = context.memory.derived(key, inst.act, inst.act + stop, shape, torch.int16)
    return grid, [] if held else _centre_inside(context, inst, rows, cols, grid)


def _centre_inside(context: Context, inst: MmuRun, rows: range, cols: range, out: torch.Tensor) -> list[Step]:
    """``out`` = a - zero of these rows and columns of the tile."""
    tile, zero, kind = context.state.mmu_input, zero_of_activations(context, inst), inst.mode.activation
    if context.state.mmu_codes.decode:
        every_row, every_column = range(rows.start, rows.stop), range(cols.start, cols.stop)
        whole, steps = inside_of(context, inst, tile, every_row, every_column)
        return [*steps, centring(DType.I8, whole[:: rows.step, :: cols.step], tile.channels, zero, out)]
    view = context.memory.view(
        Memory.SRAM,
        torch.int8,
        inst.act + rows.start * tile.row_stride + cols.start * tile.pixel_stride,
        (len(rows), len(cols), stored_bytes(tile.channels, kind)),
        (rows.step * tile.row_stride, cols.step * tile.pixel_stride, 1),
    )
    return [centring(kind, view, tile.channels, zero, out)]
