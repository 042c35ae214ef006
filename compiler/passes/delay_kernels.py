"""Pass ``delay-kernels``: a kernel that makes much of little waits until its result is needed.

Between a kernel and its first reader the result takes memory, and if the kernel waits, what it reads does. Skip
connections are often made long before they are read; their makers move behind what lies between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from compiler.backend.widths import stored_bytes
from compiler.dialects import kern
from compiler.ir.signature import main_function


@dataclass(frozen=True)
class DelayKernelsPass(ModulePass):
    """Move kernels down to the first reader of their result where that keeps no more bytes alive."""

    name = "delay-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        delay_kernels(op)


def delay_kernels(module: ModuleOp) -> None:
    """Reorder the kernels of ``@main``; names for bytes (views, joins) follow their readers."""
    block = main_function(module).body.block
    order = _Order()
    for op in reversed(list(block.ops)):
        at = len(order.ops)
        if isinstance(op, kern.BodyOp | kern.ConcatOp):
            target = max((order.position[user] for user in _users(op)), default=at - 1)
            at = target + 1 if order.saves(op, target) else at
        if at < len(order.ops):
            _move(block, op, order.ops[at - 1])
        order.insert(at, op)


class _Order:
    """Operations from the last to the first, and where each stands."""

    def __init__(self) -> None:
        self.ops: list[Operation] = []
        self.position: dict[Operation, int] = {}

    def insert(self, at: int, op: Operation) -> None:
        self.ops.insert(at, op)
        for i in range(at, len(self.ops)):
            self.position[self.ops[i]] = i

    def saves(self, op: Operation, target: int) -> bool:
        """Whether no more bytes are alive if ``op`` moves down to the operation at ``target``; names take none."""
        if not isinstance(op, kern.FusedOp):
            return True
        prolonged = sum(stored_bytes(value) for value in _read(op) if not self._read_behind(value, op, target))
        return prolonged <= stored_bytes(op.output)

    def _read_behind(self, value: SSAValue, op: Operation, target: int) -> bool:
        """Whether another operation at ``target`` or behind it reads ``value``."""
        return any(user is not op and self.position.get(user, target + 1) <= target for user in _readers(value))


def _move(block: Block, op: Operation, before: Operation) -> None:
    op.detach()
    block.insert_op_before(op, before)


def _users(op: Operation) -> Iterator[Operation]:
    return (use.operation for result in op.results for use in result.uses)


def _read(op: kern.FusedOp) -> set[SSAValue]:
    """What earlier kernels made and ``op`` reads, behind views."""
    found: set[SSAValue] = set()
    for value in op.inputs:
        while isinstance(value.owner, kern.ViewOp):
            value = value.owner.inputs[0]
        if isinstance(value.owner, kern.BodyOp | kern.ConcatOp):
            found.add(value)
    return found


def _readers(value: SSAValue) -> Iterator[Operation]:
    """Operations that read ``value``, also through views."""
    for use in value.uses:
        if isinstance(use.operation, kern.ViewOp):
            yield from _readers(use.operation.output)
        else:
            yield use.operation
