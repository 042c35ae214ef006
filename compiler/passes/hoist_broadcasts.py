"""What repeats over a tensor is computed in front of the kernel whose elementwise operations read it."""

from __future__ import annotations

from xdsl.ir import Block, Operation

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.passes.hoist_factors import Order, hoist

WHOLE = (*kern.CHAIN, *kern.MATRIX, *kern.POOLS)
"""What computes a tensor that an elementwise operation behind it can join; not dequantizes of stored codes."""


def hoist_broadcasts(block: Block) -> None:
    """Move what makes broadcast operands in front of the product that their reader joins, where it does not need it.

    No kernel of a smaller tensor swallows that reader; the product can, if all else that it reads is there.
    """
    order = {op: i for i, op in enumerate(block.ops)}
    for op in list(block.ops):
        if not isinstance(op, kern.CHAIN):
            continue
        result = shape_of(op.results[0])
        rows = [v for v in op.operands if shape_of(v) != result and not isinstance(v.owner, qnn.ConstantOp)]
        for row in rows:
            if (root := _root(op, order)) is not op and hoist(block, row, root, order):
                order = {op: i for i, op in enumerate(block.ops)}


def _root(op: Operation, order: Order) -> Operation:
    """Where the kernel starts that ``op`` may join: the last of what makes its operands of full shape, and so on."""
    result = shape_of(op.results[0])
    while isinstance(op, kern.CHAIN):
        makers = [v.owner for v in op.operands if shape_of(v) == result and isinstance(v.owner, WHOLE)]
        makers = [maker for maker in makers if not isinstance(maker, qnn.DequantizeOp)]
        if not makers:
            break
        op = max(makers, key=order.__getitem__)
    return op
