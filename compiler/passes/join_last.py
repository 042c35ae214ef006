"""Channels that are joined and then only move before they leave the graph are joined where they leave it.

Outputs lie channel by channel, so there every part has planes of its own. In a join of pixels a part of few channels
lies in small pieces, each of which would take a burst of DRAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from compiler.ir.location import insert_before

Mover = qnn.ReshapeOp | qnn.PermuteOp | qnn.DequantizeOp
CHANNELS = 1


def join_last(block: Block) -> None:
    """Move the parts of such joins one by one."""
    last = block.last_op
    assert isinstance(last, ReturnOp)
    for i, value in enumerate(last.operands):
        movers = _movers(value)
        axes = _axes(movers) if movers and len(shape_of(value)) == 4 else ()
        if axes[-1:] != (CHANNELS,):
            continue
        join = movers[0].input.owner
        assert isinstance(join, qnn.ConcatOp)
        parts = [_moved(last, part, movers, axes) for part in join.inputs]
        last.operands[i] = insert_before(last, qnn.ConcatOp(parts, CHANNELS), source=join)
        for op in (*reversed(movers), join):
            op.detach()
            op.erase()


def _movers(value: SSAValue) -> Sequence[Mover]:
    """The operations between a join and ``value``, which nothing else reads; none where there is no such join."""
    found: list[Mover] = []
    while isinstance(owner := value.owner, Mover) and value.uses.get_length() == 1:
        found.insert(0, owner)
        value = owner.input
    joined = isinstance(value.owner, qnn.ConcatOp) and value.uses.get_length() == 1
    return found if joined and any(not isinstance(op, qnn.DequantizeOp) for op in found) else ()


def _axes(movers: Sequence[Mover]) -> tuple[int, ...]:
    """The axis of the join behind each of ``movers``; nothing where one does not keep it as an axis."""
    join = movers[0].input.owner
    assert isinstance(join, qnn.ConcatOp)
    axis, found = join.axis.value.data % len(shape_of(join.output)), list[int]()
    for op in movers:
        if isinstance(op, qnn.PermuteOp):
            axis = op.order.data.index(axis)
        elif isinstance(op, qnn.ReshapeOp):
            before, after = shape_of(op.input), shape_of(op.output)
            kept = (k for k, n in enumerate(after) if n == before[axis] and prod(after[:k]) == prod(before[:axis]))
            axis = next(kept, -1)
        if axis < 0:
            return ()
        found.append(axis)
    return tuple(found)


def _moved(last: Operation, part: SSAValue, movers: Sequence[Mover], axes: Sequence[int]) -> SSAValue:
    """A part behind the moves of the whole."""
    before = movers[0].input.owner
    assert isinstance(before, qnn.ConcatOp)
    size = shape_of(part)[before.axis.value.data]
    for op, axis in zip(movers, axes, strict=True):
        if isinstance(op, qnn.ReshapeOp):
            shape = shape_of(op.output)
            new: Operation = qnn.ReshapeOp(part, (*shape[:axis], size, *shape[axis + 1 :]))
        elif isinstance(op, qnn.PermuteOp):
            new = qnn.PermuteOp(part, op.order.data)
        else:
            new = qnn.DequantizeOp(part)
        part = insert_before(last, new, source=op)
    return part
