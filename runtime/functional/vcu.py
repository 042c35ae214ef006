"""VCU: straight-line binary32 programs over streams; every operation rounds once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from math import copysign
from typing import Any

import torch

from isa import numerics
from isa.access import CODES, ON_CHIP, Memory, interpolated, reach
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import DType, Func, Operand, Reduce, Resize, RowReduce, VcuConvert, VcuOp, VcuRun
from isa.instructions.vcu import STREAM_OUTPUT
from isa.numerics import positions
from isa.numerics.rows import WIDEST_MOMENTS
from isa.state import CODEBOOK
from runtime.functional.context import Context, Step, bundle
from runtime.functional.mmu import unpack_into
from runtime.memory import TORCH_TYPES

Shape = tuple[int, ...]
Value = torch.Tensor
"""binary32 [n0, n1, n2], or 1 along the axes on which it does not change."""


def _minimum(a: Value, b: Value, out: Value) -> None:
    """IEEE 754-2019 minimum: NaN wins, -0 is below +0."""
    negative = torch.signbit(a) | torch.signbit(b)
    _sign_zeros(torch.minimum(a, b, out=out), negative)


def _maximum(a: Value, b: Value, out: Value) -> None:
    """IEEE 754-2019 maximum: NaN wins, +0 is above -0."""
    negative = torch.signbit(a) & torch.signbit(b)
    _sign_zeros(torch.maximum(a, b, out=out), negative)


def _sign_zeros(value: Value, negative: torch.Tensor) -> None:
    """Which of two zeros torch takes depends on the CPU and on an element's place in the array."""
    value.copy_(torch.where(value == 0, torch.where(negative, -0.0, 0.0), value))


def _align(a: Value, b: Value | float, out: Value) -> None:
    out.copy_(numerics.align(a, int(b)))


BINARY: dict[Func, Callable[..., object]] = {
    Func.ADD: torch.add,
    Func.SUB: torch.sub,
    Func.MUL: torch.mul,
    Func.MIN: _minimum,
    Func.MAX: _maximum,
    Func.DIV: torch.div,
    Func.GE: torch.ge,
    Func.GT: torch.gt,
    Func.EQ: torch.eq,
    Func.ALIGN: _align,
}
UNARY: dict[Func, Callable[[Value], Value]] = {
    Func.COPY: torch.positive,
    Func.RINT: torch.round,
    Func.SIGMOID: numerics.sigmoid,
    Func.TANH: numerics.tanh,
    Func.EXP2: numerics.exp2,
    Func.LOG2: numerics.log2,
    Func.ERF: numerics.erf,
    Func.RECIPROCAL: numerics.reciprocal,
    Func.RSQRT: numerics.rsqrt,
    Func.ABS: torch.abs,
    Func.SQRT: numerics.sqrt,
    Func.EXP: numerics.exp,
    Func.LOG: numerics.log,
    Func.FLOOR: torch.floor,
}
DIRECT = {Func.ABS: torch.abs, Func.FLOOR: torch.floor, Func.RINT: torch.round}
"""Functions that write where they are told, without a value in between."""
WINDOWED = (DType.I8, DType.I16)
"""What a window reduces; sums are of the first only."""
LOWEST, HIGHEST = -(2**31), 2**31 - 1
LARGEST_BELOW = 2147483520.0
"""The largest binary32 that fits int32."""


def vcu_run(context: Context, inst: Instruction) -> Iterator[Step]:
    """out = convert(program(convert(streams))) on every element of n0 x n1 x n2."""
    assert isinstance(inst, VcuRun)
    state = context.state
    shape = (state.vcu_shape.n0, state.vcu_shape.n1, state.vcu_shape.n2)
    _check(context, inst)
    if 0 in shape:
        return
    target = _target(context, inst, shape)
    registers: dict[int, Value] = {}
    addresses = (inst.a, inst.b, state.vcu_base.c, state.vcu_base.d)
    for stream in range(inst.streams):
        read = _read
        if stream == 0 and state.vcu_window.reduce != Reduce.NONE:
            read = _read_window
        elif stream == 0 and state.vcu_resizes[0].kind != Resize.NONE:
            read = _read_resized
        registers[stream], steps = read(context, stream, addresses[stream], shape)
        yield from steps
    result = 0
    for op in state.program(inst.first, inst.count):
        registers[op.dst], step = _operate(context, op, registers, shape)
        result = op.dst
        yield step
    # Of no shape, so that the conversion never takes a kept zero for a register that it may overwrite.
    value = registers.get(result, torch.zeros(()))
    if state.vcu_reduce.kind != RowReduce.NONE:
        yield from _reduce(context, value, shape)
    if target is not None:
        yield from _write(context, target, value)


def _target(context: Context, inst: VcuRun, shape: Shape) -> torch.Tensor | None:
    """Where the elements go; bytes of two where they are 4-bit codes; None when only rows are kept."""
    state = context.state
    if state.vcu_reduce.kind != RowReduce.NONE and not state.vcu_reduce.elements:
        return None
    out = state.vcu_streams[STREAM_OUTPUT]
    strides = (out.stride0, out.stride1, out.stride2)
    if out.encode and out.dtype is not DType.I4:
        raise AccessError(f"an encoded output is {out.dtype.name}: must be I4")
    if out.dtype is DType.I4:
        if out.stride2 != 1 and shape[2] > 1:
            raise AccessError(f"output stride2 = {out.stride2} of 4-bit codes: must be 1")
        shape, strides = (*shape[:2], (shape[2] + 1) // 2), (*strides[:2], 1)
    return context.memory.target(ON_CHIP[out.space], TORCH_TYPES[out.dtype], inst.dst, shape, strides)


def _reduce(context: Context, value: Value, shape: Shape) -> Iterator[Step]:
    """One binary32 per row, or two."""
    reduce = context.state.vcu_reduce
    pair = 2 if reduce.kind == RowReduce.MOMENTS else 1
    if reduce.kind in (RowReduce.SQUARES, RowReduce.MOMENTS) and shape[2] > WIDEST_MOMENTS:
        raise AccessError(f"{reduce.kind.name} of rows of {shape[2]}: must be at most {WIDEST_MOMENTS}")
    strides = (4 * pair * shape[1], 4 * pair)
    targets = [
        context.memory.target(Memory.SRAM, torch.float32, reduce.dst + 4 * i, shape[:2], strides) for i in range(pair)
    ]
    yield partial(_reduce_rows, reduce.kind, reduce.fraction, value, shape, targets)


def _reduce_rows(kind: RowReduce, fraction: int, value: Value, shape: Shape, targets: list[torch.Tensor]) -> None:
    rows = value.expand(shape)
    match kind:
        case RowReduce.MAX:
            found = [numerics.row_max(rows)]
        case RowReduce.MIN:
            found = [numerics.row_min(rows)]
        case RowReduce.SUM:
            found = [numerics.row_sum(rows, fraction)]
        case RowReduce.SQUARES:
            found = [numerics.row_squares(rows, fraction)]
        case RowReduce.MOMENTS:
            found = list(numerics.row_moments(rows, fraction))
        case _:
            found = [numerics.row_argmax(rows)]
    for target, result in zip(targets, found, strict=True):
        target.copy_(result)


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
        used = (op.dst, op.a, op.b if op.b_kind == Operand.REGISTER and op.func in BINARY else 0)
        if max(used) >= vcu.registers:
            raise AccessError(f"slot {op.slot} uses register {max(used)}: the machine has {vcu.registers}")


def _register(registers: dict[int, Value], number: int) -> Value:
    """A register that nothing wrote holds 0."""
    found = registers.get(number)
    return torch.zeros((1, 1, 1)) if found is None else found


def _buffer(context: Context, name: str, value_shape: Shape, shape: Shape) -> Value:
    """Where a value goes: a kept buffer if it has the full shape; small ones get their own, so none alias."""
    if value_shape == shape:
        return context.scratch(name, value_shape, torch.float32)
    return torch.empty(value_shape)


def _operate(context: Context, op: VcuOp, registers: dict[int, Value], shape: Shape) -> tuple[Value, Step]:
    """The value of the op's register and the step that computes it."""
    a, name = _register(registers, op.a), f"r{op.dst}"
    if op.func is Func.SELECT:
        return _select(context, op, registers, shape)
    if op.func not in BINARY:
        out = _buffer(context, name, tuple(a.shape), shape)
        if op.func in DIRECT:
            return out, partial(DIRECT[op.func], a, out=out)
        return out, partial(_unary, UNARY[op.func], a, out)
    if op.b_kind == Operand.IMMEDIATE:
        out = _buffer(context, name, tuple(a.shape), shape)
        return out, _immediate(op.func, a, op.immediate, out)
    is_parameter = op.b_kind == Operand.PARAMETER
    b = _parameter(context, op.b, shape) if is_parameter else _register(registers, op.b)
    out = _buffer(context, name, tuple(map(max, a.shape, b.shape)), shape)
    return out, partial(BINARY[op.func], a, b, out=out)


def _select(context: Context, op: VcuOp, registers: dict[int, Value], shape: Shape) -> tuple[Value, Step]:
    """dst = a != 0 ? b : dst."""
    a, old = _register(registers, op.a), _register(registers, op.dst)
    if op.b_kind == Operand.IMMEDIATE:
        b: Value = torch.tensor(op.immediate)
    else:
        is_parameter = op.b_kind == Operand.PARAMETER
        b = _parameter(context, op.b, shape) if is_parameter else _register(registers, op.b)
    out = torch.empty(tuple(map(max, a.shape, old.shape, (*[1] * (3 - b.dim()), *b.shape))))
    return out, lambda: out.copy_(torch.where(a != 0, b, old))


def _immediate(func: Func, a: Value, b: float, out: Value) -> Step:
    if func in (Func.GE, Func.GT, Func.EQ, Func.DIV):
        return partial(BINARY[func], a, torch.tensor(b), out=out)
    if func not in (Func.MIN, Func.MAX):
        return partial(BINARY[func], a, b, out=out)
    if b != 0:
        return partial(torch.clamp_min if func == Func.MAX else torch.clamp_max, a, b, out=out)
    if func == Func.MAX and copysign(1.0, b) > 0:
        return partial(torch.threshold, a, 0, 0, out=out)  # a > 0 or NaN: a, else +0
    return partial(BINARY[func], a, torch.tensor(b), out=out)


def _unary(function: Callable[[Value], Value], a: Value, out: Value) -> None:
    out.copy_(function(a))


def _parameter(context: Context, vector: int, shape: Shape) -> Value:
    params = context.state.vcu_params
    address = params.base + vector * params.stride
    return context.memory.view(Memory.SRAM, torch.float32, address, (1, 1, shape[2]), (0, 0, 4))


def _read(context: Context, number: int, address: int, shape: Shape) -> tuple[Value, Iterator[Step]]:
    """Stream ``number`` as binary32."""
    codes, distinct, steps = _codes(context, number, address, shape)
    stream, convert = context.state.vcu_streams[number], context.state.vcu_converts[number]
    value = _buffer(context, f"s{number}", distinct, shape)
    if stream.dtype in CODES:
        return value, chain(steps, _dequantize(value, codes, convert.zero, convert.scale))
    return value, chain(steps, (partial(value.copy_, codes),))


def _codes(context: Context, number: int, address: int, shape: Shape) -> tuple[torch.Tensor, Shape, list[Step]]:
    """What stream ``number`` holds, 1 along the axes on which it does not change; 4-bit codes are unpacked."""
    stream = context.state.vcu_streams[number]
    strides = (stream.stride0, stream.stride1, stream.stride2)
    distinct = tuple(n if stride else 1 for n, stride in zip(shape, strides, strict=True))
    space, dtype = ON_CHIP[stream.space], TORCH_TYPES[stream.dtype]
    if stream.dtype is not DType.I4:
        return context.memory.view(space, dtype, address, distinct, strides), distinct, []
    if stream.stride2 > 1:
        raise AccessError(f"stride2 = {stream.stride2} of 4-bit codes: must be 0 or 1")
    stored = (*distinct[:2], (distinct[2] + 1) // 2)
    packed = context.memory.view(space, dtype, address, stored, (*strides[:2], 1))
    codes = context.scratch(f"codes{number}", (*stored[:2], 2 * stored[2]), torch.int8)
    return codes[..., : distinct[2]], distinct, [partial(unpack_into, packed, codes)]


def _read_resized(context: Context, number: int, address: int, shape: Shape) -> tuple[Value, Iterator[Step]]:
    """Stream A interpolated over the tile that the two axes describe."""
    state = context.state
    stream, convert, (rows, columns) = state.vcu_streams[number], state.vcu_converts[number], state.vcu_resizes
    if rows.kind != columns.kind:
        raise AccessError(f"vcu.resize {rows.kind.name} and {columns.kind.name}: both axes have the same kind")
    if 0 in (rows.den, columns.den):
        raise AccessError("vcu.resize den = 0: must be at least 1")
    h, w = interpolated(shape[0], rows), interpolated(shape[1], columns)
    at = address + h.start * stream.stride0 + w.start * stream.stride1
    codes, _, steps = _codes(context, number, at, (len(h), len(w), shape[2]))
    value = context.scratch(f"s{number}", shape, torch.float32)
    exact = [
        positions(n, r.size, r.num, r.den, r.phase) for n, r in ((shape[0], rows), (shape[1], columns))
    ]
    whole = codes.expand(len(h), len(w), shape[2])
    run = partial(_interpolate, rows.kind, whole, exact, (h.start, w.start), stream.dtype in CODES, convert, value)
    return value, chain(steps, (run,))


def _interpolate(
    kind: Resize,
    tile: torch.Tensor,
    exact: list[Any],
    start: tuple[int, int],
    coded: bool,
    convert: VcuConvert,
    out: Value,
) -> None:
    zero, scale = (convert.zero, convert.scale) if coded else (0, 0.0)
    value = (tile.to(torch.int32) - zero).float() if coded else tile
    (y0, y1, ty), (x0, x1, tx) = (
        (torch.as_tensor(a - s), torch.as_tensor(b - s), torch.as_tensor(t))
        for (a, b, t), s in zip(exact, start, strict=True)
    )
    if kind is Resize.NEAREST:
        y = value[y0][:, x0]
    else:
        left, right = value[:, x0], value[:, x1]
        lines = left + (right - left) * tx[:, None]
        top, bottom = lines[y0], lines[y1]
        y = top + (bottom - top) * ty[:, None, None]
    out.copy_(y * scale if scale not in (0.0, 1.0) else y)


def _dequantize(value: Value, codes: torch.Tensor, zero: int, scale: float) -> Iterator[Step]:
    """value = (q - zero) * scale; a scale of 0 leaves the integer."""
    yield partial(value.copy_, codes)
    if zero:
        yield partial(value.sub_, zero)
    if scale not in (0.0, 1.0):
        yield partial(value.mul_, scale)


def _read_window(context: Context, number: int, address: int, shape: Shape) -> tuple[Value, Iterator[Step]]:
    """Stream A reduced over window taps, an exact integer, then scaled.

    A window whose taps all lie outside the tile gives MAX the lowest code, SUM 0.
    """
    stream, window = context.state.vcu_streams[number], context.state.vcu_window
    is_max, convert = window.reduce == Reduce.MAX, context.state.vcu_converts[number]
    allowed = WINDOWED if is_max else WINDOWED[:1]
    if stream.dtype not in allowed:
        names = " or ".join(kind.name for kind in allowed)
        raise AccessError(f"stream A is {stream.dtype.name} under a window reduction: must be {names}")
    rows = (window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, window.height)
    cols = (window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, window.width)
    h, w = reach(shape[0], *rows), reach(shape[1], *cols)
    strides = (stream.stride0, stream.stride1, stream.stride2)
    tile = context.memory.view(
        ON_CHIP[stream.space],
        TORCH_TYPES[stream.dtype],
        address + h.start * strides[0] + w.start * strides[1],
        (len(h), len(w), shape[2]),
        strides,
    )
    total = context.scratch("window", shape, tile.dtype if is_max else torch.int32)

    def planes() -> Iterator[Step]:
        for i, j in product(range(window.kernel_h), range(window.kernel_w)):
            inside_h, inside_w = _outputs(shape[0], i, *rows[1:]), _outputs(shape[1], j, *cols[1:])
            if not inside_h or not inside_w:
                continue
            row = inside_h.start * window.stride_h + i * window.dilation_h - window.pad_top - h.start
            col = inside_w.start * window.stride_w + j * window.dilation_w - window.pad_left - w.start
            codes = tile.as_strided(
                (len(inside_h), len(inside_w), shape[2]),
                (window.stride_h * tile.stride(0), window.stride_w * tile.stride(1), tile.stride(2)),
                tile.storage_offset() + row * tile.stride(0) + col * tile.stride(1),
            )
            part = total[inside_h.start : inside_h.stop, inside_w.start : inside_w.stop]
            if is_max:
                yield partial(torch.maximum, part, codes, out=part)
                continue
            yield partial(part.add_, codes)
            if convert.zero:
                yield partial(part.sub_, convert.zero)

    value = context.scratch(f"s{number}", shape, torch.float32)

    def steps() -> Iterator[Step]:
        yield partial(total.fill_, torch.iinfo(tile.dtype).min if is_max else 0)
        yield from bundle(planes, window.kernel_h * window.kernel_w)
        yield from _dequantize(value, total, convert.zero if is_max else 0, convert.scale)

    return value, steps()


def _outputs(out: int, tap: int, stride: int, dilation: int, pad: int, size: int) -> range:
    """The outputs whose tap number ``tap`` lies inside a tile of ``size``."""
    offset = tap * dilation - pad
    if stride == 0:
        return range(out) if 0 <= offset < size else range(0)
    low, high = max(0, -(offset // stride)), min(out - 1, (size - 1 - offset) // stride)
    return range(low, high + 1) if low <= high else range(0)


def _write(context: Context, target: torch.Tensor, value: Value) -> Iterator[Step]:
    """Convert to the output's storage type and store, broadcasting."""
    stream, convert = context.state.vcu_streams[STREAM_OUTPUT], context.state.vcu_converts[STREAM_OUTPUT]
    if stream.dtype is DType.I4:
        shape = (context.state.vcu_shape.n0, context.state.vcu_shape.n1, context.state.vcu_shape.n2)
        yield partial(_to_int4, target, value, shape, *_encoder(context, convert))
    elif stream.dtype is DType.F32:
        yield partial(target.copy_, value)
    elif stream.dtype is DType.I32:
        yield partial(_to_int32, target, value)
    elif stream.dtype is DType.I64:
        raise AccessError("an output stream is I64: accumulators are written by the MMU only")
    else:
        yield partial(_to_codes, target, value, convert.scale, convert.zero)


def _encoder(context: Context, convert: VcuConvert) -> tuple[float, int, tuple[float, ...]]:
    """Scale and zero of a conversion, and the thresholds where there is an encoder."""
    encode = context.state.vcu_streams[STREAM_OUTPUT].encode
    rising = tuple(t.value for t in context.state.vcu_thresholds[: CODEBOOK - 1]) if encode else ()
    return convert.scale, convert.zero, rising


def _to_codes(target: torch.Tensor, value: Value, scale: float, zero: int) -> None:
    scratch = None if value.shape != target.shape else value  # a register that nobody reads again
    info = torch.iinfo(target.dtype)
    target.copy_(numerics.quantize(value, scale, zero, info.min, info.max, dtype="float32", scratch=scratch))


def _to_int4(
    target: torch.Tensor, value: Value, shape: Shape, scale: float, zero: int, thresholds: tuple[float, ...]
) -> None:
    if thresholds:
        codes = numerics.encode(value, thresholds)
        codes = torch.where(value.isnan(), zero, codes).to(torch.int8)
    else:
        codes = numerics.quantize(value, scale, zero, *numerics.code_range(4))
    target.copy_(numerics.pack4(codes.expand(shape).contiguous()))


def _to_int32(target: torch.Tensor, value: Value) -> None:
    """Round to nearest even and saturate; NaN gives 0."""
    rounded = value.round().nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf"))
    codes = rounded.clamp(LOWEST, LARGEST_BELOW).to(torch.int32)
    target.copy_(codes.masked_fill_(rounded > LARGEST_BELOW, HIGHEST))
