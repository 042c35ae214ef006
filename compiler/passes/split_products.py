"""Products whose channels become pixels are split, so that the pieces are written where they are read.

A transposed convolution whose kernel is its stride gives the s * s pixels of a block as channels, and so does what
``pixel_shuffle`` reads. In memory the channels of one row of a block are one run, but the rows lie apart: a product
for each row of the blocks writes into a join, which is read where it lies, and no kernel copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, Operation, SSAValue

from compiler.backend.anchors import product_with
from compiler.backend.widths import stored_bytes
from compiler.dialects import kern, qnn
from compiler.dialects.attrs import IntsAttr, IntType
from compiler.dialects.qnn_base import int_type, is_int, shape_of, tensor
from compiler.ir.layout import Walk, nhwc, storage_order
from compiler.ir.location import blamed, insert_before
from compiler.ir.place import packed_strides
from compiler.passes.hoist_factors import Order
from isa.instructions import Mode

CHANNELS, TO_ROWS = 1, (0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class Split:
    """A product [N, K, H, W], what computes on its result, and moves behind which its channels lie in pieces."""

    members: tuple[Operation, ...]
    moves: tuple[Operation, ...]
    channels: NDArray[np.intp]
    """[pieces, channels of one]: numbers of the product's channels, in the order in which they lie."""
    joined: tuple[int, int, int]
    """The result in memory: elements in front of the pieces, pieces, elements behind."""

    @property
    def result(self) -> SSAValue:
        """The value behind the moves."""
        return self.moves[-1].results[0]


def split_products(block: Block, lanes: Mapping[Mode, int] | None = None) -> None:
    """Give each piece of such products a product of its own, and what computes on it.

    ``lanes`` says how many channels the matrix unit makes at once, by mode: a product stays whole where its pieces
    would take more turns.
    """
    order = {op: i for i, op in enumerate(block.ops)}
    for op in list(block.ops):
        if (split := _split(op, lanes, order)) is not None:
            _rebuild(split)


def kept_behind(block: Block, lanes: Mapping[Mode, int] | None = None) -> frozenset[Operation]:
    """Operations behind such moves that no kernel of the product could take in, since others read what they read.

    In front of the moves each would store a tensor of its own, which is then copied.
    """
    kept, order = set[Operation](), {op: i for i, op in enumerate(block.ops)}
    for op in block.ops:
        if (split := _split(op, lanes, order)) is not None:
            members, last = _computed(split.result, order)
            kept.update(_readers(last))
            kept.difference_update(members)
    return frozenset(kept)


def _split(op: Operation, lanes: Mapping[Mode, int] | None, order: Order) -> Split | None:
    if not isinstance(op, qnn.Conv2dOp) or op.groups.value.data != 1:
        return None
    if not all(isinstance(v.owner, qnn.ConstantOp) for v in (op.w, op.scale, op.bias) if v is not None):
        return None
    members, last = _computed(op.output, order)
    moves = _moves(last)
    if not moves or kern.is_view(moves):
        return None
    for count in range(len(moves), 0, -1):
        free = count == len(moves) or kern.read_alias(moves[count:]) is not None
        if free and (found := _pieces(last, moves[:count])) is not None:
            split = Split((op, *members), moves[:count], *found)
            return split if _gains(op, split, lanes) else None
    return None


def _gains(op: qnn.Conv2dOp, split: Split, lanes: Mapping[Mode, int] | None) -> bool:
    """Whether pieces take no more turns of the matrix unit, and read less than a copy would read and write."""
    count, run = split.channels.shape
    if (count - 1) * stored_bytes(op.x) > 2 * stored_bytes(split.result):
        return False
    if lanes is None:
        return True
    with blamed(op):
        n = lanes.get(product_with(op.w, op.x, op.name, constant=True).mode)
    return n is not None and count * -(-run // n) <= -(-count * run // n)


def _computed(value: SSAValue, order: Order) -> tuple[tuple[Operation, ...], SSAValue]:
    """What computes element by element on a value and constants, as far as it gives one value, and that value."""
    known, members, waiting = {value}, list[Operation](), _outside({value}, ())
    best: tuple[tuple[Operation, ...], SSAValue] = ((), value)
    while waiting and len(members) < kern.LONGEST_CHAIN:
        # A split on the way leaves operations that have no number, but none of them reads what is computed here.
        op = min(waiting, key=lambda user: order.get(user, -1))
        waiting.discard(op)
        if _computes(op, known):
            members.append(op)
            known.add(op.results[0])
            waiting |= _outside({op.results[0]}, ())
            live = {v for v in known if _outside({v}, members)}
            best = (tuple(members), op.results[0]) if live == {op.results[0]} else best
    return best


def _outside(values: set[SSAValue], members: Sequence[Operation]) -> set[Operation]:
    return {use.operation for value in values for use in value.uses}.difference(members)


def _computes(op: Operation, known: set[SSAValue]) -> bool:
    constant = (v in known or isinstance(v.owner, qnn.ConstantOp) for v in op.operands)
    same = {shape_of(v) for v in op.operands if v in known} == {shape_of(op.results[0])} if op.results else False
    return isinstance(op, kern.CHAIN) and same and all(constant)


def _readers(value: SSAValue) -> set[Operation]:
    """What reads a value or, where that is dequantized, its numbers."""
    users = _outside({value}, ())
    return users.union(*(_outside({u.output}, ()) for u in users if isinstance(u, qnn.DequantizeOp)))


def _moves(value: SSAValue) -> tuple[Operation, ...]:
    """The chain of moves that is all that reads ``value``."""
    found = list[Operation]()
    while len(users := _outside({value}, ())) == 1 and isinstance(user := users.pop(), kern.MOVES):
        found.append(user)
        value = user.results[0]
    return tuple(found)


def _pieces(value: SSAValue, moves: Sequence[Operation]) -> tuple[NDArray[np.intp], tuple[int, int, int]] | None:
    """``channels`` and ``joined`` of a split; None where the channels are one run, or no pieces that a join says."""
    result = moves[-1].results[0]
    walk = kern.unmoved(moves, Walk.stored(shape_of(result)))
    if walk is None or any(isinstance(user, qnn.ConcatOp) for user in _outside({result}, ())):
        return None  # a join of two kinds of pixels copies them anyway
    factors = walk.factors(CHANNELS)
    order = sorted(range(len(factors)), key=lambda k: -factors[k].stride)
    run = 1
    while order and factors[order[-1]].stride == run:
        run *= factors[order.pop()].size
    if len(order) != 1 or (_paired(value) and (run % 2 or nhwc(shape_of(result))[3] % 2)):
        return None
    count, behind = factors[order[0]].size, factors[order[0]].stride
    if run < count or not _lie_joined(walk, run, count, behind):
        return None  # more pieces than channels in each: planes rather than pixels
    numbers = np.arange(run * count).reshape([f.size for f in factors])
    slowest_first = sorted(range(len(factors)), key=lambda k: -factors[k].stride)
    channels = numbers.transpose(slowest_first).reshape(count, run)
    return channels, (prod(walk.shape) // (count * behind), count, behind)


def _paired(value: SSAValue) -> bool:
    return is_int(value) and int_type(value).width.data == 4


def _lie_joined(walk: Walk, run: int, count: int, behind: int) -> bool:
    """Whether images, rows and pixels of a piece lie one behind the other but for the pieces between them."""
    n, _, h, w = walk.shape
    packed = packed_strides((n, h, w, run), 1)
    for axis, size, step in zip((0, 2, 3), (n, h, w), packed[:3], strict=True):
        expected = step * count if step >= behind else step
        if size > 1 and [f.stride for f in walk.factors(axis)] != [expected]:
            return False
    return True


def _rebuild(split: Split) -> None:
    first = split.moves[0]
    before, _, behind = split.joined
    parts = list[SSAValue]()
    for channels in split.channels:
        rows = insert_before(first, qnn.PermuteOp(_piece(split, channels), TO_ROWS))
        parts.append(insert_before(first, qnn.ReshapeOp(rows, (before, 1, behind))))
    whole = insert_before(first, qnn.ConcatOp(parts, 1), source=split.moves[-1])
    shape = shape_of(split.result)
    order = storage_order(len(shape))
    value = insert_before(first, qnn.ReshapeOp(whole, [shape[axis] for axis in order]), source=split.moves[-1])
    if order != tuple(range(len(order))):
        back = qnn.PermuteOp(value, [order.index(axis) for axis in range(len(order))])
        value = insert_before(first, back, source=split.moves[-1])
    split.result.replace_all_uses_with(value)
    for op in reversed((*split.members, *split.moves)):
        op.detach()
        op.erase()


def _piece(split: Split, channels: NDArray[np.intp]) -> SSAValue:
    """Clones of the product and what computes on it, for some of the channels."""
    total, first = split.channels.size, split.moves[0]
    values = dict[SSAValue, SSAValue]()
    for op in split.members:
        product = isinstance(op, qnn.Conv2dOp)
        for value in op.operands:
            if value not in values and isinstance(value.owner, qnn.ConstantOp) and not (product and value is op.x):
                axis = 0 if product else len(shape_of(value)) - 3
                values[value] = _some(first, value, axis, total, channels)
        n, _, h, w = shape_of(op.results[0])
        properties = dict(op.properties)
        zeros = properties.get("weight_zeros")
        if isinstance(zeros, IntsAttr) and len(zeros.data) > 1:
            properties["weight_zeros"] = IntsAttr(tuple(zeros.data[int(c)] for c in channels))
        clone = type(op).create(
            operands=[values.get(value, value) for value in op.operands],
            result_types=[TensorType(tensor(op.results[0]).element_type, (n, len(channels), h, w))],
            properties=properties,
            attributes=dict(op.attributes),
        )
        values[op.results[0]] = insert_before(first, clone, source=op)
    return values[split.members[-1].results[0]]


def _some(first: Operation, value: SSAValue, axis: int, total: int, channels: NDArray[np.intp]) -> SSAValue:
    """A constant for some of ``total`` channels, if it has them along ``axis``."""
    assert isinstance(value.owner, qnn.ConstantOp)
    if axis < 0 or shape_of(value)[axis] != total:
        return value
    array: NDArray[Any] = np.ascontiguousarray(qnn.constant_array(value.owner).take(channels, axis))
    codes = None if array.dtype == np.float32 else cast(IntType, tensor(value).element_type)
    return insert_before(first, qnn.ConstantOp(array, codes), source=value.owner)
