"""Depthwise products: sums over taps of whole planes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from isa.access import stored_bytes
from isa.errors import AccessError
from isa.instructions import DType, MmuRun, Mode
from runtime.functional import operands
from runtime.functional.centred import centred_grid
from runtime.functional.context import Context, Step, bundle
from runtime.functional.operands import Setup, tap_rows, tile_of, weight_zeros, zero_of_activations

EXACT_TAPS = 256
"""|x - zx| * |w - zw| <= 255^2, so sums of this many products are exact in binary32."""


def depthwise(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Sums over taps of whole planes: output channel n reads input channel n."""
    setup = _, window, out = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    taps, kind = window.kernel_h * window.kernel_w, inst.mode.weight
    row, stride = stored_bytes(inst.n, kind), context.state.mmu_weight.row_stride
    if stride < row and taps > 1:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {row} bytes: rows must not overlap")
    codes, steps = tap_rows(context, inst, taps, stride)
    yield from steps
    # Up to EXACT_TAPS products of 8-bit codes, binary32 holds every partial sum exactly; it is the faster type.
    narrow = inst.mode.accumulator is DType.I32 and taps <= EXACT_TAPS and not context.state.mmu_codes.per_channel
    dtype = torch.float32 if narrow or inst.mode is Mode.F32 else torch.float64
    centred, steps = (centred_grid if narrow else _wide_grid)(context, inst, setup)
    if centred is None:
        raise AccessError(
            f"the depthwise window reaches more than {operands.BUFFER_BYTES} bytes with its padding: tile it"
        )
    yield from steps
    weights = context.scratch("taps", (taps, inst.n), dtype)
    yield partial(weights.copy_, codes)
    if inst.mode is not Mode.F32 and (context.state.mmu_codes.per_channel or context.state.mmu_codes.weight_zero):
        yield partial(weights.sub_, weight_zeros(context, inst.n).view(1, -1))
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


def _wide_grid(context: Context, inst: MmuRun, setup: Setup) -> tuple[torch.Tensor | None, list[Step]]:
    """a - zero, [rows, columns, channels], as binary32 in mode F32 and else as binary64."""
    grid, steps = tile_of(context, inst, setup)
    if grid is None:
        return None, []
    dtype = torch.float32 if inst.mode is Mode.F32 else torch.float64
    centred = context.scratch("centred", tuple(grid.shape), dtype)
    steps = [*steps, partial(centred.copy_, grid)]
    zero = zero_of_activations(context, inst)
    return centred, [*steps, partial(centred.sub_, zero)] if zero else steps
