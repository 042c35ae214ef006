"""Reference semantics of vector programs on numpy arrays, for tests and the tile interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.ir.kernel import Stream, VectorOp, VectorProgram
from isa import numerics
from isa.instructions import DType, Func, Operand

Array = NDArray[Any]
CODES = {DType.I4: 4, DType.I8: 8, DType.I16: 16}
"""Width of codes by their storage type."""



def _flag(compare: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """A comparison that gives 1 or 0."""
    return lambda a, b: compare(a, b).astype(np.float32)


def _align(a: Array, bits: Array) -> Array:
    return numerics.align(np.asarray(a), int(bits))


FUNCTIONS: dict[Func, Callable[..., Array]] = {
    Func.ADD: np.add,
    Func.SUB: np.subtract,
    Func.MUL: np.multiply,
    Func.MIN: numerics.minimum,
    Func.MAX: numerics.maximum,
    Func.DIV: np.divide,
    Func.GE: _flag(np.greater_equal),
    Func.GT: _flag(np.greater),
    Func.EQ: _flag(np.equal),
    Func.ALIGN: _align,
}
UNARY: dict[Func, Callable[[Array], Array]] = {
    Func.COPY: np.copy,
    Func.RINT: np.rint,
    Func.SIGMOID: numerics.sigmoid,
    Func.TANH: numerics.tanh,
    Func.EXP2: numerics.exp2,
    Func.LOG2: numerics.log2,
    Func.ERF: numerics.erf,
    Func.RECIPROCAL: numerics.reciprocal,
    Func.RSQRT: numerics.rsqrt,
    Func.ABS: np.abs,
    Func.SQRT: np.sqrt,
    Func.EXP: numerics.exp,
    Func.LOG: numerics.log,
    Func.FLOOR: np.floor,
}


def load_stream(stream: Stream, raw: Array) -> Array:
    """Stored elements, or the anchor's integers, as binary32.

    ``raw`` of an anchor's stream (``operand`` None) already is the reduction of q - zero, or the accumulators.
    """
    if stream.dtype is DType.F32:
        return np.asarray(raw, np.float32)
    if stream.dtype not in CODES:
        return raw.astype(np.float32)
    zero = stream.zero if stream.operand is not None else 0
    value = (raw.astype(np.int32) - np.int32(zero)).astype(np.float32)
    return value * np.float32(stream.scale) if stream.scale else value


def evaluate(program: VectorProgram, streams: Sequence[Array], params: Sequence[Array] | None = None) -> Array:
    """What the program stores: codes, int32 or float32, one element each, of the streams' common shape [..., c].

    ``streams`` hold what memory holds (codes, accumulators or float32) and broadcast against each other; ``params`` are
    the per-channel vectors, those of the program when None.
    """
    vectors = program.params if params is None else params
    with np.errstate(all="ignore"):
        registers = dict(
            enumerate(load_stream(s, raw) for s, raw in zip(program.streams, streams, strict=True))
        )
        result = registers[0]
        for op in program.ops:
            result = registers[op.dst] = _step(op, registers, vectors)
        return _stored(program, result)


def _stored(program: VectorProgram, value: Array) -> Array:
    """Binary32 as the output's type."""
    if program.thresholds:
        return np.where(np.isnan(value), program.zero, numerics.encode(value, program.thresholds)).astype(np.int8)
    if (width := CODES.get(program.output)) is not None:
        low, high = numerics.code_range(width)
        kind = numerics.code_type(width)
        return numerics.quantize(value.copy(), program.inverse_scale, program.zero, low, high, kind)
    if program.output is DType.I32:
        whole = np.clip(np.rint(np.nan_to_num(value, nan=0.0)).astype(np.float64), -(1 << 31), (1 << 31) - 1)
        return whole.astype(np.int32)
    return value


def _step(op: VectorOp, registers: dict[int, Array], vectors: Sequence[Array]) -> Array:
    if op.func in UNARY:
        return UNARY[op.func](registers[op.a])
    match op.kind:
        case Operand.REGISTER:
            b = registers[op.b]
        case Operand.IMMEDIATE:
            b = np.float32(op.immediate)
        case Operand.PARAMETER:
            b = vectors[op.b]
    if op.func is Func.SELECT:
        return np.where(registers[op.a] != 0, b, registers[op.dst])
    return FUNCTIONS[op.func](registers[op.a], b)
