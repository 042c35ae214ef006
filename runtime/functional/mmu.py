"""MMU: convolutions and matrix products on int8, exact in int32 (modulo 2^32)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from isa.access import Memory, reach
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import MmuInput, MmuOutput, MmuRun, MmuWindow
from isa.numerics import matmul_i8
from isa.numerics.integer import int_mm_is_exact
from runtime.functional.context import Context, Step, bundle

BUFFER_BYTES = 1 << 26
"""Largest scratch buffer; what needs more goes through :func:`_gather` in pieces."""
INDEX_BYTES = 16
"""Bytes of indices per code that a piece may need."""
EXACT_TAPS = 256
"""|x - zx| * |w - zw| <= 255^2, so sums of this many products are exact in binary32."""

TORCH: Any = torch
"""Without types, for the one function that torch keeps private."""

Setup = tuple[MmuInput, MmuWindow, MmuOutput]


def mmu_run(context: Context, inst: Instruction) -> Iterator[Step]:
    """acc[m, n] (+)= sum_k (a[m, k] - zero_a) * (w[n, k] - zero_w)."""
    assert isinstance(inst, MmuRun)
    tile, window, out = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    pixels = out.height * out.width
    if pixels == 0 or inst.n == 0:
        return
    acc = context.memory.target(Memory.ACC, torch.int32, inst.acc, (pixels, inst.n), (out.pixel_stride, 4))
    if inst.depthwise and inst.n != tile.channels:
        raise AccessError(f"depthwise n = {inst.n}: must equal mmu.input channels = {tile.channels}")
    if window.kernel_h * window.kernel_w * tile.channels == 0:
        yield from () if inst.accumulate else (acc.zero_,)
    elif inst.depthwise:
        yield from _depthwise(context, inst, acc)
    else:
        yield from _matrix(context, inst, acc)


def _matrix(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """sum (a - za) (w - zw) = sum a w - zw sum a - za (sum w - K zw): small products correct a large one."""
    setup = tile, _, _ = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    zero_a, zero_w, weights = tile.zero, context.state.mmu_weight.zero, _weights(context, inst)
    pixels, columns = acc.shape[0], weights.shape[1]
    product = context.scratch("product", (pixels, inst.n), torch.int32)
    grid, steps = _tile(context, inst, setup)
    if grid is None or pixels * columns > BUFFER_BYTES:
        inside = _inside(context, inst, tile, *_reached(setup))
        yield partial(_in_pieces, inside, setup, weights, zero_w, product)
    else:
        yield from steps
        a, steps = _columns(context, grid, setup)
        yield from steps
        yield _product(a, weights, product)
        if zero_w:
            sums = context.scratch("row sums", (pixels, 1), torch.int32)
            yield _product(a, _ones(context, columns), sums)
            yield partial(product.sub_, sums, alpha=zero_w)
    if zero_a:
        sums, held = _column_sums(context, weights)
        if not held:
            yield _product(_ones(context, columns), weights, sums)
            if zero_w:
                yield partial(sums.sub_, columns * zero_w)
        if not inst.accumulate:
            yield partial(torch.sub, product, sums, alpha=zero_a, out=acc)
            return
        yield partial(product.sub_, sums, alpha=zero_a)
    yield partial(acc.add_ if inst.accumulate else acc.copy_, product)


def _product(a: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> Step:
    """out[m, n] = sum_k a[m, k] * w[n, k]."""
    # matmul_i8 takes the same product where it is exact, but checks and allocates on every call.
    if a.shape[1] > 1 and int_mm_is_exact(TORCH):
        return partial(TORCH._int_mm, a, w.t(), out=out)
    return lambda: out.copy_(matmul_i8(a, w))


def _column_sums(context: Context, weights: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """A buffer [1, n] for sum_k (w - zero_w), and whether an earlier product with the same weights has filled it."""
    start, zero = int(weights.storage_offset()), context.state.mmu_weight.zero
    stop = start + sum((n - 1) * int(s) for n, s in zip(weights.shape, weights.stride(), strict=True)) + 1
    key = (start, tuple(weights.shape), weights.stride(), zero)
    return context.memory.derived(key, start, stop, (1, weights.shape[0]))


def _ones(context: Context, columns: int) -> torch.Tensor:
    return context.constant((1, columns), 1, torch.int8)


def _weights(context: Context, inst: MmuRun) -> torch.Tensor:
    """int8 [n, K], a view where the layout allows."""
    tile, window, weight = context.state.mmu_input, context.state.mmu_window, context.state.mmu_weight
    columns = window.kernel_h * window.kernel_w * tile.channels
    shape = (columns, inst.n) if weight.transposed else (inst.n, columns)
    stride = weight.row_stride if shape[0] > 1 else shape[1]
    if stride < shape[1]:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {shape[1]} bytes: rows must not overlap")
    view = context.memory.view(Memory.SRAM, torch.int8, inst.weight, shape, (stride, 1))
    return view.t() if weight.transposed else view


def _columns(context: Context, grid: torch.Tensor, setup: Setup) -> tuple[torch.Tensor, list[Step]]:
    """im2col: int8 [pixels, K], without a copy for dense pointwise windows."""
    tile, window, out = setup
    row, col = grid.stride(0), grid.stride(1)
    shape = (out.height, out.width, window.kernel_h, window.kernel_w, tile.channels)
    steps = (window.stride_h * row, window.stride_w * col, window.dilation_h * row, window.dilation_w * col, 1)
    pixels = out.height * out.width
    if window.kernel_h == 1 == window.kernel_w and (step := _pixel_step(out, steps[0], steps[1], tile.channels)):
        return grid.as_strided((pixels, tile.channels), (step, 1)), []
    buffer = context.scratch("columns", shape, torch.int8)
    return buffer.view(pixels, -1), [partial(buffer.copy_, grid.as_strided(shape, steps))]


def _pixel_step(out: MmuOutput, row: int, col: int, channels: int) -> int:
    """Byte distance between all neighbouring pixels of a pointwise window, or 0 if a copy is needed."""
    step = channels if out.height == 1 == out.width else row if out.width == 1 else col
    even = out.height == 1 or out.width == 1 or row == out.width * col
    return step if even and step >= channels else 0


def _tile(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """int8 [rows, columns, channels] that the window reaches: a view if all lie in the tile, else padded.

    None if padding needs too much memory.
    """
    tile, window, out = setup
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return _inside(context, inst, tile, range(rows), range(cols)), []
    if rows * cols * tile.channels > BUFFER_BYTES:
        return None, []
    padded = context.scratch("padded", (rows, cols, tile.channels), torch.int8)
    steps: list[Step] = [partial(padded.fill_, tile.zero)]
    h, w = _reached(setup)
    if h and w:
        target = padded[h.start + top : h.stop + top, w.start + left : w.stop + left]
        steps.append(partial(target.copy_, _inside(context, inst, tile, h, w)))
    return padded, steps


def _reached(setup: Setup) -> tuple[range, range]:
    """Rows and columns of the tile from the first to the last that some tap reads."""
    tile, window, out = setup
    return (
        reach(out.height, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, tile.height),
        reach(out.width, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, tile.width),
    )


def _inside(context: Context, inst: MmuRun, tile: MmuInput, rows: range, cols: range) -> torch.Tensor:
    return context.memory.view(
        Memory.SRAM,
        torch.int8,
        inst.act + rows.start * tile.row_stride + cols.start * tile.pixel_stride,
        (len(rows), len(cols), tile.channels),
        (tile.row_stride, tile.pixel_stride, 1),
    )


def _in_pieces(inside: torch.Tensor, setup: Setup, weights: torch.Tensor, zero_w: int, product: torch.Tensor) -> None:
    """product = sum a (w - zero_w) of a window whose im2col is too large, some pixels at a time."""
    step = max(1, BUFFER_BYTES // (INDEX_BYTES * weights.shape[1]))
    ones = torch.ones((1, weights.shape[1]), dtype=torch.int8)
    for start in range(0, len(product), step):
        part = product[start : start + step]
        a = _gather(inside, setup, start, start + len(part))
        part.copy_(matmul_i8(a, weights))
        if zero_w:
            part.sub_(matmul_i8(a, ones), alpha=zero_w)


def _gather(inside: torch.Tensor, setup: Setup, start: int, stop: int) -> torch.Tensor:
    """Rows ``start`` .. ``stop`` - 1 of im2col by indexing: slow, but of bounded memory for any window."""
    tile, window, out = setup
    pixel = torch.arange(start, stop)
    row = (pixel // out.width * window.stride_h - window.pad_top)[:, None, None]
    row = row + (torch.arange(window.kernel_h) * window.dilation_h)[:, None]
    col = (pixel % out.width * window.stride_w - window.pad_left)[:, None, None]
    col = col + torch.arange(window.kernel_w) * window.dilation_w
    size = (stop - start, window.kernel_h * window.kernel_w * tile.channels)
    if inside.numel() == 0:
        return torch.full(size, tile.zero, dtype=torch.int8)
    h, w = _reached(setup)
    valid = (row >= 0) & (row < tile.height) & (col >= 0) & (col < tile.width)
    row, col = torch.where(valid, row, h.start), torch.where(valid, col, w.start)
    found = inside[row - h.start, col - w.start]
    found.masked_fill_(~valid[..., None], tile.zero)
    return found.view(size)


def _depthwise(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Sums over taps of whole planes: output channel n reads input channel n."""
    setup = tile, window, out = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    taps, weight = window.kernel_h * window.kernel_w, context.state.mmu_weight
    if weight.row_stride < inst.n and taps > 1:
        raise AccessError(
            f"mmu.weight row_stride = {weight.row_stride} with rows of {inst.n} bytes: rows must not overlap"
        )
    codes = context.memory.view(Memory.SRAM, torch.int8, inst.weight, (taps, inst.n), (weight.row_stride, 1))
    grid, steps = _tile(context, inst, setup)
    if grid is None:
        raise AccessError(f"the depthwise window reaches more than {BUFFER_BYTES} bytes with its padding: tile it")
    yield from steps
    # Up to EXACT_TAPS products, binary32 holds every partial sum exactly; it is the faster type.
    dtype = torch.float32 if taps <= EXACT_TAPS else torch.int32
    centred = context.scratch("centred", tuple(grid.shape), dtype)
    yield partial(centred.copy_, grid)
    if tile.zero:
        yield partial(centred.sub_, tile.zero)
    weights = context.scratch("taps", (taps, inst.n), dtype)
    yield partial(weights.copy_, codes)
    if weight.zero:
        yield partial(weights.sub_, weight.zero)
    shape = (out.height, out.width, inst.n)
    total = context.scratch("total", shape, dtype)
    row, col = centred.stride(0), centred.stride(1)
    strides = (window.stride_h * row, window.stride_w * col, 1)

    def plane(tap: int) -> torch.Tensor:
        i, j = divmod(tap, window.kernel_w)
        return centred.as_strided(shape, strides, i * window.dilation_h * row + j * window.dilation_w * col)

    yield partial(torch.mul, plane(0), weights[0], out=total)
    yield from bundle(lambda: (partial(total.addcmul_, plane(tap), weights[tap]) for tap in range(1, taps)), taps - 1)
    whole = context.scratch("product", shape, torch.int32) if inst.accumulate else acc.view(shape)
    yield partial(whole.copy_, total)
    if inst.accumulate:
        yield partial(acc.add_, whole.view(acc.shape))
