"""Explicit reshapes where a kernel could not read a tensor as it lies, before kernels are formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import TensorType, UnitAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of, tensor
from compiler.interpreter.qnn import evaluate
from compiler.ir.layout import Walk
from compiler.ir.location import insert_before
from compiler.passes.collapse_broadcasts import UNDO_ROW_MAJOR, collapse_broadcasts
from compiler.passes.hoist_broadcasts import hoist_broadcasts
from compiler.passes.hoist_factors import hoist_factors
from compiler.passes.join_last import join_last
from compiler.passes.reduce_in_place import reduce_in_place
from compiler.passes.sink_moves import drop_idle_moves, sink_moves
from compiler.passes.split_products import kept_behind, split_products
from compiler.passes.widen_moves import widen_moves
from isa.instructions import Mode

BROADCASTING = (qnn.BinaryOp, qnn.SelectOp)


def prepare(block: Block, fill_bytes: int | None = None, lanes: Mapping[Mode, int] | None = None) -> None:
    """Bring matrix products to rank 2 or 3 and joins below 5, align broadcast operands, split reshapes for copies.

    A padded tensor of binary32 beyond ``fill_bytes`` is joined from its parts; ``lanes`` as in ``split_products``.

    Behind it every reader of moved values has a chain of moves of its own, which views make free.
    """
    join_last(block)
    for op in list(block.ops):
        if isinstance(op, qnn.LinearOp):
            _flatten_linear(op)
        elif isinstance(op, qnn.MatmulOp):
            _flatten_matmul(op)
        elif isinstance(op, BROADCASTING):
            _align(_collapse(op))
        elif isinstance(op, qnn.ConcatOp):
            _flatten_concat(op)
        elif isinstance(op, qnn.PadOp) and _too_large(op, fill_bytes):
            _join_strips(op)
        elif isinstance(op, qnn.ReshapeOp) and kern.moved([op]) is None:
            _split(op)
    sink_moves(block, kept_behind(block, lanes))
    for op in list(block.ops):
        if isinstance(op, qnn.MatmulOp) and hasattr(op, "transpose_b"):
            _turn(op)
    reduce_in_place(block)
    drop_idle_moves(block)
    split_products(block, lanes)
    for op in reversed(list(block.ops)):
        if isinstance(op, kern.MOVES):
            _fork(op)
    widen_moves(block)
    hoist_factors(block)
    hoist_broadcasts(block)


def _fork(op: Operation) -> None:
    """A clone of a move for each move that reads it; all other readers share one."""
    users = list(dict.fromkeys(use.operation for use in op.results[0].uses))
    moves = [user for user in users if isinstance(user, kern.MOVES)]
    for user in moves if len(moves) < len(users) else moves[1:]:
        clone = op.clone()
        insert_before(op, clone)
        user.operands[0] = clone.results[0]


def _reshaped(op: Operation, value: SSAValue, shape: Sequence[int]) -> SSAValue:
    """``value`` as ``shape`` in front of ``op``, also behind a dequantize."""
    return value if shape_of(value) == tuple(shape) else _moved(op, value, lambda v: qnn.ReshapeOp(v, shape))


def _moved(op: Operation, value: SSAValue, *moves: Callable[[SSAValue], Operation]) -> SSAValue:
    """``value`` behind ``moves`` in front of ``op``: the codes move where it is dequantized, constants at once."""
    if isinstance(value.owner, qnn.DequantizeOp):
        again = qnn.DequantizeOp(_moved(op, value.owner.input, *moves))
        insert_before(op, again)
        return again.output
    for make in moves:
        new = make(value)
        if isinstance(value.owner, qnn.ConstantOp):
            array = np.ascontiguousarray(evaluate(new, qnn.constant_array(value.owner)))
            kind = int_type(new.results[0]) if is_int(new.results[0]) else None
            new.erase()
            new = qnn.ConstantOp(array, kind)
        insert_before(op, new)
        value = new.results[0]
    return value


def _replace(op: Operation, new: Operation, shape: Sequence[int]) -> None:
    insert_before(op, new)
    op.results[0].replace_all_uses_with(_reshaped(op, new.results[0], shape))
    op.detach()
    op.erase()


def _flatten_linear(op: qnn.LinearOp) -> None:
    shape = shape_of(op.x)
    if len(shape) < 4:
        return
    flat = _reshaped(op, op.x, (prod(shape[:-1]), shape[-1]))
    zeros = None if op.weight_zeros is None else op.weight_zeros.data
    _replace(op, qnn.LinearOp(flat, op.w, op.scale, op.bias, weight_zeros=zeros), shape_of(op.output))


def _flatten_matmul(op: qnn.MatmulOp) -> None:
    a, b, result = shape_of(op.a), shape_of(op.b), shape_of(op.output)
    if len(result) == 2:
        return
    if prod(b[:-2]) == 1:  # one right factor: the batch joins the rows
        left = _reshaped(op, op.a, (prod(a[:-1]), a[-1]))
        right = _reshaped(op, op.b, b[-2:])
        shape: tuple[int, ...] = (prod(a[:-1]), result[-1])
    elif len(a) == len(b) == 3:
        return
    else:
        left = _reshaped(op, op.a, (prod(a[:-2]), *a[-2:]))
        right = _reshaped(op, op.b, (prod(b[:-2]), *b[-2:]))
        shape = (prod(result[:-2]), *result[-2:])
    _replace(op, _product(op, left, right, op.properties, shape), result)


def _product(
    op: qnn.MatmulOp, left: SSAValue, right: SSAValue, properties: Mapping[str, Attribute], shape: Sequence[int]
) -> qnn.MatmulOp:
    kind = TensorType(tensor(op.output).element_type, shape)
    return qnn.MatmulOp.create(operands=[left, right], result_types=[kind], properties=dict(properties))


def _turn(op: qnn.MatmulOp) -> None:
    """Read the right factor the other way round where only its transpose lies as it is read."""
    value = op.b
    members: list[Operation] = []
    while isinstance(owner := value.owner, kern.MOVES):
        members.insert(0, owner)
        value = owner.operands[0]
    if not members or kern.read_alias(members) is not None:
        return
    rank = len(shape_of(op.b))
    turned = qnn.PermuteOp(op.b, [*range(rank - 2), rank - 1, rank - 2])
    if kern.read_alias([*members, turned]) is None:
        turned.erase()
        return
    insert_before(op, turned)
    properties = dict(op.properties)
    if properties.pop("transpose_b", None) is None:
        properties["transpose_b"] = UnitAttr()
    new = _product(op, op.a, turned.output, properties, shape_of(op.output))
    _replace(op, new, shape_of(op.output))


def _flatten_concat(op: qnn.ConcatOp) -> None:
    """A join of high rank is one of three dimensions: those before the axis, the axis, those behind."""
    shape = shape_of(op.output)
    if len(shape) < 5:
        return
    axis = op.axis.value.data % len(shape)
    outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
    flat = [_reshaped(op, value, (outer, shape_of(value)[axis], inner)) for value in op.inputs]
    _replace(op, qnn.ConcatOp(flat, 1), shape)


def _too_large(op: qnn.PadOp, fill_bytes: int | None) -> bool:
    if fill_bytes is None or is_int(op.input) or not any(op.padding.data):
        return False
    return 4 * (prod(shape_of(op.input)) + prod(shape_of(op.output))) > fill_bytes


def _join_strips(op: qnn.PadOp) -> None:
    """Strips of the number around a plain copy."""
    copy = qnn.PadOp(op.input, [0] * len(op.padding.data))
    insert_before(op, copy)
    value = copy.output
    for axis, ends in enumerate(zip(op.padding.data[::2], op.padding.data[1::2], strict=True)):
        shape = shape_of(value)
        arrays = (np.full((*shape[:axis], n, *shape[axis + 1 :]), op.value.data, np.float32) for n in ends)
        low, high = ([qnn.ConstantOp(array)] if array.size else [] for array in arrays)
        if low or high:
            joined = qnn.ConcatOp([*(c.output for c in low), value, *(c.output for c in high)], axis)
            insert_before(op, *low, *high, joined)
            value = joined.output
    op.output.replace_all_uses_with(value)
    op.detach()
    op.erase()


def _align(op: Operation) -> None:
    result = shape_of(op.results[0])
    for i, value in enumerate(op.operands):
        shape = shape_of(value)
        full = (1,) * (len(result) - len(shape)) + shape
        walk = Walk.stored(shape).reshaped(full)
        if walk is None or not walk.is_view:
            op.operands[i] = _reshaped(op, value, full)


def _collapse(op: Operation) -> Operation:
    """``op``, or the same over fewer dimensions where operands broadcast inside a tensor of high rank."""
    new = collapse_broadcasts(op, lambda value, moves: _moved(op, value, *moves))
    if new is None:
        return op
    insert_before(op, new)
    result, shape = new.results[0], shape_of(op.results[0])
    if len(shape_of(result)) == len(UNDO_ROW_MAJOR):
        result = _moved(op, result, lambda value: qnn.PermuteOp(value, UNDO_ROW_MAJOR))
    op.results[0].replace_all_uses_with(_reshaped(op, result, shape))
    op.detach()
    op.erase()
    return new


def _split(op: qnn.ReshapeOp) -> None:
    """Through a tensor of rank 1: out of one layout, then into the other."""
    count = prod(tensor(op.input).get_shape())
    op.operands[0] = _reshaped(op, op.input, (count,))
