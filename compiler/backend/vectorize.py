"""A kernel's chain of qnn float ops as a straight-line vector program.

Rewrites are made only where no stored bit can change: the conversion at the end of a program saturates and does not
see the sign of a zero, so a clamp that it repeats, or an addition of zero before it, may go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import cast

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from compiler.analysis.magnitude import Magnitudes
from compiler.backend.registers import ProgramError, Step, allocate, live
from compiler.backend.widths import dtype_of
from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.ir.kernel import Stream, VectorProgram
from compiler.ir.layout import channel_axis
from isa import numerics
from isa.errors import UnsupportedError
from isa.instructions import DType, Func, Operand
from isa.numerics.codes import CODEBOOK_LOW

STREAMS, SLOTS, PARAMETERS = 4, 60, 15
"""Limits of one program; ``vcu.op`` and ``vcu.run`` encode these fields."""

F32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Seed:
    """What stands for ``value`` at the start: ``(stream * scale + bias) * factor``, each part optional.

    ``scale`` and ``bias`` hold one number per channel, or one; ``factor`` is a binary32 stream.
    """

    value: SSAValue
    stream: Stream
    scale: F32Array | None = None
    bias: F32Array | None = None
    factor: Stream | None = None


@dataclass(frozen=True)
class Leaves:
    """Values that a chain takes from outside: operand numbers, and the arrays of those known at compile time."""

    operands: Mapping[SSAValue, int]
    constant: Callable[[SSAValue], NDArray[np.generic] | None]


@dataclass
class Builder:
    """Virtual registers are numbers: streams first (negative: -1 is A), then the index of the step."""

    shape: tuple[int, ...]
    leaves: Leaves
    streams: list[Stream] = field(default_factory=list[Stream])
    steps: list[Step] = field(default_factory=list[Step])
    params: dict[bytes, int] = field(default_factory=dict[bytes, int])
    arrays: list[F32Array] = field(default_factory=list[F32Array])
    values: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])

    def stream(self, stream: Stream) -> int:
        if stream not in self.streams:
            if len(self.streams) == STREAMS:
                raise ProgramError(f"a kernel reads at most {STREAMS} streams; store an intermediate result")
            self.streams.append(stream)
        return -1 - self.streams.index(stream)

    def emit(self, func: Func, a: int, kind: Operand = Operand.REGISTER, b: int = 0, imm: float = 0.0) -> int:
        self.steps.append(Step(func, a, kind, b, imm))
        return len(self.steps) - 1

    def imm(self, func: Func, a: int, value: float) -> int:
        return self.emit(func, a, Operand.IMMEDIATE, imm=numerics.fp32(value))

    def vector(self, func: Func, a: int, array: F32Array) -> int:
        """Apply a per-channel vector; one that is the same for all channels needs no parameter."""
        if _uniform(array):
            return self.imm(func, a, float(array.flat[0]))
        key = array.tobytes()
        if key not in self.params:
            if len(self.params) == PARAMETERS:
                raise ProgramError(f"a kernel has at most {PARAMETERS} per-channel vectors")
            self.params[key] = len(self.params)
            self.arrays.append(array)
        return self.emit(func, a, Operand.PARAMETER, self.params[key])

    @classmethod
    def start(cls, shape: tuple[int, ...], leaves: Leaves, seed: Seed | None = None) -> Builder:
        """A builder for results of ``shape`` that knows the anchor's result."""
        builder = cls(shape, leaves)
        if seed is not None:
            builder.values[seed.value] = _seeded(builder, seed)
        return builder

    def extend(self, ops: Sequence[Operation], zero_sign_lost: bool = False) -> None:
        """Append float ops; ``zero_sign_lost`` says that nothing behind them sees the sign of a zero."""
        magnitudes = Magnitudes(self.leaves.constant, self.leaves.operands)
        for op in ops:
            if isinstance(op, qnn.DequantizeOp):
                _dequantize(self, op, zero_sign_lost)
            elif isinstance(op, qnn.QuantizeOp):
                if op.thresholds is not None:
                    raise ProgramError(f"{op.name} with a codebook must be the last of its kernel")
                if not magnitudes.finite(op.input):
                    raise ProgramError(f"{op.name} inside a chain must not see NaN, which its input may be")
                self.values[op.output] = self.register(op.input)  # the rest is up to the dequantize
            else:
                self.values[op.results[0]] = _EMIT[type(op)](self, op)

    def close(self, last: int) -> VectorProgram:
        """The program whose result is the binary32 in virtual register ``last``."""
        if last < -1:  # a stream that is not A
            last = self.emit(Func.COPY, last)
        ops = allocate(live(self.steps, last), len(self.streams))
        return VectorProgram(tuple(self.streams), ops, DType.F32, params=tuple(self.arrays))

    def register(self, value: SSAValue) -> int:
        """The virtual register of a float value, from inside the chain or a stream."""
        if value in self.values:
            return self.values[value]
        self.values[value] = found = self.stream(stream_of(value, self.leaves))
        return found


def stream_of(value: SSAValue, leaves: Leaves) -> Stream:
    """The stream that reads float ``value``: a stored f32 tensor, or the codes behind a dequantize."""
    source = value.owner.input if isinstance(value.owner, qnn.DequantizeOp) else value
    if source not in leaves.operands:
        raise ProgramError(f"{source.type} is not an operand of the kernel")
    if source is value:
        return Stream(leaves.operands[value], DType.F32)
    codes = int_type(source)
    if codes.codebook.data:
        raise UnsupportedError("only matrix operations read codes of a codebook; quantize others with uniform steps")
    return Stream(leaves.operands[source], dtype_of(source), codes.zero.data, numerics.fp32(codes.scale.data))


def float_constant(value: SSAValue, leaves: Leaves) -> F32Array | None:
    """The array of a float value that is known at compile time, also behind a dequantize."""
    if isinstance(value.owner, qnn.DequantizeOp):
        codes = leaves.constant(value.owner.input)
        kind = int_type(value.owner.input)
        return None if codes is None else numerics.dequantize(codes, kind.scale.data, kind.zero.data)
    array = leaves.constant(value)
    return cast(F32Array, array) if array is not None and array.dtype == np.float32 else None


def _uniform(array: NDArray[np.generic]) -> bool:
    bits = np.ascontiguousarray(array).view(np.int32 if array.dtype == np.float32 else array.dtype)
    return bool((bits == bits.flat[0]).all())


def channel_vector(array: F32Array, shape: tuple[int, ...]) -> F32Array | None:
    """``array``, broadcast against ``shape``, as one number per channel; None when it varies along another axis."""
    rank = len(shape)
    if not rank:
        return array.reshape(1)
    if _uniform(array):
        return np.full(shape[channel_axis(rank)], array.flat[0], np.float32)
    aligned = (1,) * (rank - array.ndim) + array.shape
    axis = channel_axis(rank)
    if any(n != 1 for i, n in enumerate(aligned) if i != axis):
        return None
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), shape[axis]))


def vectorize(
    ops: Sequence[Operation], result: SSAValue, leaves: Leaves, seed: Seed | None = None
) -> VectorProgram:
    """The program that computes ``result`` of the float chain ``ops`` (in order); ProgramError when none can.

    ``seed`` is the anchor's result. Parameters come per channel of the result, streams by operand number.
    """
    builder = Builder.start(shape_of(result), leaves, seed)
    return finish(builder, ops, result)


def finish(builder: Builder, ops: Sequence[Operation], result: SSAValue) -> VectorProgram:
    """The program that goes on from ``builder`` with ``ops`` (in order) to ``result``."""
    final = result.owner if isinstance(result.owner, qnn.QuantizeOp) and result.owner in ops else None
    builder.extend([op for op in ops if op is not final], zero_sign_lost=final is not None)
    return _finish(builder, result, final)


def _seeded(builder: Builder, seed: Seed) -> int:
    value = builder.stream(seed.stream)
    if seed.scale is not None:
        value = builder.vector(Func.MUL, value, seed.scale)
    if seed.bias is not None:
        value = builder.vector(Func.ADD, value, seed.bias)
    if seed.factor is not None:
        value = builder.emit(Func.MUL, value, b=builder.stream(seed.factor))
    return value


def _dequantize(builder: Builder, op: qnn.DequantizeOp, zero_sign_lost: bool) -> None:
    """Codes that stay inside: ``clamp(rne(y / s), lo - z, hi - z) * s``, all integers exact; see docs, Numerics."""
    if op.input not in builder.values:
        return  # a stream, taken when it is used
    inner, codes = op.input.owner, int_type(op.input)
    value = builder.values[op.input]
    if isinstance(inner, qnn.QuantizeOp):
        zero = codes.zero.data
        value = builder.imm(Func.MUL, value, numerics.inverse_scale(codes.scale.data))
        value = builder.emit(Func.RINT, value)
        value = builder.imm(Func.MAX, value, inner.lo - zero)
        value = builder.imm(Func.MIN, value, inner.hi - zero)
        if not zero_sign_lost:  # q - z is never -0
            value = builder.imm(Func.ADD, value, 0.0)
    builder.values[op.output] = builder.imm(Func.MUL, value, codes.scale.data)


EITHER_ORDER = (Func.ADD, Func.SUB, Func.MUL, Func.MIN, Func.MAX, Func.EQ)
"""Functions whose operands may change places; SUB by a sign."""


def _binary(func: Func) -> Callable[[Builder, Operation], int]:
    def emit(builder: Builder, op: Operation) -> int:
        left, right = op.operands
        for value, other, swapped in ((right, left, False), (left, right, True)):
            if value in builder.values or (array := float_constant(value, builder.leaves)) is None:
                continue
            vector = channel_vector(array, builder.shape)
            if vector is None or (swapped and func not in EITHER_ORDER):
                continue
            a = builder.register(other)
            if func is Func.SUB and swapped:  # c - x is exactly c + (-x)
                return builder.vector(Func.ADD, builder.imm(Func.MUL, a, -1.0), vector)
            return builder.vector(func, a, vector)
        a = builder.register(left)
        return builder.emit(func, a, b=builder.register(right))

    return emit


def _relu(builder: Builder, op: Operation) -> int:
    return builder.imm(Func.MAX, builder.register(op.operands[0]), 0.0)


def _clamp(builder: Builder, op: Operation) -> int:
    assert isinstance(op, qnn.ClampOp)
    value = builder.register(op.input)
    for func, bound in ((Func.MAX, op.min.data), (Func.MIN, op.max.data)):
        value = builder.imm(func, value, bound) if abs(bound) != inf else value
    return value


def _hard(builder: Builder, x: int) -> int:
    t = builder.imm(Func.MAX, builder.imm(Func.ADD, x, 3.0), 0.0)
    return builder.imm(Func.MIN, t, 6.0)


def _hardsigmoid(builder: Builder, op: Operation) -> int:
    return builder.imm(Func.MUL, _hard(builder, builder.register(op.operands[0])), 1.0 / 6.0)


def _hardswish(builder: Builder, op: Operation) -> int:
    x = builder.register(op.operands[0])
    return builder.imm(Func.MUL, builder.emit(Func.MUL, x, b=_hard(builder, x)), 1.0 / 6.0)


def _function(func: Func) -> Callable[[Builder, Operation], int]:
    return lambda builder, op: builder.emit(func, builder.register(op.operands[0]))


def _select(builder: Builder, op: Operation) -> int:
    """``b`` is copied to the register that SELECT overwrites; a constant ``b`` trades places with ``a``."""
    assert isinstance(op, qnn.SelectOp)
    condition, chosen, kept = builder.register(op.condition), op.a, op.b
    if _vector_of(kept, builder) is not None and _vector_of(chosen, builder) is None:
        condition, chosen, kept = builder.imm(Func.EQ, condition, 0.0), kept, chosen
    vector = _vector_of(chosen, builder)
    b = builder.register(chosen) if vector is None else 0
    copy = builder.emit(Func.COPY, builder.register(kept))
    if vector is None:
        last = builder.emit(Func.SELECT, condition, b=b)
    else:
        last = builder.vector(Func.SELECT, condition, vector)
    builder.steps[last] = replace(builder.steps[last], kept=copy)
    return last


def _vector_of(value: SSAValue, builder: Builder) -> F32Array | None:
    array = None if value in builder.values else float_constant(value, builder.leaves)
    return None if array is None else channel_vector(array, builder.shape)


_EMIT: dict[type[Operation], Callable[[Builder, Operation], int]] = {
    qnn.AddOp: _binary(Func.ADD),
    qnn.SubOp: _binary(Func.SUB),
    qnn.MulOp: _binary(Func.MUL),
    qnn.ReluOp: _relu,
    qnn.ClampOp: _clamp,
    qnn.HardswishOp: _hardswish,
    qnn.HardsigmoidOp: _hardsigmoid,
    qnn.SigmoidOp: _function(Func.SIGMOID),
    qnn.TanhOp: _function(Func.TANH),
    qnn.DivOp: _binary(Func.DIV),
    qnn.MinimumOp: _binary(Func.MIN),
    qnn.MaximumOp: _binary(Func.MAX),
    qnn.GeOp: _binary(Func.GE),
    qnn.GtOp: _binary(Func.GT),
    qnn.EqOp: _binary(Func.EQ),
    qnn.SelectOp: _select,
    qnn.ExpOp: _function(Func.EXP),
    qnn.LogOp: _function(Func.LOG),
    qnn.SqrtOp: _function(Func.SQRT),
    qnn.RsqrtOp: _function(Func.RSQRT),
    qnn.ReciprocalOp: _function(Func.RECIPROCAL),
    qnn.AbsOp: _function(Func.ABS),
    qnn.FloorOp: _function(Func.FLOOR),
    qnn.ErfOp: _function(Func.ERF),
}


def _finish(builder: Builder, result: SSAValue, final: qnn.QuantizeOp | None) -> VectorProgram:
    thresholds: tuple[float, ...] = ()
    if final is None:
        last, output, zero, inverse = builder.register(result), dtype_of(result), 0, 1.0
        if is_int(result):
            zero = int_type(result).zero.data
    elif final.thresholds is not None:
        last, output, zero, inverse = builder.register(final.input), dtype_of(final.output), CODEBOOK_LOW, 1.0
        thresholds = tuple(numerics.fp32(t.data) for t in final.thresholds.data)
    else:
        codes = int_type(final.output)
        last, output, zero = builder.register(final.input), dtype_of(final.output), codes.zero.data
        inverse = numerics.inverse_scale(codes.scale.data)
        last = _drop_repeated_clamps(builder, last, final)
        if (final.lo, final.hi) != (codes.low, codes.high):
            last = builder.imm(Func.MUL, last, inverse)
            last = builder.imm(Func.MAX, last, final.lo - zero)
            last = builder.imm(Func.MIN, last, final.hi - zero)
            inverse = 1.0
    if last < -1:  # the result is a stream that is not A
        last = builder.emit(Func.COPY, last)
    ops = allocate(live(builder.steps, last), len(builder.streams))
    if len(ops) > SLOTS:
        raise ProgramError(f"a vector program has at most {SLOTS} slots, this chain needs {len(ops)}")
    return VectorProgram(
        tuple(builder.streams), ops, output, zero, inverse, tuple(builder.arrays), thresholds
    )


def _drop_repeated_clamps(builder: Builder, last: int, final: qnn.QuantizeOp) -> int:
    """Leave out a last MAX or MIN whose bound quantizes to the end of the range: the conversion saturates there."""
    codes = int_type(final.output)
    ends = {Func.MAX: final.lo, Func.MIN: final.hi}
    while last >= 0:
        step = builder.steps[last]
        if step.kind is not Operand.IMMEDIATE or step.func not in ends:
            break
        bound = np.asarray([step.immediate], np.float32)
        inverse = numerics.inverse_scale(codes.scale.data)
        code = numerics.quantize(bound, inverse, codes.zero.data, final.lo, final.hi, "int16")
        if int(code[0]) != ends[step.func] or np.isnan(bound[0]):
            break
        last = step.a
    return last
