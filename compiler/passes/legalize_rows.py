"""``legalize-rows``: row operations along the axis that lies innermost in memory.

Rank-4 tensors lie with dimension 1 innermost, all others row-major. A row operation on any other axis gets permutes and
reshapes around it; along the last axis of rank 4 or more only reshapes, to rank 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import shape_of
from compiler.ir.layout import channel_axis
from compiler.ir.location import insert_before


@dataclass(frozen=True)
class LegalizeRowsPass(ModulePass):
    """Bring the axis of every row operation to the innermost stored dimension."""

    name = "legalize-rows"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for member in list(op.walk()):
            if isinstance(member, kern.ROWS) and not _is_legal(member):
                _legalize(member)


def _axis(op: Operation) -> int:
    if isinstance(op, (qnn.SoftmaxOp, qnn.ReduceOp)):
        return op.axis.value.data
    return len(shape_of(op.operands[0])) - 1


def _is_legal(op: Operation) -> bool:
    shape = shape_of(op.operands[0])
    if isinstance(op, qnn.ReduceOp) and op.keepdim is None:
        return False
    return len(shape) <= 4 and _axis(op) == channel_axis(len(shape))


def _legalize(op: Operation) -> None:
    value, axis = op.operands[0], _axis(op)
    shape = shape_of(value)
    order = [*(i for i in range(len(shape)) if i != axis), axis]
    inner = _permuted(op, value, order)
    rows = [shape[i] for i in order[:-1]]
    # Rows of a product keep its batches, so that they join its kernel; others may be cut anywhere.
    lead = rows[:-1] if len(rows) > 1 and _of_product(value) else ()
    flat = (prod(lead), rows[-1], shape[axis]) if lead else (prod(rows), shape[axis])
    inner = _reshaped(op, inner, flat)
    made = _again(op, inner)
    insert_before(op, made)
    result = shape_of(op.results[0])
    if isinstance(op, qnn.ReduceOp):
        back = _reshaped(op, made.results[0], result)
    else:
        back = _reshaped(op, made.results[0], [shape[i] for i in order])
        back = _permuted(op, back, [order.index(i) for i in range(len(shape))])
    op.results[0].replace_all_uses_with(back)
    op.detach()
    op.erase()


def _of_product(value: SSAValue) -> bool:
    """Whether a value is made by a product and elementwise operations on its result."""
    owner = value.owner
    while isinstance(owner, (*kern.CHAIN, qnn.ReshapeOp)) and not isinstance(owner, qnn.DequantizeOp):
        owner = owner.operands[0].owner
    return isinstance(owner, qnn.MatmulOp)


def _again(op: Operation, value: SSAValue) -> Operation:
    """The operation on the last axis of ``value``."""
    last = len(shape_of(value)) - 1
    match op:
        case qnn.SoftmaxOp():
            return qnn.SoftmaxOp(value, last)
        case qnn.ReduceOp():
            return qnn.ReduceOp(value, op.kind.data, last, True)
        case qnn.LayerNormOp():
            return qnn.LayerNormOp(value, op.gamma, op.beta, op.eps.data)
        case qnn.RmsNormOp():
            return qnn.RmsNormOp(value, op.gamma, op.eps.data)
        case _:
            raise AssertionError(f"{op.name} is no row operation")


def _permuted(op: Operation, value: SSAValue, order: list[int]) -> SSAValue:
    if order == sorted(order):
        return value
    permute = qnn.PermuteOp(value, order)
    insert_before(op, permute)
    return permute.output


def _reshaped(op: Operation, value: SSAValue, shape: tuple[int, ...] | list[int]) -> SSAValue:
    if shape_of(value) == tuple(shape):
        return value
    reshape = qnn.ReshapeOp(value, tuple(shape))
    insert_before(op, reshape)
    return reshape.output
