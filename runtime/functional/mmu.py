"""MMU: convolutions and matrix products of codes, exact in the accumulators' type, and sequential binary32 ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from isa.access import Memory, reach, stored_bytes
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import STORED_BITS, DType, MmuInput, MmuOutput, MmuRun, MmuWindow, Mode
from isa.numerics import matmul_f32, matmul_i8
from isa.numerics.integer import takes_int_mm
from isa.state import CODEBOOK
from runtime.functional.context import Context, Step, bundle
from runtime.memory import TORCH_TYPES

BUFFER_BYTES = 1 << 26
"""Largest scratch buffer; what needs more goes through :func:`_gather` in pieces."""
INDEX_BYTES = 16
"""Bytes of indices per code that a piece may need."""
EXACT_SUM = 1 << 24
"""Every integer up to this one is a binary32."""
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
    context.machine.mmu.shape(inst.mode)
    item = STORED_BITS[inst.mode.accumulator] // 8
    kind = TORCH_TYPES[inst.mode.accumulator]
    acc = context.memory.target(Memory.ACC, kind, inst.acc, (pixels, inst.n), (out.pixel_stride, item))
    if inst.depthwise and inst.n != tile.channels:
        raise AccessError(f"depthwise n = {inst.n}: must equal mmu.input channels = {tile.channels}")
    if context.state.mmu_codes.decode and inst.mode.activation is not DType.I8:
        raise AccessError(f"decode in mode {inst.mode.name}: must be one with 8-bit activations")
    if window.kernel_h * window.kernel_w * tile.channels == 0:
        yield from () if inst.accumulate else (acc.zero_,)
    elif inst.depthwise:
        yield from _depthwise(context, inst, acc)
    elif inst.mode.accumulator is DType.I32 and not context.state.mmu_codes.per_channel:
        yield from _matrix(context, inst, acc)
    else:
        yield from _general(context, inst, acc)


def _zero_a(context: Context, inst: MmuRun) -> int:
    return 0 if inst.mode is Mode.F32 else context.state.mmu_codes.act_zero


def _matrix(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """sum (a - za) (w - zw) = sum a w - zw sum a - za (sum w - K zw): small products correct a large one."""
    setup = tile, _, _ = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    zero_a, zero_w = _zero_a(context, inst), context.state.mmu_codes.weight_zero
    if not takes_int_mm(TORCH):
        yield from _centred(context, inst, acc)
        return
    weights, steps = _weights(context, inst)
    yield from steps
    pixels, columns = acc.shape[0], weights.shape[1]
    product = context.scratch("product", (pixels, inst.n), torch.int32)
    grid, steps = _tile(context, inst, setup)
    if grid is None or pixels * columns > BUFFER_BYTES:
        inside, steps = _inside(context, inst, tile, *_reached(setup))
        yield from steps
        yield partial(_in_pieces, inside, setup, zero_a, weights, zero_w, product)
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
        sums, held = _column_sums(context, inst, weights)
        if not held:
            yield _product(_ones(context, columns), weights, sums)
            if zero_w:
                yield partial(sums.sub_, columns * zero_w)
        if not inst.accumulate:
            yield partial(torch.sub, product, sums, alpha=zero_a, out=acc)
            return
        yield partial(product.sub_, sums, alpha=zero_a)
    yield partial(acc.add_ if inst.accumulate else acc.copy_, product)


def _centred(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """sum (a - za) (w - zw) in binary32, in chunks short enough that every partial sum is an exact integer."""
    setup = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    zero_a, zero_w = _zero_a(context, inst), context.state.mmu_codes.weight_zero
    weights, steps = _centred_weights(context, inst, zero_w)
    yield from steps
    pixels, columns = acc.shape[0], weights.shape[1]
    terms = EXACT_SUM // (_span(inst.mode.activation, zero_a) * _span(inst.mode.weight, zero_w))
    product = context.scratch("product", (pixels, inst.n), torch.float32)
    whole = acc if not inst.accumulate else context.scratch("integers", (pixels, inst.n), torch.int32)
    grid, steps = _tile(context, inst, setup)
    if grid is None or pixels * columns > BUFFER_BYTES // 4:
        inside, steps = _inside(context, inst, setup[0], *_reached(setup))
        yield from steps
        yield partial(_centred_pieces, inside, setup, zero_a, weights, terms, product, whole)
    else:
        yield from steps
        a, steps = _centred_columns(context, grid, setup, zero_a)
        yield from steps
        yield from _chunked(a, weights, terms, product, whole)
    if inst.accumulate:
        yield partial(acc.add_, whole)


def _span(kind: DType, zero: int) -> int:
    """Largest |code - zero|."""
    high = 1 << (STORED_BITS[kind] - 1)
    return max(high + zero, high - 1 - zero)


def _chunked(
    a: torch.Tensor, weights: torch.Tensor, terms: int, product: torch.Tensor, out: torch.Tensor
) -> Iterator[Step]:
    """out = a @ weights^T, ``terms`` of the sum at a time."""
    for start in range(0, a.shape[1], terms):
        chunk = slice(start, start + terms)
        yield partial(torch.mm, a[:, chunk], weights[:, chunk].t(), out=product)
        if start == 0:
            yield partial(out.copy_, product)
        else:
            yield lambda: out.add_(product.to(torch.int32))


def _centred_pieces(
    inside: torch.Tensor,
    setup: Setup,
    zero: int,
    weights: torch.Tensor,
    terms: int,
    product: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """:func:`_chunked` of a window whose im2col is too large, some pixels at a time."""
    step = max(1, BUFFER_BYTES // (INDEX_BYTES * weights.shape[1]))
    for start in range(0, len(out), step):
        part = slice(start, min(start + step, len(out)))
        a = _gather(inside, setup, zero, part.start, part.stop).float().sub_(zero)
        for run in _chunked(a, weights, terms, product[part], out[part]):
            run()


def _centred_weights(context: Context, inst: MmuRun, zero: int) -> tuple[torch.Tensor, list[Step]]:
    """w - zero as binary32 [n, K], converted once per load."""
    codes, steps = _weights(context, inst)
    start, stop = _weight_bytes(context, inst)
    key = ("centred", start, stop, tuple(codes.shape), context.state.mmu_weight, inst.mode, zero)
    found, held = context.memory.derived(key, start, stop, tuple(codes.shape), torch.float32)
    return found, [] if held else [*steps, *_less(codes, zero, found)]


def _centred_columns(
    context: Context, grid: torch.Tensor, setup: Setup, zero: int
) -> tuple[torch.Tensor, list[Step]]:
    """im2col of a - zero, binary32 [pixels, K]: converted before windows multiply it."""
    _, window, _ = setup
    if window.kernel_h == 1 == window.kernel_w:
        codes, steps = _columns(context, grid, setup)
        found = context.scratch("centred columns", tuple(codes.shape), torch.float32)
        return found, [*steps, *_less(codes, zero, found)]
    whole = context.scratch("centred grid", tuple(grid.shape), torch.float32)
    found, steps = _columns(context, whole, setup)
    return found, [*_less(grid, zero, whole), *steps]


def _less(codes: torch.Tensor, zero: int, out: torch.Tensor) -> list[Step]:
    """out = codes - zero, exact."""
    return [partial(out.copy_, codes), *([partial(out.sub_, zero)] if zero else [])]


def _general(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Wide codes and zero points per channel in binary64, whose sums are exact; binary32 in the order of the sum."""
    setup = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    weights, steps = _weights(context, inst)
    yield from steps
    grid, steps = _tile(context, inst, setup)
    if grid is None or acc.shape[0] * weights.shape[1] > BUFFER_BYTES:
        raise AccessError(f"a {inst.mode.name} window of {acc.shape[0]} x {weights.shape[1]} elements: tile it")
    yield from steps
    a, steps = _columns(context, grid, setup)
    yield from steps
    if inst.mode is Mode.F32:
        yield partial(_sequential, a, weights, setup, acc, bool(inst.accumulate))
        return
    zeros = _zero_a(context, inst), _weight_zeros(context, inst.n)
    yield partial(_exact, a, zeros[0], weights, zeros[1], acc, bool(inst.accumulate))


def _weight_zeros(context: Context, n: int) -> torch.Tensor:
    """int16 [n, 1], or [1, 1] when all channels have the same zero point."""
    codes = context.state.mmu_codes
    if not codes.per_channel:
        return context.constant((1, 1), codes.weight_zero, torch.int16)
    return context.memory.view(Memory.SRAM, torch.int16, codes.weight_zeros, (n, 1), (2, 2))


def _exact(
    a: torch.Tensor, zero: int, w: torch.Tensor, zeros: torch.Tensor, acc: torch.Tensor, accumulate: bool
) -> None:
    product = ((a.double() - zero) @ (w.double() - zeros.double()).t()).to(torch.int64).to(acc.dtype)
    acc.add_(product) if accumulate else acc.copy_(product)


def _sequential(a: torch.Tensor, w: torch.Tensor, setup: Setup, acc: torch.Tensor, accumulate: bool) -> None:
    """K of ``a`` and ``w`` runs over (kh, kw, c); the sum runs over (c, kh, kw)."""
    tile, window, _ = setup
    taps = window.kernel_h * window.kernel_w
    order = torch.arange(taps * tile.channels).view(taps, tile.channels).t().reshape(-1)
    start = acc.clone() if accumulate else None
    acc.copy_(matmul_f32(a[:, order] if taps > 1 else a, w[:, order] if taps > 1 else w, start))


def _product(a: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> Step:
    """out[m, n] = sum_k a[m, k] * w[n, k]."""
    # matmul_i8 takes the same product, but checks and allocates on every call.
    if a.shape[1] > 1:
        return partial(TORCH._int_mm, a, w.t(), out=out)
    return lambda: out.copy_(matmul_i8(a, w))


def _column_sums(context: Context, inst: MmuRun, weights: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """A buffer [1, n] for sum_k (w - zero_w), and whether an earlier product with the same weights has filled it."""
    start, stop, zero = *_weight_bytes(context, inst), context.state.mmu_codes.weight_zero
    key = ("sums", start, stop, tuple(weights.shape), context.state.mmu_weight, inst.mode, zero)
    return context.memory.derived(key, start, stop, (1, weights.shape[0]))


def _ones(context: Context, columns: int) -> torch.Tensor:
    return context.constant((1, columns), 1, torch.int8)


def _weight_rows(context: Context, inst: MmuRun) -> tuple[tuple[int, int], int]:
    """(rows, elements of a row) of the weights as they lie, and the bytes between rows."""
    tile, window, weight = context.state.mmu_input, context.state.mmu_window, context.state.mmu_weight
    columns = window.kernel_h * window.kernel_w * tile.channels
    shape = (columns, inst.n) if weight.transposed else (inst.n, columns)
    row = stored_bytes(shape[1], inst.mode.weight)
    stride = weight.row_stride if shape[0] > 1 else row
    if stride < row:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {row} bytes: rows must not overlap")
    return shape, stride


def _weight_bytes(context: Context, inst: MmuRun) -> tuple[int, int]:
    """First and one past the last byte of the weights."""
    shape, stride = _weight_rows(context, inst)
    return inst.weight, inst.weight + (shape[0] - 1) * stride + stored_bytes(shape[1], inst.mode.weight)


def _weights(context: Context, inst: MmuRun) -> tuple[torch.Tensor, list[Step]]:
    """[n, K] as the mode stores them, a view where the layout allows; 4-bit codes are unpacked once per load."""
    shape, stride = _weight_rows(context, inst)
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
    return codes[:, : shape[1]], [] if held else [partial(unpack_into, packed, codes)]


def unpack_into(packed: torch.Tensor, codes: torch.Tensor) -> None:
    """int8 bytes [..., m] of two 4-bit codes each, the first in the low half, to int8 codes [..., 2*m]."""
    torch.bitwise_right_shift(packed, 4, out=codes[..., 1::2])
    low = codes[..., 0::2]
    torch.bitwise_left_shift(packed, 4, out=low)
    low.bitwise_right_shift_(4)


def _columns(context: Context, grid: torch.Tensor, setup: Setup) -> tuple[torch.Tensor, list[Step]]:
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


def _tile(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """[rows, columns, channels] that the window reaches: a view if all lie in the tile, else padded.

    None if padding needs too much memory.
    """
    tile, window, out = setup
    rows = (out.height - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (out.width - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    if top == 0 == left and rows <= tile.height and cols <= tile.width:
        return _inside(context, inst, tile, range(rows), range(cols))
    if rows * cols * tile.channels > BUFFER_BYTES:
        return None, []
    padded = context.scratch("padded", (rows, cols, tile.channels), TORCH_TYPES[inst.mode.activation])
    steps: list[Step] = [partial(padded.fill_, _zero_a(context, inst))]
    h, w = _reached(setup)
    if h and w:
        target = padded[h.start + top : h.stop + top, w.start + left : w.stop + left]
        inside, unpack = _inside(context, inst, tile, h, w)
        steps += [*unpack, partial(target.copy_, inside)]
    return padded, steps


def _reached(setup: Setup) -> tuple[range, range]:
    """Rows and columns of the tile from the first to the last that some tap reads."""
    tile, window, out = setup
    return (
        reach(out.height, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, tile.height),
        reach(out.width, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, tile.width),
    )


def _inside(
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
    steps: list[Step] = [partial(unpack_into, view, whole)]
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


def _in_pieces(
    inside: torch.Tensor, setup: Setup, zero_a: int, weights: torch.Tensor, zero_w: int, product: torch.Tensor
) -> None:
    """product = sum a (w - zero_w) of a window whose im2col is too large, some pixels at a time."""
    step = max(1, BUFFER_BYTES // (INDEX_BYTES * weights.shape[1]))
    ones = torch.ones((1, weights.shape[1]), dtype=torch.int8)
    for start in range(0, len(product), step):
        part = product[start : start + step]
        a = _gather(inside, setup, zero_a, start, start + len(part))
        part.copy_(matmul_i8(a, weights))
        if zero_w:
            part.sub_(matmul_i8(a, ones), alpha=zero_w)


def _gather(inside: torch.Tensor, setup: Setup, zero: int, start: int, stop: int) -> torch.Tensor:
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
    h, w = _reached(setup)
    valid = (row >= 0) & (row < tile.height) & (col >= 0) & (col < tile.width)
    row, col = torch.where(valid, row, h.start), torch.where(valid, col, w.start)
    found = inside[row - h.start, col - w.start]
    found.masked_fill_(~valid[..., None], zero)
    return found.view(size)


def _depthwise(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Sums over taps of whole planes: output channel n reads input channel n."""
    setup = _, window, out = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    taps, kind = window.kernel_h * window.kernel_w, inst.mode.weight
    row, stride = stored_bytes(inst.n, kind), context.state.mmu_weight.row_stride
    if stride < row and taps > 1:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {row} bytes: rows must not overlap")
    codes, steps = _tap_rows(context, inst, taps, stride)
    yield from steps
    grid, steps = _tile(context, inst, setup)
    if grid is None:
        raise AccessError(f"the depthwise window reaches more than {BUFFER_BYTES} bytes with its padding: tile it")
    yield from steps
    # Up to EXACT_TAPS products of 8-bit codes, binary32 holds every partial sum exactly; it is the faster type.
    narrow = inst.mode.accumulator is DType.I32 and taps <= EXACT_TAPS and not context.state.mmu_codes.per_channel
    dtype = torch.float32 if narrow or inst.mode is Mode.F32 else torch.float64
    centred = context.scratch("centred", tuple(grid.shape), dtype)
    yield partial(centred.copy_, grid)
    if zero := _zero_a(context, inst):
        yield partial(centred.sub_, zero)
    weights = context.scratch("taps", (taps, inst.n), dtype)
    yield partial(weights.copy_, codes)
    if inst.mode is not Mode.F32 and (context.state.mmu_codes.per_channel or context.state.mmu_codes.weight_zero):
        yield partial(weights.sub_, _weight_zeros(context, inst.n).view(1, -1))
    shape = (out.height, out.width, inst.n)
    total, product = context.scratch("total", shape, dtype), context.scratch("tap", shape, dtype)
    height, width = centred.stride(0), centred.stride(1)
    strides = (window.stride_h * height, window.stride_w * width, 1)

    def plane(tap: int) -> torch.Tensor:
        i, j = divmod(tap, window.kernel_w)
        return centred.as_strided(shape, strides, i * window.dilation_h * height + j * window.dilation_w * width)

    if inst.mode is Mode.F32:
        yield partial(total.copy_, acc.view(shape)) if inst.accumulate else total.zero_
        for tap in range(taps):
            yield partial(torch.mul, plane(tap), weights[tap], out=product)
            yield partial(total.add_, product)
        yield partial(acc.copy_, total.view(acc.shape))
        return
    yield partial(torch.mul, plane(0), weights[0], out=total)
    yield from bundle(lambda: (partial(total.addcmul_, plane(tap), weights[tap]) for tap in range(1, taps)), taps - 1)
    whole = context.scratch("product", shape, acc.dtype) if inst.accumulate else acc.view(shape)
    yield partial(whole.copy_, total)
    if inst.accumulate:
        yield partial(acc.add_, whole.view(acc.shape))


def _tap_rows(context: Context, inst: MmuRun, taps: int, stride: int) -> tuple[torch.Tensor, list[Step]]:
    """Depthwise weights [taps, n]."""
    kind = inst.mode.weight
    if kind is DType.I4:
        return _unpacked_weights(context, inst, (taps, inst.n), stride)
    item = STORED_BITS[kind] // 8
    return context.memory.view(Memory.SRAM, TORCH_TYPES[kind], inst.weight, (taps, inst.n), (stride, item)), []
