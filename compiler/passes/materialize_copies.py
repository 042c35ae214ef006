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
from compiler.backend.widths import stored_bytes
from compiler.dialects import kern, qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.ir.kernel import CopyAnchor, Shape4
from compiler.ir.layout import Alias, nhwc
from compiler.ir.location import copy_location
from compiler.ir.place import packed_strides, planar_strides
from compiler.ir.signature import main_function

EARLY_KERNELS, EARLY_GAIN = 8, 24
"""A part of a join is copied into it if it is made so many kernels before all others, and the bytes of those times the
kernels in between, during which the join would take memory for nothing, are so many times its own."""

MAX_PIXEL_STRIDE = (1 << 16) - 1
"""What the pixel_stride of ``mmu.input`` can say."""


@dataclass(frozen=True)
class MaterializeCopiesPass(ModulePass):
    """Insert the copies without which views and concatenations could not alias."""

    name = "materialize-copies"

    sram_bytes: int | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        materialize_copies(op, self.sram_bytes)


def materialize_copies(module: ModuleOp, sram_bytes: int | None = None) -> None:
    """Insert copy kernels in front of views, joins and returns that need them.

    A join beyond ``sram_bytes`` lies in DRAM, so that none of its parts is copied to save memory.
    """
    block = main_function(module).body.block
    copied = _Copies({op.kernel.data for op in block.ops if isinstance(op, kern.BodyOp | kern.ConcatOp)})
    made = _made(block, sram_bytes)
    for op in list(block.ops):
        if isinstance(op, kern.ViewOp):
            _settle_view(op, copied)
        elif isinstance(op, kern.ConcatOp):
            early = _early(op, made, sram_bytes)
            for i, value in enumerate(op.inputs):
                if value is early or not _may_be_slice(op, i, value):
                    op.operands[i] = copied(value, op)
        elif isinstance(op, kern.FusedOp):
            _settle_kernel(op, copied)
    last = block.last_op
    assert isinstance(last, ReturnOp)
    for i, value in enumerate(last.operands):
        if not _may_be_output(last, i, value):
            last.operands[i] = copied(value, last)


def _made(block: Block, sram_bytes: int | None) -> dict[SSAValue, int]:
    """How many kernels stand before the first byte of a value is made; early parts of a join are copied later."""
    made: dict[SSAValue, int] = {}
    kernels = 0
    for op in block.ops:
        if isinstance(op, kern.ConcatOp | kern.ViewOp):
            early = _early(op, made, sram_bytes) if isinstance(op, kern.ConcatOp) else None
            made[op.output] = min(made.get(value, 0) for value in op.inputs if value is not early)
        elif isinstance(op, kern.FusedOp):
            made[op.output] = kernels
            kernels += 1
    return made


def _early(op: kern.ConcatOp, made: dict[SSAValue, int], sram_bytes: int | None) -> SSAValue | None:
    """The part of a join that is made long before all others, if there is one and the join may lie in SRAM."""
    first, *others = sorted(op.inputs, key=lambda value: made.get(value, 0))
    if not others or (sram_bytes is not None and stored_bytes(op.output) > sram_bytes):
        return None
    between, part = made.get(others[0], 0) - made.get(first, 0), stored_bytes(first)
    gains = between * (stored_bytes(op.output) - part) >= EARLY_GAIN * part
    return first if between >= EARLY_KERNELS and gains else None


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


def _gapped(value: SSAValue) -> bool:
    """Whether a value is a view that skips or repeats elements of its operand, or walks them in another order."""
    owner = value.owner
    if not isinstance(owner, kern.ViewOp) or kern.read_alias(owner.members) is None:
        return False
    return not kern.in_place(owner.members)


def _settle_view(op: kern.ViewOp, copied: _Copies) -> None:
    value = op.inputs[0]
    read = kern.read_alias(op.members) is not None
    lies = not _gapped(value) and not (isinstance(value, BlockArgument) and _planar(value))
    if not (lies if read else _may_write(op)):
        op.operands[0] = copied(value, op)


def _may_write(view: kern.ViewOp, strides: Shape4 | None = None) -> bool:
    """Whether the kernel of a view's operand can write where the result lies, packed or with ``strides`` (elements)."""
    value = view.inputs[0]
    alias = kern.written_alias(view.members, strides)
    if alias is None or not value.has_one_use() or not isinstance(value.owner, kern.FusedOp):
        return False
    return not _packed(value.owner) or alias.packs(nhwc(shape_of(value)))


def _settle_kernel(op: kern.FusedOp, copied: _Copies) -> None:
    """Copies of operands where the kernel reads codes by channel, or bytes without gaps, and they do not lie so."""
    for i, value in enumerate(op.inputs):
        planar = isinstance(value, BlockArgument) and _planar(value)
        if (planar and _reads_nhwc(op, value)) or (_gapped(value) and not _reads_strided(op, value)):
            op.operands[i] = copied(value, op)


def _reads_strided(op: kern.FusedOp, value: SSAValue) -> bool:
    """Whether a kernel can read a view where it lies: pixels of a product's factor lie apart, but not too far."""
    if isinstance(op.anchor, kern.MOVES) or _reads_packed(op, value):
        return False
    owner = value.owner
    assert isinstance(owner, kern.ViewOp)
    alias = kern.read_alias(owner.members)
    assert alias is not None
    if not isinstance(op.anchor, kern.MATRIX):
        return True
    columns = nhwc(shape_of(value))[2]
    return columns == 1 or 0 < alias.strides[2] <= MAX_PIXEL_STRIDE


def _reads_nhwc(op: kern.FusedOp, value: SSAValue) -> bool:
    if isinstance(op.anchor, kern.COPIES):
        # A fill packs what it loads; movements walk bytes without gaps.
        return isinstance(op.anchor, kern.MOVES)
    if _reads_packed(op, value) or (isinstance(op.anchor, kern.MATRIX) and is_int(value)):
        return True
    factors = op.anchor.operands[:2] if isinstance(op.anchor, (*kern.MATRIX, qnn.Resize2dOp)) else ()
    arguments = zip(op.body.block.args, op.inputs, strict=True)
    return any(argument in factors and operand is value for argument, operand in arguments)


def _may_be_slice(op: kern.ConcatOp, index: int, value: SSAValue) -> bool:
    if value in op.inputs[:index] or not isinstance(value.owner, kern.FusedOp | kern.ConcatOp | kern.ViewOp):
        return False
    users = [use.operation for use in value.uses]
    joins = [u for u in users if isinstance(u, kern.ConcatOp)]
    needs_packed = any(isinstance(u, kern.ViewOp | ReturnOp) or _reads_packed(u, value) for u in users)
    if joins != [op] or needs_packed:
        return False
    # Where the join lies itself is known only if it is no slice.
    whole = not any(isinstance(use.operation, kern.ConcatOp) for use in op.output.uses)
    strides = _output_strides(op.output) if _is_output(op) else packed_strides(nhwc(shape_of(op.output)), 1)
    if isinstance(value.owner, kern.ViewOp):
        return whole and _may_write(value.owner, strides)
    return not _packed(value.owner) or (whole and _without_gaps(value, strides))


def _without_gaps(value: SSAValue, strides: Shape4) -> bool:
    """Whether a tensor that lies with these strides (elements) is bytes that a kernel which walks bytes can write."""
    paired = is_int(value) and int_type(value).width.data == 4
    return not paired and Alias(0, strides).packs(nhwc(shape_of(value)))


def _is_output(op: kern.ConcatOp) -> bool:
    """Whether a join is made where it leaves the graph."""
    users = [use.operation for use in op.output.uses]
    return len(users) == 1 and isinstance(users[0], ReturnOp) and not is_int(op.output)


def _output_strides(value: SSAValue) -> Shape4:
    """Of an output, in elements: those of rank 4 lie as PyTorch keeps them."""
    return (planar_strides if len(shape_of(value)) == 4 else packed_strides)(nhwc(shape_of(value)), 1)


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
        return value.has_one_use() and _may_write(value.owner, _output_strides(value))
    if isinstance(value.owner, kern.ConcatOp):
        return _is_output(value.owner)
    if not isinstance(value.owner, kern.FusedOp):
        return False
    lies = not _packed(value.owner) or _without_gaps(value, _output_strides(value))
    return len(list(value.uses)) == 1 and lies
