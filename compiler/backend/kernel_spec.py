"""From a kern op to what the back end tiles: NHWC shapes, an anchor, vector programs and constant arrays.

Operands of the spec are those that are read as tensors: scales, biases and what became parameters or immediates are
in the programs. An uneven adaptive pool becomes a matrix product with a constant 0/1 matrix: the same exact sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from compiler.backend.anchors import (
    Operands,
    Stage,
    anchor_stage,
    constant_of,
    stored,
    trailing_stage,
)
from compiler.backend.moves import copy_anchor, movement_shape
from compiler.backend.registers import ProgramError
from compiler.backend.rows import cut_at_rows, row_input, row_length, row_programs
from compiler.backend.vectorize import Leaves, vectorize
from compiler.backend.widths import dtype_of
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.ir.kernel import (
    Anchor,
    KernelSpec,
    MatrixAnchor,
    PoolAnchor,
    RowStage,
    Shape4,
    Stream,
    VectorProgram,
)
from compiler.ir.layout import Walk, nhwc

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Lowered:
    """A spec with the value behind each of its operands; None for constants that the lowering made."""

    spec: KernelSpec
    values: tuple[SSAValue | None, ...]


def kernel_spec(op: kern.FusedOp) -> KernelSpec:
    """The spec of a kernel; UnsupportedError (mostly a ProgramError) when one kernel cannot compute the body."""
    return lower_kernel(op).spec


def lower_kernel(op: kern.FusedOp) -> Lowered:
    """The spec of a kernel and the operand values that its operands stand for."""
    arguments = op.body.block.args
    operands = Operands(
        list(op.inputs), [nhwc(shape_of(a)) for a in arguments], [dtype_of(a) for a in arguments]
    )
    leaves = Leaves({a: i for i, a in enumerate(arguments)}, constant_of)
    anchor, pool, output = op.anchor, op.pool, nhwc(shape_of(op.output))
    if isinstance(anchor, kern.COPIES):
        if (moved := movement_shape(op)) is not None and leaves.constant(arguments[0]) is None:
            shape, movement = moved
            operands.set(0, shape)
            program = VectorProgram((Stream(0, operands.dtypes[0]),), (), operands.dtypes[0])
            return _compact(KernelSpec(op.kernel.data, (), (), shape, None, program, movement=movement), operands)
        copy, program = copy_anchor(op, anchor, operands.dtypes[0])
        return _compact(KernelSpec(op.kernel.data, (), (), output, copy, program), operands)
    members = [m for m in op.members if m is not anchor]
    stage = anchor_stage(anchor, operands, leaves) if anchor is not None else Stage()
    if pool is None:
        stages, program = _programs(members, op.result_value, leaves, stage, operands)
        spec = KernelSpec(
            op.kernel.data, (), (), stage.output or output, stage.anchor, program, macs=stage.macs, stages=stages
        )
        return _compact(replace(spec, row_channels=_row_channels(members)), operands)
    cut = members.index(pool)
    inner = pool.operands[0]
    stages, program = _programs(members[:cut], inner, leaves, stage, operands)
    second = trailing_stage(pool, operands, leaves)
    assert isinstance(second.anchor, PoolAnchor | MatrixAnchor)
    pool_program = _program(members[cut + 1 :], op.result_value, leaves, second, operands)
    spec = KernelSpec(
        op.kernel.data,
        (),
        (),
        output,
        stage.anchor,
        program,
        second.anchor,
        nhwc(shape_of(inner)),
        pool_program,
        stage.macs + second.macs,
        stages=stages,
    )
    return _compact(spec, operands)


def _row_channels(members: Sequence[Operation]) -> int:
    """Length of the rows of a reduction, whose result has one channel; 0 for every other kernel."""
    return next((row_length(m) for m in members if isinstance(m, qnn.ReduceOp)), 0)


def _programs(
    ops: Sequence[Operation], result: SSAValue, leaves: Leaves, stage: Stage, operands: Operands
) -> tuple[tuple[RowStage, ...], VectorProgram]:
    chain = cut_at_rows(ops, result)
    if chain is None:
        return (), _program(ops, result, leaves, stage, operands)
    stages, program = row_programs(chain, leaves, stage.seed)
    for each in stages:
        _align_streams(each.program, shape_of(row_input(chain.op)), leaves, operands, stage)
    _align_streams(program, shape_of(result), leaves, operands, stage)
    return stages, program


def _program(
    ops: Sequence[Operation], result: SSAValue, leaves: Leaves, stage: Stage, operands: Operands
) -> VectorProgram:
    program = vectorize(ops, result, leaves, stage.seed)
    _align_streams(program, shape_of(result), leaves, operands, stage)
    return program


def _align_streams(
    program: VectorProgram, result: tuple[int, ...], leaves: Leaves, operands: Operands, stage: Stage
) -> None:
    for stream in program.streams:
        index = stream.operand
        if index is None or operands.values[index] is None:
            continue
        _align(index, result, leaves, operands, stage.output)


def _align(
    index: int, result: tuple[int, ...], leaves: Leaves, operands: Operands, folded: Shape4 | None
) -> None:
    """Give a stream's operand the shape that broadcasts against the result."""
    argument = next(a for a, i in leaves.operands.items() if i == index)
    shape, array = shape_of(argument), leaves.constant(argument)
    seen = stream_shape(shape, result, folded, array is not None)
    if array is not None:
        array = stored(array.reshape((1,) * (len(result) - len(shape)) + shape)).reshape(seen)
    operands.set(index, seen, array)


def stream_shape(
    shape: tuple[int, ...], result: tuple[int, ...], folded: Shape4 | None = None, movable: bool = False
) -> Shape4:
    """A stored tensor as the (n, h, w, c) that broadcasts against ``result``; ProgramError when its layout forbids.

    ``folded`` is the result's own view when that differs from the layout's; ``movable`` says that the elements
    may be rearranged (constants).
    """
    full = (1,) * (len(result) - len(shape)) + shape
    if not movable:
        walk = Walk.stored(shape).reshaped(full)
        if walk is None or not walk.is_view:
            raise ProgramError(f"shape {shape} does not broadcast against {result} as it lies; reshape it first")
    seen = nhwc(full)
    if len(result) > 4 and full != result and prod(full[:-1]) != 1:
        raise ProgramError(f"shape {shape} broadcasts inside a tensor of rank {len(result)}")
    if folded is None or seen[1:3] == (1, 1):
        return seen
    if full != result:
        raise ProgramError(f"shape {shape} broadcasts along rows or columns only")
    return folded


def _compact(spec: KernelSpec, operands: Operands) -> Lowered:
    """Keep only the operands that the spec reads, in the order anchor, streams."""
    streams = [s.operand for p in spec.programs for s in p.streams]
    anchor = spec.anchor
    first = [] if anchor is None else [anchor.act]
    if isinstance(anchor, MatrixAnchor):
        first.append(anchor.weight)
    if spec.product is not None:
        first.append(spec.product.weight)
    used = list(dict.fromkeys(i for i in (*first, *streams) if i is not None))
    new = {old: i for i, old in enumerate(used)}
    for old in used:
        value = operands.values[old]
        if value is not None and old not in operands.constants and (array := constant_of(value)) is not None:
            operands.constants[old] = stored(array)
    return Lowered(
        replace(
            spec,
            operands=tuple(operands.shapes[i] for i in used),
            dtypes=tuple(operands.dtypes[i] for i in used),
            anchor=_renumbered(anchor, new),
            program=_restreamed(spec.program, new),
            pool=_product_renumbered(spec.pool, new),
            stages=tuple(replace(e, program=_restreamed(e.program, new)) for e in spec.stages),
            pool_program=None if spec.pool_program is None else _restreamed(spec.pool_program, new),
            constants={new[i]: operands.constants[i] for i in used if i in operands.constants},
        ),
        tuple(operands.values[i] for i in used),
    )


def _renumbered(anchor: Anchor, new: dict[int, int]) -> Anchor:
    if isinstance(anchor, MatrixAnchor):
        return replace(anchor, act=new[anchor.act], weight=new[anchor.weight])
    return None if anchor is None else replace(anchor, act=new[anchor.act])


def _product_renumbered(
    anchor: PoolAnchor | MatrixAnchor | None, new: dict[int, int]
) -> PoolAnchor | MatrixAnchor | None:
    """A trailing product reads what the kernel made, which is no operand, and one that is."""
    return replace(anchor, weight=new[anchor.weight]) if isinstance(anchor, MatrixAnchor) else anchor


def _restreamed(program: VectorProgram, new: dict[int, int]) -> VectorProgram:
    streams = [s if s.operand is None else replace(s, operand=new[s.operand]) for s in program.streams]
    return replace(program, streams=tuple(streams))


