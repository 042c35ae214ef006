"""MMU: convolutions and matrix products on int8, exact in int32 (modulo 2^32)."""

from __future__ import annotations

import torch

from isa.access import Memory, reach
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import MmuRun
from isa.numerics import matmul_i8
from runtime.functional.context import Context

BUFFER_BYTES = 1 << 26
"""Largest scratch buffer; what needs more goes through :func:`_gather` in pieces."""
EXACT_TAPS = 256
"""|x - zx| * |w - zw| <= 255^2, so sums of this many products are exact in binary32."""


def mmu_run(context: Context, inst: Instruction) -> None:
    """acc[m, n] (+)= sum_k (a[m, k] - zero_a) * (w[n, k] - zero_w)."""
    assert isinstance(inst, MmuRun)
    out = context.state.mmu_output
    pixels = out.height * out.width
    if pixels == 0 or inst.n == 0:
        return
    acc = context.memory.target(Memory.ACC, torch.int32, inst.acc, (pixels, inst.n), (out.pixel_stride, 4))
    product = _depthwise(context, inst) if inst.depthwise else _matrix(context, inst)
    if inst.accumulate:
        acc.add_(product.to(torch.int32))
    else:
        acc.copy_(product)


def _matrix(context: Context, inst: MmuRun) -> torch.Tensor:
    """The run's sums, int32 [pixels, n]."""
    tile, weight = context.state.mmu_input, context.state.mmu_weight
    weights = _weights(context, inst)
    columns = weights.shape[1]
    if columns == 0:
        return torch.zeros((1, 1), dtype=torch.int32)
    acc = _products(context, inst, weights)
    if tile.zero:
        acc.sub_(matmul_i8(_ones(context, columns), weights).mul_(tile.zero))
    if weight.zero and tile.zero:
        acc.add_(tile.zero * weight.zero * columns % (1 << 32) - (1 << 31)).add_(-(1 << 31))
    return acc


def _ones(context: Context, columns: int) -> torch.Tensor:
    return context.scratch("ones", (1, columns), torch.int8).fill_(1)


def _weights(context: Context, inst: MmuRun) -> torch.Tensor:
    """int8 [n, K], a view where the layout allows."""
    tile, window, weight = context.state.mmu_input, context.state.mmu_window, context.state.mmu_weight
    columns = window.kernel_h * window.kernel_w * tile.channels
    rows = columns if weight.transposed else inst.n
    if weight.row_stride == 0 and rows > 1:
        raise AccessError(f"mmu.weight row_stride = 0 with {rows} rows: must be at least 1")
    if columns == 0:
        return torch.empty((inst.n, 0), dtype=torch.int8)
    shape = (columns, inst.n) if weight.transposed else (inst.n, columns)
    stride = weight.row_stride if rows > 1 else shape[1]
    view = context.memory.view(Memory.SRAM, torch.int8, inst.weight, shape, (stride, 1))
    if stride < shape[1]:
        view = view.contiguous()  # overlapping rows, which no matrix product takes
    return view.t() if weight.transposed else view


def _products(context: Context, inst: MmuRun, weights: torch.Tensor) -> torch.Tensor:
    """sum_k a * (w - zero_w), int32 [pixels, n]; taps outside the tile read the zero point."""
    out = context.state.mmu_output
    columns, pixels = weights.shape[1], out.height * out.width
    if (a := _columns(context, inst, pixels, columns)) is not None:
        return _less_zero(context, a, matmul_i8(a, weights))
    step = max(1, BUFFER_BYTES // columns // 16)  # its indices take more than its codes
    parts: list[torch.Tensor] = []
    for start in range(0, pixels, step):
        a = _gather(context, inst, start, min(start + step, pixels))
        parts.append(_less_zero(context, a, matmul_i8(a, weights)))
    return torch.cat(parts)


def _less_zero(context: Context, a: torch.Tensor, acc: torch.Tensor) -> torch.Tensor:
    """``acc`` less the weights' zero point times the sums of ``a``'s rows."""
    zero = context.state.mmu_weight.zero
    return acc.sub_(matmul_i8(a, _ones(context, a.shape[1])).mul_(zero)) if zero else acc


def _columns(context: Context, inst: MmuRun, pixels: int, columns: int) -> torch.Tensor | None:
    """im2col: int8 [pixels, K], without a copy for dense pointwise windows; None if it needs too much memory."""
    window, out, tile = context.state.mmu_window, context.state.mmu_output, context.state.mmu_input
    kernel_h, kernel_w, channels = window.kernel_h, window.kernel_w, tile.channels
    grid = _tile(context, inst, channels)
    if grid is None or pixels * columns > BUFFER_BYTES:
        return None
    row, col = grid.stride(0), grid.stride(1)
    shape = (out.height, out.width, kernel_h, kernel_w, channels)
    steps = (window.stride_h * row, window.stride_w * col, window.dilation_h * row, window.dilation_w * col, 1)
    if kernel_h == 1 == kernel_w and (step := _pixel_step(out.height, out.width, steps[0], steps[1], channels)):
        return grid.as_strided((pixels, channels), (step, 1))
    buffer = context.scratch("columns", shape, torch.int8)
    buffer.copy_(grid.as_strided(shape, steps))
    return buffer.view(pixels, columns)


def _pixel_step(height: int, width: int, row: int, col: int, channels: int) -> int:
    """Byte distance between all neighbouring pixels of a pointwise window, or 0 if a copy is needed."""
    step = channels if height == 1 == width else row if width == 1 else col
    return step if step >= channels and (height == 1 or width == 1 or row == width * col) else 0


def _tile(context: Context, inst: MmuRun, channels: int) -> torch.Tensor | None:
    """int8 [rows, columns, channels] that the window reaches: a view if all lie in the tile, else padded.

    None if padding needs too much memory.
    """
    window, out, tile = context.state.mmu_window, context.state.mmu_output, context.state.mmu_input
    top, left = -window.pad_top, -window.pad_left
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return _inside(context, inst, range(rows), range(cols), channels)
    if rows * cols * channels > BUFFER_BYTES:
        return None
    padded = context.scratch("padded", (rows, cols, channels), torch.int8).fill_(tile.zero)
    inside_h, inside_w = _reached(context)
    if inside_h and inside_w:
        padded[inside_h.start - top : inside_h.stop - top, inside_w.start - left : inside_w.stop - left] = _inside(
            context, inst, inside_h, inside_w, channels
        )
    return padded


def _reached(context: Context) -> tuple[range, range]:
    """Rows and columns of the tile from the first to the last that some tap reads."""
    window, out, tile = context.state.mmu_window, context.state.mmu_output, context.state.mmu_input
    return (
        reach(out.height, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, tile.height),
        reach(out.width, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, tile.width),
    )


def _inside(context: Context, inst: MmuRun, rows: range, cols: range, channels: int) -> torch.Tensor:
    tile = context.state.mmu_input
    return context.memory.view(
        Memory.SRAM,
        torch.int8,
        inst.act + rows.start * tile.row_stride + cols.start * tile.pixel_stride,
        (len(rows), len(cols), channels),
        (tile.row_stride, tile.pixel_stride, 1),
    )


def _gather(context: Context, inst: MmuRun, start: int, stop: int) -> torch.Tensor:
    """Rows ``start`` .. ``stop`` - 1 of im2col by indexing: slow, but of bounded memory for any window."""
    window, out, tile = context.state.mmu_window, context.state.mmu_output, context.state.mmu_input
    pixel = torch.arange(start, stop)
    row = (pixel // out.width * window.stride_h - window.pad_top)[:, None, None]
    row = row + (torch.arange(window.kernel_h) * window.dilation_h)[:, None]
    col = (pixel % out.width * window.stride_w - window.pad_left)[:, None, None]
    col = col + torch.arange(window.kernel_w) * window.dilation_w
    inside_h, inside_w = _reached(context)
    size = (stop - start, window.kernel_h * window.kernel_w * tile.channels)
    if not inside_h or not inside_w:
        return torch.full(size, tile.zero, dtype=torch.int8)
    source = _inside(context, inst, inside_h, inside_w, tile.channels)
    valid = (row >= 0) & (row < tile.height) & (col >= 0) & (col < tile.width)
    row, col = torch.where(valid, row, inside_h.start), torch.where(valid, col, inside_w.start)
    found = source[row - inside_h.start, col - inside_w.start]
    found.masked_fill_(~valid[..., None], tile.zero)
    return found.view(size)


def _depthwise(context: Context, inst: MmuRun) -> torch.Tensor:
    """The run's sums, int32 [pixels, n]: output channel n reads input channel n."""
    window, out, tile = context.state.mmu_window, context.state.mmu_output, context.state.mmu_input
    if inst.n != tile.channels:
        raise AccessError(f"depthwise n = {inst.n}: must equal mmu.input channels = {tile.channels}")
    taps = window.kernel_h * window.kernel_w
    shape = (out.height, out.width, inst.n)
    if taps == 0:
        return torch.zeros((1, 1), dtype=torch.int32)
    weight, grid = context.state.mmu_weight, _tile(context, inst, inst.n)
    if weight.row_stride == 0 and taps > 1:
        raise AccessError(f"mmu.weight row_stride = 0 with {taps} rows: must be at least 1")
    if grid is None:
        raise AccessError(f"depthwise window of {window}: reaches more than {BUFFER_BYTES} padded bytes")
    # Up to EXACT_TAPS products, binary32 holds every partial sum exactly; it is the faster type.
    dtype = torch.float32 if taps <= EXACT_TAPS else torch.int32
    centred = context.scratch("centred", tuple(grid.shape), dtype).copy_(grid).sub_(tile.zero)
    codes = context.memory.view(Memory.SRAM, torch.int8, inst.weight, (taps, inst.n), (weight.row_stride, 1))
    weights = codes.to(dtype).sub_(weight.zero)
    total = context.scratch("total", shape, dtype).zero_()
    row, col = centred.stride(0), centred.stride(1)
    for tap in range(taps):
        i, j = divmod(tap, window.kernel_w)
        source = centred.as_strided(
            shape,
            (window.stride_h * row, window.stride_w * col, 1),
            i * window.dilation_h * row + j * window.dilation_w * col,
        )
        total.addcmul_(source, weights[tap])
    return total.view(out.height * out.width, inst.n)
