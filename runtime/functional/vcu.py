"""VCU: straight-line binary32 programs over streams; every operation rounds once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from isa import numerics
from isa.access import ON_CHIP, Memory
from isa.encoding import Instruction
from isa.errors import AccessError
from isa.instructions import DType, Func, Operand, Reduce, VcuOp, VcuRun, VcuStream
from isa.instructions.vcu import STREAM_OUTPUT
from runtime.functional.context import Context
from runtime.memory import TORCH_TYPES

Shape = tuple[int, int, int]
Value = torch.Tensor
"""binary32 [n0, n1, n2], or 1 along the axes on which it does not change."""

Binary = Callable[[Value, Value, Value | None], Value]
BINARY: dict[Func, Binary] = {
    Func.ADD: lambda a, b, out: torch.add(a, b, out=out),
    Func.SUB: lambda a, b, out: torch.sub(a, b, out=out),
    Func.MUL: lambda a, b, out: torch.mul(a, b, out=out),
    Func.MIN: lambda a, b, out: torch.minimum(a, b, out=out),
    Func.MAX: lambda a, b, out: torch.maximum(a, b, out=out),
}
IMMEDIATE: dict[Func, Callable[[Value, float, Value | None], Value]] = {
    Func.ADD: lambda a, b, out: torch.add(a, b, out=out),
    Func.SUB: lambda a, b, out: torch.sub(a, b, out=out),
    Func.MUL: lambda a, b, out: torch.mul(a, b, out=out),
    Func.MIN: lambda a, b, out: torch.clamp_max(a, b, out=out),
    Func.MAX: lambda a, b, out: torch.clamp_min(a, b, out=out),
}
UNARY: dict[Func, Callable[[Value], Value]] = {
    Func.COPY: torch.clone,
    Func.RINT: torch.round,
    Func.SIGMOID: numerics.sigmoid,
    Func.TANH: numerics.tanh,
    Func.EXP2: numerics.exp2,
    Func.LOG2: numerics.log2,
    Func.ERF: numerics.erf,
    Func.RECIPROCAL: numerics.reciprocal,
    Func.RSQRT: numerics.rsqrt,
}
LOWEST, HIGHEST = -(2**31), 2**31 - 1
LARGEST_BELOW = 2147483520.0
"""The largest binary32 that fits int32."""


def vcu_run(context: Context, inst: Instruction) -> None:
    """out = convert(program(convert(streams))) on every element of n0 x n1 x n2."""
    assert isinstance(inst, VcuRun)
    state = context.state
    shape = (state.vcu_shape.n0, state.vcu_shape.n1, state.vcu_shape.n2)
    _check(context, inst)
    if 0 in shape:
        return
    out = state.vcu_streams[STREAM_OUTPUT]
    target = context.memory.target(
        ON_CHIP[out.space], TORCH_TYPES[out.dtype], inst.dst, shape, (out.stride0, out.stride1, out.stride2)
    )
    registers: dict[int, Value] = {}
    addresses = (inst.a, inst.b, state.vcu_base.c, state.vcu_base.d)
    for stream in range(inst.streams):
        windowed = stream == 0 and state.vcu_window.reduce != Reduce.NONE
        read = _read_window if windowed else _read
        registers[stream] = read(context, stream, addresses[stream], shape)
    result = 0
    for op in state.program(inst.first, inst.count):
        registers[op.dst] = _operate(context, op, registers, shape)
        result = op.dst
    _write(context, target, _register(registers, result))


def _check(context: Context, inst: VcuRun) -> None:
    vcu = context.machine.vcu
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


def _buffer(context: Context, name: object, value_shape: tuple[int, ...], shape: Shape) -> Value | None:
    """A kept buffer for results of the full shape; small results are allocated, so that they never alias one."""
    return context.scratch(name, shape, torch.float32) if value_shape == shape else None


def _operate(context: Context, op: VcuOp, registers: dict[int, Value], shape: Shape) -> Value:
    a = _register(registers, op.a)
    if (unary := UNARY.get(op.func)) is not None:
        return unary(a)
    if op.b_kind == Operand.IMMEDIATE:
        return IMMEDIATE[op.func](a, op.immediate, _buffer(context, op.dst, tuple(a.shape), shape))
    b = _parameter(context, op.b, shape) if op.b_kind == Operand.PARAMETER else _register(registers, op.b)
    full = tuple(map(max, a.shape, b.shape))
    return BINARY[op.func](a, b, _buffer(context, op.dst, full, shape))


def _parameter(context: Context, vector: int, shape: Shape) -> Value:
    params = context.state.vcu_params
    address = params.base + vector * params.stride
    return context.memory.view(Memory.SRAM, torch.float32, address, (1, 1, shape[2]), (0, 0, 4))


def _strided(stream: VcuStream, shape: Shape) -> tuple[Shape, Shape]:
    """Shape and byte strides of a stream's distinct elements: 1 along broadcast axes."""
    s0, s1, s2 = stream.stride0, stream.stride1, stream.stride2
    n0, n1, n2 = shape
    return (n0 if s0 else 1, n1 if s1 else 1, n2 if s2 else 1), (s0, s1, s2)


def _read(context: Context, number: int, address: int, shape: Shape) -> Value:
    """Stream ``number`` as binary32."""
    stream = context.state.vcu_streams[number]
    distinct, strides = _strided(stream, shape)
    codes = context.memory.view(ON_CHIP[stream.space], TORCH_TYPES[stream.dtype], address, distinct, strides)
    value = _buffer(context, ("stream", number), distinct, shape)
    value = codes.to(torch.float32, copy=True) if value is None else value.copy_(codes)
    return _scaled(context, number, value) if stream.dtype == DType.I8 else value


def _scaled(context: Context, number: int, value: Value) -> Value:
    """(q - zero) * scale in place; a scale of 0 leaves the integer."""
    convert = context.state.vcu_converts[number]
    if convert.zero:
        value.sub_(convert.zero)
    return value.mul_(convert.scale) if convert.scale not in (0.0, 1.0) else value


def _read_window(context: Context, number: int, address: int, shape: Shape) -> Value:
    """Stream A reduced over window taps, an exact integer, then scaled. A window without taps gives MAX the
    lowest code, SUM 0."""
    stream, window = context.state.vcu_streams[number], context.state.vcu_window
    if stream.dtype != DType.I8:
        raise AccessError(f"stream A is {stream.dtype.name} under a window reduction: must be I8")
    zero, is_max = context.state.vcu_converts[number].zero, window.reduce == Reduce.MAX
    n0, n1, n2 = shape
    rows = (window.kernel_h, window.stride_h, window.dilation_h, window.pad_top, window.height)
    cols = (window.kernel_w, window.stride_w, window.dilation_w, window.pad_left, window.width)
    total = context.scratch("window", shape, torch.int8 if is_max else torch.int32)
    total.fill_(numerics.INT8_MIN if is_max else 0)
    for i in range(window.kernel_h):
        for j in range(window.kernel_w):
            inside_h, inside_w = _outputs(n0, i, *rows), _outputs(n1, j, *cols)
            if not inside_h or not inside_w:
                continue
            row = inside_h.start * window.stride_h + i * window.dilation_h - window.pad_top
            col = inside_w.start * window.stride_w + j * window.dilation_w - window.pad_left
            codes = context.memory.view(
                ON_CHIP[stream.space],
                torch.int8,
                address + row * stream.stride0 + col * stream.stride1,
                (len(inside_h), len(inside_w), n2),
                (window.stride_h * stream.stride0, window.stride_w * stream.stride1, stream.stride2),
            )
            part = total[inside_h.start : inside_h.stop, inside_w.start : inside_w.stop]
            if is_max:
                torch.maximum(part, codes, out=part)
            else:
                part.add_(codes).sub_(zero)
    value = context.scratch(("stream", number), shape, torch.float32).copy_(total)
    if is_max:
        return _scaled(context, number, value)
    convert = context.state.vcu_converts[number]
    return value.mul_(convert.scale) if convert.scale != 0.0 else value


def _outputs(out: int, tap: int, kernel: int, stride: int, dilation: int, pad: int, size: int) -> range:
    """The outputs whose tap number ``tap`` lies inside a tile of ``size``."""
    del kernel
    offset = tap * dilation - pad
    if stride == 0:
        return range(out) if 0 <= offset < size else range(0)
    low, high = max(0, -(offset // stride)), min(out - 1, (size - 1 - offset) // stride)
    return range(low, high + 1) if low <= high else range(0)


def _write(context: Context, target: torch.Tensor, value: Value) -> None:
    """Convert to the output's storage type and store, broadcasting."""
    if target.dtype == torch.float32:
        target.copy_(value)
        return
    # Registers live in scratch buffers, which the conversion may overwrite.
    if target.dtype == torch.int32:
        rounded = value.round().nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf"))
        codes = rounded.clamp(LOWEST, LARGEST_BELOW).to(torch.int32)
        target.copy_(codes.masked_fill_(rounded > LARGEST_BELOW, HIGHEST))
        return
    convert = context.state.vcu_converts[STREAM_OUTPUT]
    target.copy_(numerics.quantize(value, convert.scale, convert.zero, dtype="float32", scratch=value))
