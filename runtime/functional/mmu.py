"""MMU: convolutions and matrix products of codes, exact in the accumulators' type, and sequential binary32 ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from isa.access import Memory
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import STORED_BITS, DType, MmuRun, Mode
from isa.numerics import matmul_f32, matmul_i8
from isa.numerics.integer import takes_int_mm
from runtime.functional.context import Context, Step
from runtime.functional.depthwise import depthwise
from runtime.functional.narrow import is_narrow, narrow_product
from runtime.functional.operands import (
    Setup,
    columns_of,
    fits,
    gather,
    inside_of,
    pixels_of_piece,
    reached,
    tile_of,
    weight_bytes,
    weight_zeros,
    weights_of,
    zero_of_activations,
)
from runtime.memory import TORCH_TYPES

TORCH: Any = torch
"""Without types, for the one function that torch keeps private."""


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
        yield from depthwise(context, inst, acc)
    elif is_narrow(context, inst):
        yield from (_matrix if takes_int_mm(TORCH) else narrow_product)(context, inst, acc)
    else:
        yield from _general(context, inst, acc)


def _matrix(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """sum (a - za) (w - zw) = sum a w - zw sum a - za (sum w - K zw): small products correct a large one."""
    setup = tile, _, _ = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    zero_a, zero_w = zero_of_activations(context, inst), context.state.mmu_codes.weight_zero
    weights, steps = weights_of(context, inst)
    yield from steps
    pixels, columns = acc.shape[0], weights.shape[1]
    product = context.scratch("product", (pixels, inst.n), torch.int32)
    grid, steps = tile_of(context, inst, setup)
    if grid is None or not fits(pixels * columns):
        inside, steps = inside_of(context, inst, tile, *reached(setup))
        yield from steps
        yield partial(_in_pieces, inside, setup, zero_a, weights, zero_w, product)
    else:
        yield from steps
        a, steps = columns_of(context, grid, setup)
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


def _general(context: Context, inst: MmuRun, acc: torch.Tensor) -> Iterator[Step]:
    """Wide codes and zero points per channel in binary64, whose sums are exact; binary32 in the order of the sum."""
    setup = context.state.mmu_input, context.state.mmu_window, context.state.mmu_output
    weights, steps = weights_of(context, inst)
    yield from steps
    grid, steps = tile_of(context, inst, setup)
    if grid is None or not fits(acc.shape[0] * weights.shape[1]):
        raise AccessError(f"a {inst.mode.name} window of {acc.shape[0]} x {weights.shape[1]} elements: tile it")
    yield from steps
    a, steps = columns_of(context, grid, setup)
    yield from steps
    if inst.mode is Mode.F32:
        yield partial(_sequential, a, weights, setup, acc, bool(inst.accumulate))
        return
    zeros = zero_of_activations(context, inst), weight_zeros(context, inst.n)
    yield partial(_exact, a, zeros[0], weights, zeros[1], acc, bool(inst.accumulate))


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
    start, stop, zero = *weight_bytes(context, inst), context.state.mmu_codes.weight_zero
    key = ("sums", start, stop, tuple(weights.shape), context.state.mmu_weight, inst.mode, zero)
    return context.memory.derived(key, start, stop, (1, weights.shape[0]))


def _ones(context: Context, columns: int) -> torch.Tensor:
    return context.constant((1, columns), 1, torch.int8)


def _in_pieces(
    inside: torch.Tensor, setup: Setup, zero_a: int, weights: torch.Tensor, zero_w: int, product: torch.Tensor
) -> None:
    """product = sum a (w - zero_w) of a window whose im2col is too large, some pixels at a time."""
    step = pixels_of_piece(weights.shape[1])
    ones = torch.ones((1, weights.shape[1]), dtype=torch.int8)
    for start in range(0, len(product), step):
        part = product[start : start + step]
        a = gather(inside, setup, zero_a, start, start + len(part))
        part.copy_(matmul_i8(a, weights))
        if zero_w:
            part.sub_(matmul_i8(a, ones), alpha=zero_w)
