"""Operands of the matrix unit: views of SRAM where the layout allows, else codes unpacked, padded or gathered."""

from __future__ import annotations

from functools import partial

import torch

from isa.access import Memory, reach, stored_bytes
from isa.errors import AccessError
from isa.instructions import STORED_BITS, DType, MmuInput, MmuOutput, MmuRun, MmuWindow, Mode
from isa.state import CODEBOOK
from runtime.functional.bound import bound
from runtime.functional.context import Context, Step
from runtime.memory import TORCH_TYPES

BUFFER_BYTES = 1 << 26
"""Largest scratch buffer; what needs more goes through :func:`gather` in pieces."""
INDEX_BYTES = 16
"""Bytes of indices per code that a piece may need."""

Setup = tuple[MmuInput, MmuWindow, MmuOutput]


def fits(elements: int, item: int = 1) -> bool:
    """Whether so many elements of ``item`` bytes may lie in one scratch buffer."""
    return elements * item <= BUFFER_BYTES


def pixels_of_piece(columns: int) -> int:
    """Rows of im2col, of ``columns`` codes each, that :func:`gather` gives at a time."""
    return max(1, BUFFER_BYTES // (INDEX_BYTES * columns))


def weight_rows(context: Context, inst: MmuRun) -> tuple[tuple[int, int], int]:
    """(rows, elements of a row) of the weights as they lie, and the bytes between rows."""
    tile, window, weight = context.state.mmu_input, context.state.mmu_window, context.state.mmu_weight
    columns = window.kernel_h * window.kernel_w * tile.channels
    shape = (columns, inst.n) if weight.transposed else (inst.n, columns)
    row = stored_bytes(shape[1], inst.mode.weight)
    stride = weight.row_stride if shape[0] > 1 else row
    if stride < row:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {row} bytes: rows must not overlap")
    return shape, stride


def weight_bytes(context: Context, inst: MmuRun) -> tuple[int, int]:
    """First and one past the last byte of the weights."""
    shape, stride = weight_rows(context, inst)
    return inst.weight, inst.weight + (shape[0] - 1) * stride + stored_bytes(shape[1], inst.mode.weight)


def weights_of(context: Context, inst: MmuRun) -> tuple[torch.Tensor, list[Step]]:
    """[n, K] as the mode stores them, a view where the layout allows; 4-bit codes are unpacked once per load."""
    shape, stride = weight_rows(context, inst)
    kind, transposed = inst.mode.weight, context.state.mmu_weight.transposed
    if kind is DType.I4:
        found, steps = _unpacked_weights(context, inst, shape, stride)
    else:
        item = STORED_BITS[kind] // 8
        found, steps = context.memory.view(Memory.SRAM, TORCH_TYPES[kind], inst.weight, shape, (stride, item)), []
    return (found.t() if transposed else found), steps


def _unpacked_weights(
    context: Context, inst: MmuRun, shape: tuple[int, int], stride: int
) -> tuple[torch.Tensor, list[Step]]:
    packed = context.memory.view(
        Memory.SRAM, torch.int8, inst.weight, (shape[0], (shape[1] + 1) // 2), (stride, 1)
    )
    start = inst.weight
    stop = start + (shape[0] - 1) * stride + packed.shape[1]
    key = ("weights", start, stop, shape, stride)
    codes, held = context.memory.derived(key, start, stop, (shape[0], 2 * packed.shape[1]), torch.int8)
    return codes[:, : shape[1]], [] if held else [_unpacking(packed[None], codes)]


def _unpacking(packed: torch.Tensor, codes: torch.Tensor) -> Step:
    """From int8 bytes [h, w, n] of two 4-bit codes each, the first in the low half, to int8 codes [h, w, 2 * n]."""
    return bound("products.unpack", packed, packed.stride()[:2], tuple(packed.shape), codes)


def tap_rows(context: Context, inst: MmuRun, taps: int, stride: int) -> tuple[torch.Tensor, list[Step]]:
    """Depthwise weights [taps, n]."""
    kind = inst.mode.weight
    if kind is DType.I4:
        return _unpacked_weights(context, inst, (taps, inst.n), stride)
    item = STORED_BITS[kind] // 8
    return context.memory.view(Memory.SRAM, TORCH_TYPES[kind], inst.weight, (taps, inst.n), (stride, item)), []


def zero_of_activations(context: Context, inst: MmuRun) -> int:
    return 0 if inst.mode is Mode.F32 else context.state.mmu_codes.act_zero


def weight_zeros(context: Context, n: int) -> torch.Tensor:
    """int16 [n, 1], or [1, 1] when all channels have the same zero point."""
    codes = context.state.mmu_codes
    if not codes.per_channel:
        return context.constant((1, 1), codes.weight_zero, torch.int16)
    return context.memory.view(Memory.SRAM, torch.int16, codes.weight_zeros, (n, 1), (2, 2))


def columns_of(context: Context, grid: torch.Tensor, setup: Setup) -> tuple[torch.Tensor, list[Step]]:
    """im2col: [pixels, K], without a copy for dense pointwise windows."""
    tile, window, out = setup
    row, col = grid.stride(0), grid.stride(1)
    shape = (out.height, out.width, window.kernel_h, window.kernel_w, tile.channels)
    steps = (window.stride_h * row, window.stride_w * col, window.dilation_h * row, window.dilation_w * col, 1)
    pixels = out.height * out.width
    if window.kernel_h == 1 == window.kernel_w and (step := _pixel_step(out, steps[0], steps[1], tile.channels)):
        return grid.as_strided((pixels, tile.channels), (step, 1)), []
    buffer = context.scratch("columns", shape, grid.dtype)
    return buffer.view(pixels, -1), [partial(buffer.copy_, grid.as_strided(shape, steps))]


def _pixel_step(out: MmuOutput, row: int, col: int, channels: int) -> int:
    """Byte distance between all neighbouring pixels of a pointwise window, or 0 if a copy is needed."""
    step = channels if out.height == 1 == out.width else row if out.width == 1 else col
    even = out.height == 1 or out.width == 1 or row == out.width * col
    return step if even and step >= channels else 0


def tile_of(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """[rows, columns, channels] that the window reaches: a view if all lie in the tile, else padded.

    None if padding needs too much memory.
    """
    tile, window, out = setup
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return inside_of(context, inst, tile, range(rows), range(cols))
    if not fits(rows * cols * tile.channels):
        return None, []
    padded = context.scratch("padded", (rows, cols, tile.channels), TORCH_TYPES[inst.mode.activation])
    steps: list[Step] = [partial(padded.fill_, zero_of_activations(context, inst))]
    h, w = reached(setup)
    if h and w:
        target = padded[h.start + top : h.stop + top, w.start + left : w.stop + left]
        inside, unpack = inside_of(context, inst, tile, h, w)
        steps += [*unpack, partial(target.copy_, inside)]
    return padded, steps


def reached(setup: Setup) -> tuple[range, range]:
    """Rows and columns of the tile from the first to the last that some tap reads."""
    tile, window, out = setup
    return (
        reach(out.height, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, tile.height),
        reach(out.width, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, tile.width),
    )


def inside_of(
    context: Context, inst: MmuRun, tile: MmuInput, rows: range, cols: range
) -> tuple[torch.Tensor, list[Step]]:
    """Pixels of the tile as the mode computes with them: a view, or 4-bit codes unpacked and decoded."""
    codes = context.state.mmu_codes
    kind = DType.I4 if codes.decode else inst.mode.activation
    shape, item = (len(rows), len(cols), tile.channels), max(STORED_BITS[kind] // 8, 1)
    stored = (*shape[:2], stored_bytes(tile.channels, kind) // item)
    view = context.memory.view(
        Memory.SRAM,
        TORCH_TYPES[kind],
        inst.act + rows.start * tile.row_stride + cols.start * tile.pixel_stride,
        stored,
        (tile.row_stride, tile.pixel_stride, item),
    )
    if kind is not DType.I4:
        return view, []
    whole = context.scratch("activations", (*shape[:2], 2 * stored[2]), torch.int8)
    steps: list[Step] = [_unpacking(view, whole)]
    if codes.decode:
        steps.append(partial(_decode, whole, _table(context)))
    return whole[..., : tile.channels], steps


def _table(context: Context) -> torch.Tensor:
    """The decode table, int8 [16]."""
    entries = [0] * CODEBOOK
    for index in range(0, CODEBOOK, 4):
        held = context.state.mmu_tables[index]
        entries[index : index + 4] = [held.v0, held.v1, held.v2, held.v3]
    return torch.tensor(entries, dtype=torch.int8)


def _decode(codes: torch.Tensor, table: torch.Tensor) -> None:
    codes.copy_(table[codes.long() + CODEBOOK // 2])


def gather(inside: torch.Tensor, setup: Setup, zero: int, start: int, stop: int) -> torch.Tensor:
    """Rows ``start`` .. ``stop`` - 1 of im2col by indexing: slow, but of bounded memory for any window."""
    tile, window, out = setup
    pixel = torch.arange(start, stop)
    row = (pixel // out.width * window.stride_h - window.pad_top)[:, None, None]
    row = row + (torch.arange(window.kernel_h) * window.dilation_h)[:, None]
    col = (pixel % out.width * window.stride_w - window.pad_left)[:, None, None]
    col = col + torch.arange(window.kernel_w) * window.dilation_w
    size = (stop - start, window.kernel_h * window.kernel_w * tile.channels)
    if inside.numel() == 0:
        return torch.full(size, zero, dtype=torch.int8)
    h, w = reached(setup)
    valid = (row >= 0) & (row < tile.height) & (col >= 0) & (col < tile.width)
    row, col = torch.where(valid, row, h.start), torch.where(valid, col, w.start)
    found = inside[row - h.start, col - w.start]
    found.masked_fill_(~valid[..., None], zero)
    return found.view(size)
