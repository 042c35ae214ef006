"""Reshapes and permutes sink through what works element by element, until they meet: kernels behind them then fuse.

What PyTorch computes on [B, H, T, T] or on images with channels last runs as the matrix unit gave it, and the moves
around it cancel or become one view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerAttr, TensorType, i64
from xdsl.ir import Block, Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of, tensor
from compiler.ir.layout import Walk
from compiler.ir.location import copy_location, insert_before

Move = qnn.ReshapeOp | qnn.PermuteOp
WHOLE_ROWS = ("qnn.softmax", "qnn.layer_norm", "qnn.rms_norm")
"""Operations along the last dimension that leave the shape: moves that keep this dimension pass."""
ABOUT_TO_GIVE = (*kern.MATRIX, *kern.POOLS, *kern.CHAIN, *kern.ROWS)
"""Operations whose kernel an elementwise operation behind them may join, unless they read stored codes."""
Shape = tuple[int, ...]
LARGEST_CONSTANT = 1 << 22
"""Elements of a constant that is spelled out where it repeats in a way that the other shape cannot say."""


def sink_moves(block: Block, kept: frozenset[Operation] = frozenset()) -> None:
    """Move reshapes and permutes behind elementwise operations, which leaves moves that together move nothing.

    Operations that are ``kept`` stay behind the moves.
    """
    for op in list(block.ops):
        if isinstance(op, (*kern.CHAIN, *kern.ROWS)) and op not in kept and not isinstance(op, qnn.DequantizeOp):
            _sink(op)


def drop_idle_moves(block: Block) -> None:
    """Read in front of chains of moves that move nothing, and erase moves and dequantizes that nobody reads."""
    for op in block.ops:
        for i, value in enumerate(op.operands):
            op.operands[i] = _without_idle(value)
    for op in reversed(list(block.ops)):
        if isinstance(op, (*kern.MOVES, qnn.DequantizeOp)) and not op.results[0].uses.get_length():
            op.detach()
            op.erase()


def _chain(value: SSAValue) -> list[Move]:
    """The reshapes and permutes that make a value, or the codes behind it, in order."""
    members: list[Move] = []
    owner = value.owner
    if isinstance(owner, qnn.DequantizeOp):
        owner = owner.input.owner
    while isinstance(owner, Move):
        members.insert(0, owner)
        owner = owner.input.owner
    return members


def _sink(op: Operation) -> None:
    """Put the operation in front of as many moves of one operand as it can pass."""
    result = shape_of(op.results[0])
    # What a kernel is about to give comes first: the operation then joins that kernel; stored codes can be viewed.
    for value in sorted(op.operands, key=lambda operand: isinstance(operand.owner, qnn.DequantizeOp)):
        chain = _chain(value) if shape_of(value) == result else []
        for first in range(len(chain)):
            moves = chain[first:]
            if not all(_passes(op, move) for move in moves):
                continue
            if op.name in WHOLE_ROWS and len(shape_of(moves[0].input)) == 4:
                continue  # its last dimension would not lie innermost
            operands = [_before(op, other, value, moves) for other in op.operands]
            found = [operand for operand in operands if operand is not None]
            if len(found) == len(operands):
                _rebuild(op, found, moves)
                return


def _passes(op: Operation, move: Move) -> bool:
    before, after = shape_of(move.input), shape_of(move.output)
    if op.name not in WHOLE_ROWS:
        return not isinstance(op, kern.ROWS)
    axis = op.properties.get("axis")
    last = not isinstance(axis, IntegerAttr) or axis.value.data == len(shape_of(op.operands[0])) - 1
    kept = move.order.data[-1] == len(before) - 1 if isinstance(move, qnn.PermuteOp) else before[-1:] == after[-1:]
    return last and kept


def _before(op: Operation, value: SSAValue, moved: SSAValue, moves: Sequence[Move]) -> Callable[[], SSAValue] | None:
    """What ``op`` reads instead of an operand when it stands in front of ``moves``; None where that may cost a copy.

    Gives a function that makes the value, so that nothing is made in vain.
    """
    if value is moved:
        return lambda: _unwrapped(op, value, moves[0].input)
    if isinstance(value.owner, qnn.ConstantOp):
        if op.name in WHOLE_ROWS or not shape_of(value):
            return lambda: value
        array = _unmoved(qnn.constant_array(value.owner), moves)
        if array is None or (array.ndim > 4 and array.size > 1):
            return None
        return lambda: _constant(op, value, array)
    shapes = None if op.name in WHOLE_ROWS else _shapes_before(shape_of(value), moves)
    if shapes is None or (len(shapes[-1]) > 4 and shapes[-1] != shape_of(moves[0].input)):
        return None
    if _chain(value) or (_is_free(value, moves) and not _comes_last(value, moves[0].input)):
        return lambda: _inverted(op, value, moves)
    return None


def _comes_last(value: SSAValue, other: SSAValue) -> bool:
    """Whether a kernel that starts behind ``other`` is about to give ``value``, so that its only reader can join."""
    owner = value.owner
    if not isinstance(owner, ABOUT_TO_GIVE) or isinstance(owner, qnn.DequantizeOp) or not value.has_one_use():
        return False
    earlier = not isinstance(other.owner, Operation) or other.owner.is_before_in_block(owner)
    return earlier and prod(shape_of(value)) == prod(shape_of(other))  # nobody joins a kernel of less


def _unwrapped(op: Operation, value: SSAValue, source: SSAValue) -> SSAValue:
    """What lies behind the moves of a value, dequantized again where the value was."""
    if isinstance(value.owner, qnn.DequantizeOp):
        return insert_before(op, qnn.DequantizeOp(source))
    return source


def _is_free(value: SSAValue, moves: Sequence[Move]) -> bool:
    """Whether a value that a kernel stores can be read, where it lies, as it was in front of the moves."""
    stored = value.owner.input if isinstance(value.owner, qnn.DequantizeOp) else value
    back = _back(stored, moves)
    free = kern.read_alias(back) is not None and isinstance(stored.owner, Operation)
    for move in reversed(back):
        move.erase()
    return free


def _shapes_before(shape: Shape, moves: Sequence[Move]) -> list[Shape] | None:
    """Of a value that broadcasts against what ``moves`` give: its shape in full rank, then behind each undone move.

    None where it would repeat along a part of a dimension.
    """
    full = shape_of(moves[-1].output)
    shapes = [(1,) * (len(full) - len(shape)) + shape]
    for move in reversed(moves):
        if isinstance(move, qnn.PermuteOp):
            shapes.append(tuple(shapes[-1][i] for i in _undone(move)))
            continue
        back = _repeating(shapes[-1], shape_of(move.output), shape_of(move.input))
        if back is None:
            return None
        shapes.append(back)
    return shapes


def _repeating(shape: Shape, full: Shape, other: Shape) -> Shape | None:
    """What ``shape``, which broadcasts against ``full``, is when that is reshaped to ``other``."""
    rows = Walk.stored((prod(shape),)).reshaped(shape)
    walk = None if rows is None else rows.expanded(full).reshaped(other)
    if walk is None:
        return None
    repeats = [{factor.stride == 0 for factor in dim} for dim in walk.dims]
    if any(len(found) > 1 for found in repeats):
        return None
    return tuple(1 if True in found else n for n, found in zip(other, repeats, strict=True))


def _undone(move: qnn.PermuteOp) -> list[int]:
    order = move.order.data
    return [order.index(i) for i in range(len(order))]


def _back(value: SSAValue, moves: Sequence[Move]) -> list[Operation]:
    """Moves that undo ``moves`` for a value that broadcasts against what they give."""
    shapes = _shapes_before(shape_of(value), moves)
    assert shapes is not None, "asked before"
    undone: list[Operation] = [] if shapes[0] == shape_of(value) else [qnn.ReshapeOp(value, shapes[0])]
    for move, shape in zip(reversed(moves), shapes[1:], strict=True):
        before = undone[-1].results[0] if undone else value
        turn = isinstance(move, qnn.PermuteOp)
        undone.append(qnn.PermuteOp(before, _undone(move)) if turn else qnn.ReshapeOp(before, shape))
    return undone


def _inverted(op: Operation, value: SSAValue, moves: Sequence[Move]) -> SSAValue:
    """A value moved back."""
    if isinstance(value.owner, qnn.DequantizeOp):
        return insert_before(op, qnn.DequantizeOp(_inverted(op, value.owner.input, moves)))
    # Early, so that the value is there when a kernel that starts before ``op`` wants to swallow it.
    owner = value.owner
    place = owner if isinstance(owner, Operation) else None
    for move in _back(value, moves):
        value = insert_before(op, move) if place is None else _insert_after(place, move)
        place = move if place is not None else None
    return value


def _unmoved(array: NDArray[Any], moves: Sequence[Move]) -> NDArray[Any] | None:
    """A constant that broadcasts against what ``moves`` give, as it broadcasts against their operand."""
    back = np.broadcast_to(array, shape_of(moves[-1].output))
    if back.size > LARGEST_CONSTANT and array.size > 1:
        return None
    for move in reversed(moves):
        if isinstance(move, qnn.PermuteOp):
            back = back.transpose(np.argsort(move.order.data))
        else:
            back = back.reshape(shape_of(move.input))
    repeats = tuple(slice(0, 1) if step == 0 else slice(None) for step in back.strides)
    return np.ascontiguousarray(back[repeats])


def _constant(op: Operation, value: SSAValue, array: NDArray[Any]) -> SSAValue:
    return insert_before(op, qnn.ConstantOp(array, int_type(value) if is_int(value) else None))


def _rebuild(op: Operation, operands: Sequence[Callable[[], SSAValue]], moves: Sequence[Move]) -> None:
    """The operation in front of the moves, and the moves behind it."""
    shape = shape_of(moves[0].input)
    properties = dict(op.properties)
    if "axis" in properties:
        properties["axis"] = IntegerAttr(len(shape) - 1, i64)
    new = type(op).create(
        operands=[make() for make in operands],
        result_types=[TensorType(tensor(op.results[0]).element_type, shape)],
        properties=properties,
        attributes=dict(op.attributes),
    )
    value = insert_before(op, new)
    block = op.parent
    assert block is not None
    for move in moves:
        again: Operation
        if isinstance(move, qnn.PermuteOp):
            again = qnn.PermuteOp(value, move.order.data)
        else:
            again = qnn.ReshapeOp(value, shape_of(move.output))
        block.insert_op_before(again, op)
        copy_location(move, again)
        value = again.results[0]
    op.results[0].replace_all_uses_with(value)
    op.detach()
    op.erase()


def _insert_after(op: Operation, new: Operation) -> SSAValue:
    block = op.parent
    assert block is not None
    block.insert_op_after(new, op)
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
