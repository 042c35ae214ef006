"""VCU: straight-line binary32 programs over streams; every operation rounds once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch

from isa.access import BINARY_FUNCS, ON_CHIP, Memory, row_bytes
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import DType, Operand, Reduce, Resize, RowReduce, VcuRun
from isa.instructions.vcu import STREAM_OUTPUT
from isa.numerics import powers
from isa.numerics.rows import WIDEST_MOMENTS
from runtime.functional.bound import bound
from runtime.functional.context import Context, Step
from runtime.functional.streams import plain, resized, stream_row, windowed
from runtime.loops.layout import ENCODED, Row, Shape, bits
from runtime.memory import TORCH_TYPES


def vcu_run(context: Context, inst: Instruction) -> Iterator[Step]:
    """out = convert(program(convert(streams))) on every element of n0 x n1 x n2."""
    assert isinstance(inst, VcuRun)
    state, memory = context.state, context.memory.bytes
    shape = (state.vcu_shape.n0, state.vcu_shape.n1, state.vcu_shape.n2)
    _check(context, inst)
    if 0 in shape:
        return
    output, reduction = _output(context, inst, shape), _reduction(context, shape)
    streams, tile = list[Row](), memory[Memory.SRAM]
    addresses = (inst.a, inst.b, state.vcu_base.c, state.vcu_base.d)
    for number in range(inst.streams):
        if number == 0 and state.vcu_window.reduce != Reduce.NONE:
            row, tile, step = windowed(context, addresses[0], shape)
            yield step
        elif number == 0 and state.vcu_resizes[0].kind != Resize.NONE:
            row, tile, step = resized(context, addresses[0], shape)
            yield step
        else:
            row = plain(context, number, addresses[number], shape)
        streams.append(row)
    table, room = context.tables.table(
        shape,
        streams,
        state.program(inst.first, inst.count),
        (state.vcu_params.base, state.vcu_params.stride),
        output,
        reduction,
        _thresholds(context),
        lambda vector: _parameter(context, vector, shape),
    )
    blocks = context.scratch("vector blocks", (room,), torch.uint8)
    yield bound("vector.run_program", table, memory[Memory.SRAM], memory[Memory.ACC], tile, blocks)


def _check(context: Context, inst: VcuRun) -> None:
    vcu = context.machine.vcu
    if (context.state.vcu_resizes[0].kind == Resize.NONE) != (context.state.vcu_resizes[1].kind == Resize.NONE):
        raise AccessError("vcu.resize of one axis only: set both, to the same kind")
    if context.state.vcu_resizes[0].kind != Resize.NONE and context.state.vcu_window.reduce != Reduce.NONE:
        raise AccessError("vcu.resize beside a window reduction: turn one of them off")
    if inst.streams > 4:
        raise AccessError(f"streams = {inst.streams}: must be at most 4 (A..D)")
    if inst.first + inst.count > vcu.slots:
        raise AccessError(f"slots {inst.first} .. {inst.first + inst.count - 1}: the machine has {vcu.slots}")
    for op in context.state.program(inst.first, inst.count) if vcu.registers < 16 else ():
        used = (op.dst, op.a, op.b if op.b_kind == Operand.REGISTER and op.func in BINARY_FUNCS else 0)
        if max(used) >= vcu.registers:
            raise AccessError(f"slot {op.slot} uses register {max(used)}: the machine has {vcu.registers}")


def _output(context: Context, inst: VcuRun, shape: Shape) -> Row | None:
    """The stream to which elements go; None when only rows are kept."""
    state = context.state
    if state.vcu_reduce.kind != RowReduce.NONE and not state.vcu_reduce.elements:
        return None
    out = state.vcu_streams[STREAM_OUTPUT]
    if out.encode and out.dtype is not DType.I4:
        raise AccessError(f"an encoded output is {out.dtype.name}: must be I4")
    if out.dtype is DType.I64:
        raise AccessError("an output stream is I64: accumulators are written by the MMU only")
    stored, strides = shape, (out.stride0, out.stride1, out.stride2)
    if out.dtype is DType.I4:
        if out.stride2 != 1 and shape[2] > 1:
            raise AccessError(f"output stride2 = {out.stride2} of 4-bit codes: must be 1")
        stored, strides = (*shape[:2], (shape[2] + 1) // 2), (*strides[:2], 1)
    context.memory.target(ON_CHIP[out.space], TORCH_TYPES[out.dtype], inst.dst, stored, strides)
    row = stream_row(out, inst.dst, state.vcu_converts[STREAM_OUTPUT])
    return (ENCODED, *row[1:]) if out.encode else row


def _thresholds(context: Context) -> tuple[int, ...]:
    """Bits of the encoder's thresholds, where there is an encoder."""
    if not context.state.vcu_streams[STREAM_OUTPUT].encode:
        return ()
    return tuple(bits(t.value) for t in context.state.vcu_thresholds)


def _reduction(context: Context, shape: Shape) -> Row:
    """What becomes of rows: one binary32 each, or two; whether elements are written as well."""
    reduce = context.state.vcu_reduce
    if reduce.kind == RowReduce.NONE:
        return (RowReduce.NONE, 1, 0, 0, 0, 0, 0, 0)
    if reduce.kind in (RowReduce.SQUARES, RowReduce.MOMENTS) and shape[2] > WIDEST_MOMENTS:
        raise AccessError(f"{reduce.kind.name} of rows of {shape[2]}: must be at most {WIDEST_MOMENTS}")
    stride = row_bytes(reduce.kind)
    for i in range(stride // 4):
        context.memory.target(
            Memory.SRAM, torch.float32, reduce.dst + 4 * i, shape[:2], (stride * shape[1], stride)
        )
    return (reduce.kind, reduce.elements, reduce.dst, *_powers(reduce.fraction))


@cache
def _powers(fraction: int) -> Row:
    """Bits of 2**fraction and of the factors that undo it, for a sum and for a sum of squares."""
    return tuple(map(bits, (2.0**fraction, *powers(-fraction), *powers(-2 * fraction))))


def _parameter(context: Context, vector: int, shape: Shape) -> int:
    """The address of parameter vector number ``vector``."""
    params = context.state.vcu_params
    address = params.base + vector * params.stride
    context.memory.view(Memory.SRAM, torch.float32, address, (1, 1, shape[2]), (0, 0, 4))
    return address
