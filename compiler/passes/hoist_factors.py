"""Attention's second factor is computed in front of its first product, so that both products can be one kernel."""

from __future__ import annotations

from xdsl.ir import Block, Operation, SSAValue

from compiler.dialects import kern, qnn

Order = dict[Operation, int]
"""Numbers of a block's operations, as they stand."""
BETWEEN = (*kern.CHAIN, qnn.SoftmaxOp, *kern.MOVES)
"""What may stand between the two products of an attention."""


def hoist_factors(block: Block) -> None:
    """Move what only the second factor of an attention needs in front of the first product, keeping its order."""
    order = {op: i for i, op in enumerate(block.ops)}
    for op in list(block.ops):
        if not isinstance(op, qnn.MatmulOp) or (first := _first_product(op.a)) is None:
            continue
        if hoist(block, op.b, first, order):
            order = {op: i for i, op in enumerate(block.ops)}


def hoist(block: Block, value: SSAValue, first: Operation, order: Order) -> bool:
    """Move what ``value`` depends on in front of ``first``; False where nothing moved: it is there or needs it."""
    late = _ancestors(value, order[first], order)
    if first in late:
        return False
    for moved in sorted(late, key=order.__getitem__):
        moved.detach()
        block.insert_op_before(moved, first)
    return bool(late)


def _first_product(value: SSAValue) -> Operation | None:
    """The product behind a softmax behind ``value``; None when ``value`` is no attention's probabilities."""
    op, softmax = value.owner, False
    while isinstance(op, BETWEEN):
        softmax = softmax or isinstance(op, qnn.SoftmaxOp)
        op = op.operands[0].owner
    return op if softmax and isinstance(op, qnn.MatmulOp) else None


def _ancestors(value: SSAValue, first: int, order: Order) -> set[Operation]:
    """Operations from number ``first`` on that ``value`` depends on."""
    found: set[Operation] = set()
    waiting = [value]
    while waiting:
        op = waiting.pop().owner
        if isinstance(op, Operation) and op not in found and order.get(op, -1) >= first:
            found.add(op)
            waiting += op.operands
    return found
