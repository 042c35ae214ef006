"""Reductions read rows in front of moves that leave memory as it is: the kernel that makes the rows reduces them."""

from __future__ import annotations

from xdsl.ir import Block, Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.ir.layout import Walk, channel_axis, storage_order
from compiler.ir.location import copy_location


def reduce_in_place(block: Block) -> None:
    """Reduce the tensor behind reshapes and permutes along its own channels, wherever those are the same rows."""
    for op in list(block.ops):
        if isinstance(op, qnn.ReduceOp) and (source := _source(op)) is not op.input:
            _replace(op, source)


def _source(op: qnn.ReduceOp) -> SSAValue:
    """The first tensor behind the moves of the operand that lies in memory as the operand does, row by row."""
    shape = shape_of(op.input)
    last = len(shape) - 1
    best = value = op.input
    if op.keepdim is None or op.axis.value.data != last or len(shape) > 3:
        return best
    members: list[Operation] = []
    while isinstance(move := value.owner, (qnn.ReshapeOp, qnn.PermuteOp)):
        members.insert(0, move)
        value = move.input
        rank = len(shape_of(value))
        if rank <= 4 and shape_of(value)[channel_axis(rank)] == shape[last] and _lies_still(members):
            best = value
    return best


def _lies_still(members: list[Operation]) -> bool:
    walk = kern.moved(members)
    if walk is None or walk.offset:
        return False
    strides, packed = walk.strides(), Walk.stored(walk.shape).strides()
    if strides is None or packed is None:
        return False
    return all(n == 1 or a == b for n, a, b in zip(walk.shape, strides, packed, strict=True))


def _replace(op: qnn.ReduceOp, source: SSAValue) -> None:
    rank = len(shape_of(source))
    new = qnn.ReduceOp(source, op.kind.data, channel_axis(rank), True)
    made: list[Operation] = [new]
    if rank == 4:
        made.append(qnn.PermuteOp(new.output, storage_order(rank)))
    made.append(qnn.ReshapeOp(made[-1].results[0], shape_of(op.output)))
    assert op.parent is not None
    op.parent.insert_ops_before(made, op)
    copy_location(op, *made)
    op.output.replace_all_uses_with(made[-1].results[0])
    op.detach()
    op.erase()
