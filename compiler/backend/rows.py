"""Row operations (softmax, norms, reductions along channels) as passes over a tile that holds whole rows.

Each pass is a vector program whose results the vector unit reduces to one binary32 per row; the kernel's own program
then reads these as streams that are the same along a row. What comes before the row operation is computed again in
every pass, unless the elements can take the accumulators' place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.ir import Operation, SSAValue

from compiler.backend.registers import ProgramError
from compiler.backend.vectorize import Builder, Leaves, Seed, finish
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.ir.kernel import RowStage, Stream, VectorProgram
from compiler.ir.layout import channel_axis
from isa import numerics
from isa.instructions import DType, Func, RowReduce
from isa.numerics.functions import LOG2_E

SOFTMAX_FRACTION = 30
MOMENT_BITS, SUM_BITS = 18, 40
"""Bits to which rows of binary32 are aligned before their integer sums (docs/architecture.md, Numerics)."""
WIDEST_NORM = 8192
CODE_TYPES = {4: DType.I4, 8: DType.I8, 16: DType.I16}


def row_input(op: Operation) -> SSAValue:
    """The tensor whose rows ``op`` works on."""
    assert isinstance(op, kern.ROWS)
    return op.input


def row_length(op: Operation) -> int:
    """Elements of one row."""
    shape = shape_of(row_input(op))
    return shape[channel_axis(len(shape))]


@dataclass(frozen=True, eq=False)
class Chain:
    """A kernel's float ops, cut at its row operation: ``before``, ``op`` and ``after`` up to ``result``."""

    before: Sequence[Operation]
    op: Operation
    after: Sequence[Operation]
    result: SSAValue


def cut_at_rows(ops: Sequence[Operation], result: SSAValue) -> Chain | None:
    """The chain cut at its row operation, None when it has none; ProgramError for a second one."""
    found = [i for i, op in enumerate(ops) if isinstance(op, kern.ROWS)]
    if not found:
        return None
    if len(found) > 1:
        raise ProgramError("a kernel has at most one row operation")
    return Chain(ops[: found[0]], ops[found[0]], ops[found[0] + 1 :], result)


def row_programs(
    chain: Chain, leaves: Leaves, seed: Seed | None = None
) -> tuple[tuple[RowStage, ...], VectorProgram]:
    """The passes of a chain with a row operation, and the program behind them; ProgramError when they do not fit.

    ``seed`` is the result of the kernel's anchor.
    """
    return _EMIT[type(chain.op)](_Rows(chain, leaves, seed))


@dataclass
class _Rows:
    chain: Chain
    leaves: Leaves
    seed: Seed | None
    stages: list[RowStage] = field(default_factory=list[RowStage])
    results: int = 0

    def elements(self) -> tuple[Builder, int]:
        """A program over the elements, and the register of the row operation's input in it."""
        value = row_input(self.chain.op)
        builder = Builder.start(shape_of(value), self.leaves, self.seed)
        builder.extend(self.chain.before)
        if is_int(value):
            if value not in self.leaves.operands:
                raise ProgramError("a row operation on codes reads them from memory")
            codes = int_type(value)
            stream = Stream(self.leaves.operands[value], CODE_TYPES[codes.width.data], codes.zero.data)
            return builder, builder.stream(stream)
        return builder, builder.register(value)

    def row(self, builder: Builder, number: int) -> int:
        """Row result ``number`` as a register of ``builder``."""
        return builder.stream(Stream(None, DType.F32, row=number))

    def sweep(self, builder: Builder, last: int, reduce: RowReduce, fraction: int = 0, in_place: bool = False) -> int:
        """Add the pass that reduces register ``last``; the number of its (first) result."""
        return self._add(RowStage(builder.close(last), reduce, fraction, in_place))

    def per_row(self, make: Callable[[Builder], int]) -> int:
        """Add a pass over the rows' numbers alone; the number of its result."""
        builder = Builder((1,), self.leaves)
        return self._add(RowStage(builder.close(make(builder))))

    def _add(self, stage: RowStage) -> int:
        self.stages.append(stage)
        self.results += stage.results
        return self.results - stage.results

    def done(self, builder: Builder, value: int) -> tuple[tuple[RowStage, ...], VectorProgram]:
        """The passes, and the program that goes on from the row operation's result in register ``value``."""
        builder.values[self.chain.op.results[0]] = value
        return tuple(self.stages), finish(builder, self.chain.after, self.chain.result)


Programs = tuple[tuple[RowStage, ...], VectorProgram]


def _softmax(rows: _Rows) -> Programs:
    """max; e = exp2((x - max) * log2 e) and its sum; reciprocal of the sum; e * reciprocal."""
    builder, x = rows.elements()
    top = rows.sweep(builder, x, RowReduce.MAX)
    in_place = rows.seed is not None and rows.seed.stream.dtype in (DType.I32, DType.F32)
    builder, e = _exponential(rows, top)
    total = rows.sweep(builder, e, RowReduce.SUM, SOFTMAX_FRACTION, in_place)
    inverse = rows.per_row(lambda b: b.emit(Func.RECIPROCAL, rows.row(b, total)))
    if in_place:
        builder = Builder(shape_of(row_input(rows.chain.op)), rows.leaves)
        e = builder.stream(Stream(None, DType.F32))
    else:
        builder, e = _exponential(rows, top)
    return rows.done(builder, builder.emit(Func.MUL, e, b=rows.row(builder, inverse)))


def _exponential(rows: _Rows, top: int) -> tuple[Builder, int]:
    builder, x = rows.elements()
    t = builder.imm(Func.MUL, builder.emit(Func.SUB, x, b=rows.row(builder, top)), float(LOG2_E))
    return builder, builder.emit(Func.EXP2, t)


def _aligned(rows: _Rows, bits: int) -> int | None:
    """The row number of the power of two that brings a row of binary32 to ``bits``; None for codes, as integers."""
    if is_int(row_input(rows.chain.op)):
        return None
    builder, x = rows.elements()
    top = rows.sweep(builder, builder.emit(Func.ABS, x), RowReduce.MAX)
    return rows.per_row(lambda b: b.imm(Func.ALIGN, rows.row(b, top), bits))


def _integers(rows: _Rows, scale: int | None) -> tuple[Builder, int]:
    """The input as what the reductions round to integers."""
    builder, x = rows.elements()
    return builder, x if scale is None else builder.emit(Func.MUL, x, b=rows.row(builder, scale))


def _epsilon(rows: _Rows, builder: Builder, variance: int, eps: float, scale: int | None) -> int:
    """variance + eps in the units of the integers."""
    if scale is None:
        step = int_type(row_input(rows.chain.op)).scale.data
        return builder.imm(Func.ADD, variance, numerics.fp32(eps / (step * step)))
    r = rows.row(builder, scale)
    return builder.emit(Func.ADD, variance, b=builder.imm(Func.MUL, builder.emit(Func.MUL, r, b=r), eps))


def _layer_norm(rows: _Rows) -> Programs:
    op, count = rows.chain.op, _norm_length(rows.chain.op)
    assert isinstance(op, qnn.LayerNormOp)
    scale = _aligned(rows, MOMENT_BITS)
    total = rows.sweep(*_integers(rows, scale), RowReduce.MOMENTS)
    mean = rows.per_row(lambda b: b.imm(Func.MUL, rows.row(b, total), 1.0 / count))

    def deviation(b: Builder) -> int:
        variance = b.imm(Func.MUL, rows.row(b, total + 1), 1.0 / count**2)
        return b.emit(Func.RSQRT, _epsilon(rows, b, variance, op.eps.data, scale))

    inverse = rows.per_row(deviation)
    builder, v = _integers(rows, scale)
    y = builder.emit(Func.SUB, v, b=rows.row(builder, mean))
    y = builder.emit(Func.MUL, y, b=rows.row(builder, inverse))
    return rows.done(builder, _affine(builder, y, rows, op.gamma, op.beta))


def _rms_norm(rows: _Rows) -> Programs:
    op, count = rows.chain.op, _norm_length(rows.chain.op)
    assert isinstance(op, qnn.RmsNormOp)
    scale = _aligned(rows, MOMENT_BITS)
    total = rows.sweep(*_integers(rows, scale), RowReduce.SQUARES)

    def deviation(b: Builder) -> int:
        square = b.imm(Func.MUL, rows.row(b, total), 1.0 / count)
        return b.emit(Func.RSQRT, _epsilon(rows, b, square, op.eps.data, scale))

    inverse = rows.per_row(deviation)
    builder, v = _integers(rows, scale)
    y = builder.emit(Func.MUL, v, b=rows.row(builder, inverse))
    return rows.done(builder, _affine(builder, y, rows, op.gamma, None))


def _norm_length(op: Operation) -> int:
    if (count := row_length(op)) > WIDEST_NORM:
        raise ProgramError(
            f"{op.name} over {count} elements: the machine's moments take at most {WIDEST_NORM}; norm fewer "
            "at a time, or take mean and variance apart (x.mean, x.var)"
        )
    return count


def _affine(builder: Builder, y: int, rows: _Rows, gamma: SSAValue | None, beta: SSAValue | None) -> int:
    for func, value in ((Func.MUL, gamma), (Func.ADD, beta)):
        if value is None:
            continue
        array = rows.leaves.constant(value)
        if array is None:
            raise ProgramError(f"gamma and beta of {rows.chain.op.name} must be known at compile time")
        y = builder.vector(func, y, np.asarray(array, np.float32))
    return y


REDUCTIONS = {"max": RowReduce.MAX, "min": RowReduce.MIN, "argmax": RowReduce.ARGMAX}


def _reduce(rows: _Rows) -> Programs:
    """One number per row; what follows runs on rows of one channel."""
    op = rows.chain.op
    assert isinstance(op, qnn.ReduceOp)
    kind = op.kind.data
    if kind in REDUCTIONS:
        builder, x = rows.elements()
        number, inverse = rows.sweep(builder, x, REDUCTIONS[kind]), None
    else:
        inverse = _aligned(rows, SUM_BITS)
        number = rows.sweep(*_integers(rows, inverse), RowReduce.SUM)
    if any(stage.program.params for stage in rows.stages):
        raise ProgramError("a reduction is over rows that no per-channel vector changes")
    builder = Builder(shape_of(op.results[0]), rows.leaves)
    value = rows.row(builder, number)
    if kind in ("sum", "mean"):
        if inverse is None:
            value = builder.imm(Func.MUL, value, int_type(op.input).scale.data)
        else:  # exact: a power of two
            value = builder.emit(Func.DIV, value, b=rows.row(builder, inverse))
    if kind == "mean":
        value = builder.imm(Func.MUL, value, 1.0 / row_length(op))
    return rows.done(builder, value)


_EMIT: dict[type[Operation], Callable[[_Rows], Programs]] = dict(
    zip(kern.ROWS, (_softmax, _layer_norm, _rms_norm, _reduce), strict=True)
)
