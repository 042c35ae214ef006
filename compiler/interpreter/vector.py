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

FUNCTIONS: dict[Func, Callable[..., Array]] = {
    Func.ADD: np.add,
    Func.SUB: np.subtract,
    Func.MUL: np.multiply,
    Func.MIN: np.minimum,
    Func.MAX: np.maximum,
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
}


def load_stream(stream: Stream, raw: Array) -> Array:
    """Stored elements, or the anchor's integers, as binary32.

    ``raw`` of an anchor's stream (``operand`` None) already is the reduction of q - zero, or the accumulators.
    """
    if stream.dtype is DType.F32:
        return np.asarray(raw, np.float32)
    zero = stream.zero if stream.operand is not None and stream.dtype is DType.I8 else 0
    value = (raw.astype(np.int32) - np.int32(zero)).astype(np.float32)
    return value * np.float32(stream.scale) if stream.dtype is DType.I8 and stream.scale else value


def evaluate(program: VectorProgram, streams: Sequence[Array], params: Sequence[Array] | None = None) -> Array:
    """What the program stores: int8 or float32, of the streams' common shape [..., c].

    ``streams`` hold what memory holds (int8, int32 or float32) and broadcast against each other; ``params`` are the
    per-channel vectors, those of the program when None.
    """
    vectors = program.params if params is None else params
    with np.errstate(all="ignore"):
        registers = dict(
            enumerate(load_stream(s, raw) for s, raw in zip(program.streams, streams, strict=True))
        )
        result = registers[0]
        for op in program.ops:
            result = registers[op.dst] = _step(op, registers, vectors)
        if program.output is DType.I8:
            result = numerics.quantize(result.copy(), program.inverse_scale, program.zero)
    return result


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
    return FUNCTIONS[op.func](registers[op.a], b)
