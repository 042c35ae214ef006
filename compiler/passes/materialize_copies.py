"""Pass ``materialize-copies``: copy kernels where a value cannot be just a name for another's bytes.

Views and concatenations alias. They cannot where a graph input or output keeps PyTorch's dimension order, where two
concatenations want the same value, or where a view needs bytes without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass

from compiler.backend.anchors import folded_shape
from compiler.backend.kernel_spec import lower_kernel
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import is_int, shape_of
from compiler.ir.kernel import CopyAnchor
from compiler.ir.location import copy_location
from compiler.ir.signature import main_function


@dataclass(frozen=True)
class MaterializeCopiesPass(ModulePass):
    """Insert the copies without which views and concatenations could not alias."""

    name = "materialize-copies"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        materialize_copies(op)


def materialize_copies(module: ModuleOp) -> None:
    """Insert copy kernels in front of views, joins and returns that need them."""
    block = main_function(module).body.block
    copied = _Copies({op.kernel.data for op in block.ops if isinstance(op, kern.BodyOp | kern.ConcatOp)})
    for op in list(block.ops):
        if isinstance(op, kern.ViewOp):
            _settle_view(op, copied)
        elif isinstance(op, kern.ConcatOp):
            for i, value in enumerate(op.inputs):
                if not _may_be_slice(op, i, value):
                    op.operands[i] = copied(value, op)
        elif isinstance(op, kern.FusedOp):
            _settle_kernel(op, copied)
    last = block.last_op
    assert isinstance(last, ReturnOp)
    for i, value in enumerate(last.operands):
        if not _may_be_output(last, i, value):
            last.operands[i] = copied(value, last)


class _Copies:
    """Makes copy kernels whose names are not ``taken``."""

    def __init__(self, taken: set[str]) -> None:
        self._names = (name for i in count() if (name := f"copy_{i}") not in taken)

    def __call__(self, value: SSAValue, before: Operation) -> SSAValue:
        """A copy of ``value`` made by a kernel in front of ``before``."""
        block = before.parent
        assert block is not None
        body = Block(arg_types=[value.type])
        pad = qnn.PadOp(body.args[0], [0] * (2 * len(shape_of(value))), 0.0)
        body.add_ops([pad, kern.YieldOp(pad.output)])
        kernel = kern.KernelOp(next(self._names), [value], body, value.type)
        owner = value.owner
        copy_location(owner if isinstance(owner, Operation) else before, kernel)
        block.insert_op_before(kernel, before)
        return kernel.output


def _planar(value: SSAValue) -> bool:
    """Whether PyTorch's order of a rank-4 tensor differs from NHWC."""
    shape = shape_of(value)
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _settle_view(op: kern.ViewOp, copied: _Copies) -> None:
    value = op.inputs[0]
    if isinstance(value, BlockArgument) and _planar(value):
        op.operands[0] = copied(value, op)


def _settle_kernel(op: kern.FusedOp, copied: _Copies) -> None:
    """Bring a planar graph input into NHWC order where the kernel reads codes by channel, or bytes without gaps."""
    for i, value in enumerate(op.inputs):
        if isinstance(value, BlockArgument) and _planar(value) and _reads_nhwc(op, value):
            op.operands[i] = copied(value, op)


def _reads_nhwc(op: kern.FusedOp, value: SSAValue) -> bool:
    if isinstance(op.anchor, kern.COPIES):
        # A fill packs what it loads; movements walk bytes without gaps.
        return isinstance(op.anchor, kern.MOVES)
    return _reads_packed(op, value) or (isinstance(op.anchor, kern.MATRIX) and is_int(value))


def _may_be_slice(op: kern.ConcatOp, index: int, value: SSAValue) -> bool:
    if value in op.inputs[:index] or not isinstance(value.owner, kern.FusedOp | kern.ConcatOp):
        return False
    users = [use.operation for use in value.uses]
    joins = [u for u in users if isinstance(u, kern.ConcatOp)]
    needs_packed = any(isinstance(u, kern.ViewOp | ReturnOp) or _reads_packed(u, value) for u in users)
    return joins == [op] and not needs_packed and not _packed(value.owner)


def _packed(op: Operation) -> bool:
    """Whether a kernel sees its tensors as other shapes: copies walk bytes, an uneven pool is a matrix product."""
    if not isinstance(op, kern.FusedOp):
        return False
    if isinstance(op.anchor, kern.COPIES):
        spec = lower_kernel(op).spec
        return spec.movement is not None or isinstance(spec.anchor, CopyAnchor)
    return folded_shape(op.anchor) is not None


def _reads_packed(op: Operation, value: SSAValue) -> bool:
    """Whether a kernel reads ``value`` as bytes without gaps; so does one that broadcasts it to another rank."""
    if not isinstance(op, kern.FusedOp):
        return False
    return _packed(op) or len(shape_of(value)) != len(shape_of(op.output))


def _may_be_output(last: ReturnOp, index: int, value: SSAValue) -> bool:
    """Whether the kernel that makes ``value`` can write it where PyTorch expects it."""
    if value in last.operands[:index] or isinstance(value, BlockArgument):
        return False
    if isinstance(value.owner, kern.ViewOp):
        source = value.owner.inputs[0]
        alone = len(list(source.uses)) == 1 and len(list(value.uses)) == 1
        return alone and not _planar(value) and isinstance(source.owner, kern.FusedOp)
    if not isinstance(value.owner, kern.FusedOp):
        return False
    return len(list(value.uses)) == 1 and not _packed(value.owner)
