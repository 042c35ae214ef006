"""Reshapes and permutes sink through what works element by element, until they meet: kernels behind them then fuse.

What PyTorch computes on [B, H, T, T] or on images with channels last runs as the matrix unit gave it, and the moves
around it cancel or become one view.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerAttr, TensorType, i64
from xdsl.ir import Block, Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of, tensor
from compiler.ir.layout import Walk
from compiler.ir.location import copy_location

Move = qnn.ReshapeOp | qnn.PermuteOp
WHOLE_ROWS = ("qnn.softmax", "qnn.layer_norm", "qnn.rms_norm")
"""Operations along the last dimension that leave the shape: moves that keep this dimension pass."""
LARGEST_CONSTANT = 1 << 22
"""Elements of a constant that is spelled out where it repeats in a way that the other shape cannot say."""


def sink_moves(block: Block) -> None:
    """Move reshapes and permutes behind elementwise operations, which leaves moves that together move nothing."""
    for op in list(block.ops):
        if isinstance(op, (*kern.CHAIN, *kern.ROWS)) and not isinstance(op, qnn.DequantizeOp):
            _sink(op)


def drop_idle_moves(block: Block) -> None:
    """Read in front of chains of moves that move nothing, and erase moves that nobody reads."""
    for op in block.ops:
        for i, value in enumerate(op.operands):
            op.operands[i] = _without_idle(value)
    for op in reversed(list(block.ops)):
        if isinstance(op, kern.MOVES) and not op.results[0].uses.get_length():
            op.detach()
            op.erase()


def _move_of(value: SSAValue) -> Move | None:
    """The reshape or permute that makes a value, or the codes behind it."""
    owner = value.owner
    if isinstance(owner, qnn.DequantizeOp):
        owner = owner.input.owner
    return owner if isinstance(owner, Move) else None


def _sink(op: Operation) -> None:
    result = shape_of(op.results[0])
    for value in op.operands:
        move = _move_of(value)
        if move is None or shape_of(value) != result or not _passes(op, move):
            continue
        operands = [_before(op, other, value, move) for other in op.operands]
        found = [operand for operand in operands if operand is not None]
        if len(found) == len(operands):
            _rebuild(op, found, move)
            return


def _passes(op: Operation, move: Move) -> bool:
    before, after = shape_of(move.input), shape_of(move.output)
    if op.name not in WHOLE_ROWS:
        return not isinstance(op, kern.ROWS)
    axis = op.properties.get("axis")
    last = not isinstance(axis, IntegerAttr) or axis.value.data % len(after) == len(after) - 1
    kept = move.order.data[-1] == len(before) - 1 if isinstance(move, qnn.PermuteOp) else before[-1:] == after[-1:]
    return last and kept


def _before(op: Operation, value: SSAValue, moved: SSAValue, move: Move) -> Any:
    """What ``op`` reads instead of an operand when it stands in front of ``move``; None where that costs a copy.

    Gives a function that makes the value, so that nothing is made in vain.
    """
    shape = shape_of(move.input)
    if value is moved:
        return lambda: _unwrapped(op, value)
    if isinstance(value.owner, qnn.ConstantOp):
        if op.name in WHOLE_ROWS or not shape_of(value):
            return lambda: value
        array = _unmoved(qnn.constant_array(value.owner), move)
        if array is None or (len(shape) > 4 and array.size > 1):
            return None
        return lambda: _constant(op, value, array)
    if _move_of(value) is not None and shape_of(value) == shape_of(move.output):
        return lambda: _inverted(op, value, move)
    return None


def _unwrapped(op: Operation, value: SSAValue) -> SSAValue:
    """The operand of the move behind a value, dequantized again where the value was."""
    owner = value.owner
    if isinstance(owner, qnn.DequantizeOp):
        return _insert(op, qnn.DequantizeOp(_unwrapped(op, owner.input)))
    assert isinstance(owner, Move)
    return owner.input


def _inverted(op: Operation, value: SSAValue, move: Move) -> SSAValue:
    """A value moved back."""
    if isinstance(value.owner, qnn.DequantizeOp):
        return _insert(op, qnn.DequantizeOp(_inverted(op, value.owner.input, move)))
    if isinstance(move, qnn.PermuteOp):
        order = move.order.data
        return _insert(op, qnn.PermuteOp(value, [order.index(i) for i in range(len(order))]))
    return _insert(op, qnn.ReshapeOp(value, shape_of(move.input)))


def _unmoved(array: NDArray[Any], move: Move) -> NDArray[Any] | None:
    """A constant that broadcasts against what ``move`` gives, as it broadcasts against its operand."""
    before, after = shape_of(move.input), shape_of(move.output)
    full = np.broadcast_to(array, after)
    if isinstance(move, qnn.PermuteOp):
        back = full.transpose(np.argsort(move.order.data))
    else:
        if prod(after) > LARGEST_CONSTANT and array.size > 1:
            return None
        back = full.reshape(before)
    repeats = tuple(slice(0, 1) if step == 0 else slice(None) for step in back.strides)
    return np.ascontiguousarray(back[repeats])


def _constant(op: Operation, value: SSAValue, array: NDArray[Any]) -> SSAValue:
    return _insert(op, qnn.ConstantOp(array, int_type(value) if is_int(value) else None))


def _rebuild(op: Operation, operands: Sequence[Any], move: Move) -> None:
    """The operation in front of the move, and the move behind it."""
    shape = shape_of(move.input)
    properties = dict(op.properties)
    if "axis" in properties:
        properties["axis"] = IntegerAttr(len(shape) - 1, i64)
    new = type(op).create(
        operands=[make() for make in operands],
        result_types=[TensorType(tensor(op.results[0]).element_type, shape)],
        properties=properties,
        attributes=dict(op.attributes),
    )
    _insert(op, new)
    again: Operation
    if isinstance(move, qnn.PermuteOp):
        again = qnn.PermuteOp(new.results[0], move.order.data)
    else:
        again = qnn.ReshapeOp(new.results[0], shape_of(move.output))
    block = op.parent
    assert block is not None
    block.insert_op_before(again, op)
    copy_location(move, again)
    op.results[0].replace_all_uses_with(again.results[0])
    op.detach()
    op.erase()


def _insert(op: Operation, new: Operation) -> SSAValue:
    block = op.parent
    assert block is not None
    block.insert_op_before(new, op)
    copy_location(op, new)
    return new.results[0]


def _without_idle(value: SSAValue) -> SSAValue:
    """The value behind as many moves as together leave every element where it was."""
    members: list[Operation] = []
    best, source = value, value
    while isinstance(owner := source.owner, kern.MOVES):
        members.insert(0, owner)
        source = owner.operands[0]
        if shape_of(source) == shape_of(value) and _idle(members):
            best = source
    return best


def _idle(members: Sequence[Operation]) -> bool:
    walk = kern.moved(members)
    still = Walk.stored(shape_of(members[0].operands[0]))
    return walk is not None and walk.offset == 0 and walk.strides() == still.strides()
