"""Depthwise products: sums over taps of whole planes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from isa.access import Memory, stored_bytes
from isa.errors import AccessError
from isa.instructions import MmuRun, Mode
from runtime.functional import operands
from runtime.functional.bound import bound
from runtime.functional.context import Context, Step, bundle
from runtime.functional.narrow import centring, is_narrow, narrow_grid
from runtime.functional.operands import Setup, tap_rows, tile_of, weight_zeros, zero_of_activations

TOO_LARGE = "the depthwise window reaches more than {} bytes with its padding: tile it"


def depthwise(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Sums over taps of whole planes: output channel n reads input channel n."""
    setup = _, window, out = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    taps, kind = window.kernel_h * window.kernel_w, inst.mode.weight
    row, stride = stored_bytes(inst.n, kind), context.state.mmu_weight.row_stride
    if stride < row and taps > 1:
        raise AccessError(f"mmu.weight row_stride = {stride} with rows of {row} bytes: rows must not overlap")
    if is_narrow(context, inst):
        yield from _narrow(context, inst, setup, acc)
        return
    codes, steps = tap_rows(context, inst, taps, stride)
    yield from steps
    dtype = torch.float32 if inst.mode is Mode.F32 else torch.float64
    centred, steps = _wide_grid(context, inst, setup, dtype)
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


def _narrow(context: Context, inst: MmuRun, setup: Setup, acc: torch.Tensor) -> Iterator[Step]:
    """Sums of int16 products in int32."""
    _, window, out = setup
    grid, steps = narrow_grid(context, inst, setup)
    if grid is None:
        raise AccessError(TOO_LARGE.format(operands.BUFFER_BYTES))
    yield from steps
    taps, kind, stride = window.kernel_h * window.kernel_w, inst.mode.weight, context.state.mmu_weight.row_stride
    stored = (1, taps, stored_bytes(inst.n, kind))
    codes = context.memory.view(Memory.SRAM, torch.int8, inst.weight, stored, (0, stride, 1))
    weights = context.scratch("taps", (1, taps, inst.n), torch.int16)
    yield centring(kind, codes, inst.n, context.state.mmu_codes.weight_zero, weights)
    height, width = 2 * grid.stride(0), 2 * grid.stride(1)
    rows = (window.kernel_h, window.dilation_h * height, window.stride_h * height)
    columns = (window.kernel_w, window.dilation_w * width, window.stride_w * width)
    shape, add = (out.height, out.width, inst.n), bool(inst.accumulate)
    yield bound("products.depthwise", grid, shape, rows, columns, weights, add, 4 * acc.stride(0), acc)


def _wide_grid(
    context: Context, inst: MmuRun, setup: Setup, dtype: torch.dtype
) -> tuple[torch.Tensor, list[Step]]:
    """a - zero, [rows, columns, channels]."""
    grid, steps = tile_of(context, inst, setup)
    if grid is None:
        raise AccessError(TOO_LARGE.format(operands.BUFFER_BYTES))
    centred = context.scratch("centred", tuple(grid.shape), dtype)
    steps = [*steps, partial(centred.copy_, grid)]
    zero = zero_of_activations(context, inst)
    return centred, [*steps, partial(centred.sub_, zero)] if zero else steps
