"""Products of 8-bit and narrower codes in binary32: codes less their zero points, in sums short enough to be exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from isa.access import Memory, stored_bytes
from isa.instructions import STORED_BITS, DType, MmuRun
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

EXACT_SUM = 1 << 24
"""Every integer up to this one is a binary32."""


def exact_terms(context: Context, inst: MmuRun) -> int:
    """Of how many products any sum is exact in binary32; 0 if zero points are so far out that not one is."""
    largest = _span(inst.mode.activation, zero_of_activations(context, inst))
    return EXACT_SUM // (largest * _span(inst.mode.weight, context.state.mmu_codes.weight_zero))


def _span(kind: DType, zero: int) -> int:
    """Largest |code - zero|."""
    high = 1 << (STORED_BITS[kind] - 1)
    return max(high + zero, high - 1 - zero)


def centred_product(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """acc (+)= sum (a - za) (w - zw), in chunks short enough that every partial sum is an exact integer."""
    setup = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    weights, steps = _weights(context, inst)
    yield from steps
    columns, terms = weights.shape[0], exact_terms(context, inst)
    product = context.scratch("product", tuple(acc.shape), torch.float32)
    a, steps = (None, []) if not fits(acc.shape[0] * columns, 4) else _columns(context, inst, setup)
    if a is None:
        inside, steps = inside_of(context, inst, setup[0], *reached(setup))
        yield from steps
        zero = zero_of_activations(context, inst)
        yield partial(_pieces, inside, setup, zero, weights, terms, product, bool(inst.accumulate), acc)
        return
    yield from steps
    yield from _chunked(a, weights, terms, product, bool(inst.accumulate), acc)


def _chunked(
    a: torch.Tensor, weights: torch.Tensor, terms: int, product: torch.Tensor, add: bool, acc: torch.Tensor
) -> Iterator[Step]:
    """acc (+)= a @ weights, ``terms`` of the sum at a time."""
    shape, stride = tuple(acc.shape), acc.stride(0) * acc.element_size()
    for start in range(0, a.shape[1], terms):
        chunk = slice(start, start + terms)
        yield partial(torch.mm, a[:, chunk], weights[chunk], out=product)
        yield bound("products.accumulate", product, shape, add or start > 0, stride, acc)


def _pieces(
    inside: torch.Tensor,
    setup: Setup,
    zero: int,
    weights: torch.Tensor,
    terms: int,
    product: torch.Tensor,
    add: bool,
    acc: torch.Tensor,
) -> None:
    """:func:`_chunked` of a window whose im2col is too large, some pixels at a time."""
    step = pixels_of_piece(weights.shape[0])
    for start in range(0, len(acc), step):
        part = slice(start, min(start + step, len(acc)))
        a = gather(inside, setup, zero, part.start, part.stop).float().sub_(zero)
        for run in _chunked(a, weights, terms, product[part], add, acc[part]):
            run()


def _weights(context: Context, inst: MmuRun) -> tuple[torch.Tensor, list[Step]]:
    """w - zero as binary32 [K, n], converted once per load."""
    (rows, row), stride = weight_rows(context, inst)
    kind, zero, transposed = inst.mode.weight, context.state.mmu_codes.weight_zero, context.state.mmu_weight.transposed
    stored = (1, rows, stored_bytes(row, kind))
    codes = context.memory.view(Memory.SRAM, torch.int8, inst.weight, stored, (0, stride, 1))
    start, stop = weight_bytes(context, inst)
    shape = (rows, row) if transposed else (row, rows)
    key = ("centred", start, stop, shape, stride, transposed, kind, zero)
    found, held = context.memory.derived(key, start, stop, shape, torch.float32)
    if held:
        return found, []
    if transposed:
        return found, [_centre(kind, codes, row, zero, found)]
    lying = context.scratch("weights as they lie", (rows, row), torch.float32)
    return found, [_centre(kind, codes, row, zero, lying), partial(found.copy_, lying.t())]


def _centre(kind: DType, codes: torch.Tensor, elements: int, zero: int, out: torch.Tensor) -> Step:
    """out = codes - zero, exact: ``codes`` [h, w, stored bytes of ``elements``], rows of ``out`` at any distance."""
    shape = (*codes.shape[:2], elements)
    out_stride = 4 * (out.stride(0) if out.dim() == 3 else 0)
    return bound("products.centre", int(kind), codes, codes.stride(), shape, zero, out_stride, out)


def _columns(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """im2col of a - zero, binary32 [pixels, K], or None where padding needs too much memory."""
    _, window, out = setup
    pointwise = window.kernel_h == 1 == window.kernel_w and window.pad_top == 0 == window.pad_left
    grid, steps = centred_grid(context, inst, setup, (window.stride_h, window.stride_w) if pointwise else (1, 1))
    if grid is None or (pointwise and grid.shape[:2] == (out.height, out.width)):
        return None if grid is None else grid.view(out.height * out.width, -1), steps
    found, more = columns_of(context, grid, setup)
    return found, [*steps, *more]


def centred_grid(
    context: Context, inst: MmuRun, setup: Setup, every: tuple[int, int] = (1, 1)
) -> tuple[torch.Tensor | None, list[Step]]:
    """a - zero, binary32 [rows, columns, channels], of what a window reaches, the padding with it.

    ``every``: take every so many-th row and column, of a window without padding. None if it needs too much memory.
    """
    tile, window, out = setup
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return _whole_grid(context, inst, range(0, rows, max(every[0], 1)), range(0, cols, max(every[1], 1)))
    if not fits(rows * cols * tile.channels, 4):
        return None, []
    padded = context.scratch("centred grid", (rows, cols, tile.channels), torch.float32)
    steps: list[Step] = [padded.zero_]
    h, w = reached(setup)
    if h and w:
        target = padded[h.start + top : h.stop + top, w.start + left : w.stop + left]
        steps += _centre_inside(context, inst, h, w, target)
    return padded, steps


def _whole_grid(context: Context, inst: MmuRun, rows: range, cols: range) -> tuple[torch.Tensor, list[Step]]:
    """:func:`centred_grid` of a window inside the tile; converted once while the tile lies there."""
    tile, zero, kind = context.state.mmu_input, zero_of_activations(context, inst), inst.mode.activation
    shape = (len(rows), len(cols), tile.channels)
    if context.state.mmu_codes.decode:
        grid = context.scratch("centred grid", shape, torch.float32)
        return grid, _centre_inside(context, inst, rows, cols, grid)
    stop = rows[-1] * tile.row_stride + cols[-1] * tile.pixel_stride + stored_bytes(tile.channels, kind)
    key = ("centred", inst.act, rows, cols, tile.row_stride, tile.pixel_stride, tile.channels, kind, zero)
    grid, held = context.memory.derived(key, inst.act, inst.act + stop, shape, torch.float32)
    return grid, [] if held else _centre_inside(context, inst, rows, cols, grid)


def _centre_inside(context: Context, inst: MmuRun, rows: range, cols: range, out: torch.Tensor) -> list[Step]:
    """``out`` = a - zero of these rows and columns of the tile."""
    tile, zero, kind = context.state.mmu_input, zero_of_activations(context, inst), inst.mode.activation
    if context.state.mmu_codes.decode:
        every_row, every_column = range(rows.start, rows.stop), range(cols.start, cols.stop)
        whole, steps = inside_of(context, inst, tile, every_row, every_column)
        return [*steps, _centre(DType.I8, whole[:: rows.step, :: cols.step], tile.channels, zero, out)]
    view = context.memory.view(
        Memory.SRAM,
        torch.int8,
        inst.act + rows.start * tile.row_stride + cols.start * tile.pixel_stride,
        (len(rows), len(cols), stored_bytes(tile.channels, kind)),
        (rows.step * tile.row_stride, cols.step * tile.pixel_stride, 1),
    )
    return [_centre(kind, view, tile.channels, zero, out)]
