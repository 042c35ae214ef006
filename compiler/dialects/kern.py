"""The ``kern`` dialect: what runs together.

Bodies are qnn ops, so that the qnn semantics are the semantics of this level too. Between kernels there are only
constants, tensors in the storage layout of ``compiler.ir.layout``, views that move nothing, and joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from xdsl.dialects.builtin import IntegerAttr, StringAttr, TensorType, i64
from xdsl.ir import Attribute, Block, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    base,
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsolatedFromAbove, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects import qnn
from compiler.dialects.qnn_base import INDEX, int_type, is_int
from compiler.ir.kernel import Shape4
from compiler.ir.layout import Alias, Walk, nhwc

MATRIX = (qnn.Conv2dOp, qnn.LinearOp, qnn.MatmulOp)
POOLS = (qnn.MaxPool2dOp, qnn.AvgPool2dOp, qnn.AdaptiveAvgPool2dOp, qnn.Resize2dOp)
MOVES = (qnn.ReshapeOp, qnn.PermuteOp, qnn.SliceOp, qnn.ExpandOp)
COPIES = (*MOVES, qnn.PadOp, qnn.ConcatOp)
LONGEST_CHAIN = 64
"""Operations that one kernel considers; far above what a program's slots hold."""
CHAIN = (
    qnn.AddOp,
    qnn.SubOp,
    qnn.MulOp,
    qnn.ReluOp,
    qnn.ClampOp,
    qnn.HardswishOp,
    qnn.HardsigmoidOp,
    qnn.SigmoidOp,
    qnn.TanhOp,
    qnn.DivOp,
    qnn.MinimumOp,
    qnn.MaximumOp,
    qnn.ExpOp,
    qnn.LogOp,
    qnn.SqrtOp,
    qnn.RsqrtOp,
    qnn.ReciprocalOp,
    qnn.AbsOp,
    qnn.FloorOp,
    qnn.ErfOp,
    qnn.GeOp,
    qnn.GtOp,
    qnn.EqOp,
    qnn.SelectOp,
    qnn.QuantizeOp,
    qnn.DequantizeOp,
)
ROWS = (qnn.SoftmaxOp, qnn.LayerNormOp, qnn.RmsNormOp, qnn.ReduceOp)
"""Operations along the rows of channels; a kernel has at most one."""
ANCHORS = (*MATRIX, *POOLS, *COPIES)

TENSOR = base(TensorType)


class BodyOp(IRDLOperation):
    """A named region of qnn ops with one result; block arguments are the operands."""

    inputs = var_operand_def(TENSOR)
    kernel = prop_def(StringAttr)
    body = region_def("single_block")
    output = result_def(TENSOR)
    traits = traits_def(IsolatedFromAbove(), Pure())

    def __init__(
        self, name: str, inputs: Sequence[SSAValue], body: Region | Block, output: Attribute
    ) -> None:
        region = body if isinstance(body, Region) else Region(body)
        super().__init__(
            operands=[list(inputs)],
            result_types=[output],
            properties={"kernel": StringAttr(name)},
            regions=[region],
        )

    @property
    def members(self) -> tuple[Operation, ...]:
        """The qnn ops of the body, without the terminator."""
        return tuple(op for op in self.body.block.ops if not isinstance(op, YieldOp))

    @property
    def result_value(self) -> SSAValue:
        """The value that the body yields."""
        last = self.body.block.last_op
        if not isinstance(last, YieldOp):
            raise VerifyException(f"kernel {self.kernel.data!r} must end with kern.yield")
        return last.value

    def verify_(self) -> None:
        if [a.type for a in self.body.block.args] != [v.type for v in self.inputs]:
            raise VerifyException("block arguments must have the operands' types")
        if self.result_value.type != self.output.type:
            raise VerifyException(f"yields {self.result_value.type}, but its result is {self.output.type}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.kernel)
        printer.print_string(" (")
        printer.print_list(
            list(zip(self.body.block.args, self.inputs, strict=True)),
            lambda pair: _print_pair(printer, *pair),
        )
        printer.print_string(") : ")
        printer.print_function_type(self.operand_types, self.result_types)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        name = parser.parse_str_literal("kernel name")

        def pair():
            argument = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            return argument, parser.parse_unresolved_operand()

        pairs = parser.parse_comma_separated_list(parser.Delimiter.PAREN, pair)
        parser.parse_punctuation(":")
        position = parser.pos
        kind = parser.parse_function_type()
        if len(pairs) != len(kind.inputs.data) or len(kind.outputs.data) != 1:
            parser.raise_error(f"{len(pairs)} operands and one result expected", position, parser.pos)
        types = kind.inputs.data
        arguments = [argument.resolve(t) for (argument, _), t in zip(pairs, types, strict=True)]
        operands = parser.resolve_operands([operand for _, operand in pairs], types, position)
        region = parser.parse_region(arguments)
        op = cls(name, operands, region, kind.outputs.data[0])
        extra = parser.parse_optional_attr_dict_with_keyword()
        if extra is not None:
            op.attributes |= extra.data
        return op


def _print_pair(printer: Printer, argument: SSAValue, operand: SSAValue) -> None:
    printer.print_ssa_value(argument)
    printer.print_string(" = ")
    printer.print_ssa_value(operand)


class FusedOp(BodyOp):
    """A fused kernel: at most one anchor, the float chain that it swallows, one pool after a matrix anchor."""

    @property
    def anchor(self) -> Operation | None:
        """The conv2d, linear, matmul, pool or movement that the kernel is about, or None: a vector-only kernel."""
        return next((op for op in self.members if isinstance(op, ANCHORS)), None)

    @property
    def pool(self) -> Operation | None:
        """The trailing pool or matrix product, if there is one."""
        anchors = [op for op in self.members if isinstance(op, ANCHORS)]
        return anchors[1] if len(anchors) > 1 else None

    def verify_(self) -> None:
        super().verify_()
        members = self.members
        if not members:
            raise VerifyException("a kernel needs an op")
        for op in members:
            if not isinstance(op, (*ANCHORS, *CHAIN, *ROWS)):
                raise VerifyException(f"{op.name} cannot be in a kernel; it takes qnn anchors and elementwise ops")
        if all(isinstance(op, MOVES) for op in members):
            if (walk := movement(self)) is None:
                raise VerifyException("these moves need more than one copy")
            if walk.is_view:
                raise VerifyException("moves nothing; use kern.view")
            return
        self._verify_anchors([op for op in members if isinstance(op, ANCHORS)])

    def _verify_anchors(self, anchors: list[Operation]) -> None:
        if len(anchors) > 2 or (len(anchors) == 2 and not _may_follow(*anchors)):
            names = ", ".join(op.name for op in anchors)
            raise VerifyException(
                f"anchors {names}: a kernel has one, and a conv2d, linear or matmul may be followed by a pool, a "
                "matmul with a softmax by another matmul, of codes that the kernel itself quantizes"
            )
        if not anchors:
            return
        first = anchors[0]
        if any(isinstance(v.owner, Operation) for v in first.operands):
            raise VerifyException(f"{first.name} must take the kernel's operands")
        if isinstance(first, COPIES) and len(self.members) > 1:
            raise VerifyException(f"{first.name} must be alone in its kernel")


@irdl_op_definition
class KernelOp(FusedOp):
    """A fused kernel that has no schedule yet."""

    name = "kern.kernel"


def _may_follow(first: Operation, second: Operation) -> bool:
    pools = isinstance(first, MATRIX) and isinstance(second, (qnn.MaxPool2dOp, qnn.AvgPool2dOp))
    products = isinstance(first, qnn.MatmulOp) and isinstance(second, qnn.MatmulOp)
    return (pools or products) and isinstance(second.operands[0].owner, qnn.QuantizeOp)


@irdl_op_definition
class ViewOp(BodyOp):
    """Moves without a copy: the result is a strided alias of the operand's bytes, or the operand one of the result's.

    In the second case the operand's kernel writes with gaps into the storage of the result.
    """

    name = "kern.view"

    def verify_(self) -> None:
        super().verify_()
        if len(self.inputs) != 1 or not all(isinstance(op, MOVES) for op in self.members):
            raise VerifyException("a view has one operand and holds only reshape, permute, slice and expand")
        if read_alias(self.members) is None and written_alias(self.members) is None:
            raise VerifyException("neither side is a strided alias of the other; use kern.kernel")


def movement(op: BodyOp) -> Walk | None:
    """How a body of moves walks its operand; None when it is no single nest of loops."""
    return moved(op.members)


def moved(members: Sequence[Operation], start: Walk | None = None) -> Walk | None:
    """The walk of a chain of moves over the operand of the first, which lies packed unless ``start`` says otherwise."""
    walk = Walk.stored(qnn.shape_of(members[0].operands[0])) if start is None else start
    for op in members:
        if walk is None:
            return None
        match op:
            case qnn.PermuteOp():
                walk = walk.permuted(op.order.data)
            case qnn.SliceOp():
                walk = walk.sliced(op.starts.data, op.sizes.data, op.steps.data)
            case qnn.ExpandOp():
                walk = walk.expanded(qnn.shape_of(op.output))
            case _:
                walk = walk.reshaped(qnn.shape_of(op.results[0]))
    return walk


def unmoved(members: Sequence[Operation], start: Walk) -> Walk | None:
    """The walk of the operand of moves over the result, which lies as ``start``; None if that lacks some of it."""
    walk: Walk | None = start
    for op in reversed(members):
        if walk is None or isinstance(op, qnn.SliceOp | qnn.ExpandOp):
            return None
        if isinstance(op, qnn.PermuteOp):
            order = op.order.data
            walk = walk.permuted(tuple(order.index(i) for i in range(len(order))))
        else:
            walk = walk.reshaped(qnn.shape_of(op.operands[0]))
    return walk


def read_alias(members: Sequence[Operation], strides: Shape4 | None = None) -> Alias | None:
    """The result of moves as strides over the operand's stored elements, which lie packed or with ``strides``."""
    value = members[0].operands[0]
    walk = moved(members, _lies(value, strides))
    return None if walk is None else _in_elements(walk.alias(), value)


def written_alias(members: Sequence[Operation], strides: Shape4 | None = None) -> Alias | None:
    """The operand of moves as strides over the result's stored elements, which lie packed or with ``strides``."""
    value = members[-1].results[0]
    walk = unmoved(members, _lies(value, strides))
    return None if walk is None else _in_elements(walk.places(), value)


def _paired(value: SSAValue) -> bool:
    return is_int(value) and int_type(value).width.data == 4


def _lies(value: SSAValue, strides: Shape4 | None) -> Walk:
    """A walk in codes over a tensor that lies packed, or with ``strides`` in stored elements."""
    shape, paired = qnn.shape_of(value), _paired(value)
    if strides is None:
        return Walk.stored(shape, paired)
    n, h, w, c = (s * 2 if paired and axis < 3 else s for axis, s in enumerate(strides))
    return Walk.placed(shape, Alias(0, (n, h, w, c)))


def _in_elements(alias: Alias | None, value: SSAValue) -> Alias | None:
    """From codes to stored elements; None where two 4-bit codes that share a byte would be torn apart."""
    if alias is None or not _paired(value):
        return alias
    n, h, w, c = alias.strides
    if c != 1 or any(s % 2 for s in (alias.offset, n, h, w)):
        return None
    return Alias(alias.offset // 2, (n // 2, h // 2, w // 2, 1))


def is_view(members: Sequence[Operation]) -> bool:
    """Whether ops are moves without a copy: readers can walk the operand, or its kernel can write the result."""
    if not all(isinstance(op, MOVES) for op in members):
        return False
    if read_alias(members) is not None:
        return True
    value = members[0].operands[0]
    stored = (qnn.ConstantOp, qnn.DequantizeOp, *COPIES)
    written = isinstance(value.owner, Operation) and not isinstance(value.owner, stored)
    return written and value.has_one_use() and written_alias(members) is not None


def moves_bytes(members: Sequence[Operation]) -> bool:
    """Whether moves of 4-bit codes are a view, or a copy that keeps the two codes of every byte together."""
    if is_view(members):
        return True
    walk = moved(members)
    last = members[-1].results[0]
    rows = [nhwc(qnn.shape_of(value))[3] for value in (members[0].operands[0], last)]
    if walk is None or any(row % 2 for row in rows):
        return False
    *outer, (size, *inner) = walk.loops()
    even = all(source % 2 == target % 2 == 0 for _, source, target in outer)
    return even and walk.offset % 2 == 0 and size % 2 == 0 and inner == [1, 1] and len(outer) < 4


def in_place(members: Sequence[Operation]) -> bool:
    """Whether the result of moves is the operand's packed storage from its first byte on."""
    alias = read_alias(members)
    return alias is not None and alias.packs(nhwc(qnn.shape_of(members[-1].results[0])))


@irdl_op_definition
class ConcatOp(IRDLOperation):
    """Join stored tensors along logical ``axis``; producers may write their slices of the result directly."""

    name = "kern.concat"
    kernel = prop_def(StringAttr)
    inputs = var_operand_def(TENSOR)
    axis = prop_def(INDEX)
    output = result_def(TENSOR)
    traits = traits_def(Pure())
    assembly_format = "$kernel $inputs `axis` $axis attr-dict `:` functional-type(operands, results)"

    def __init__(self, name: str, inputs: Sequence[SSAValue], axis: int, output: Attribute) -> None:
        super().__init__(
            operands=[list(inputs)],
            result_types=[output],
            properties={"kernel": StringAttr(name), "axis": IntegerAttr(axis, i64)},
        )

    def verify_(self) -> None:
        joined = qnn.ConcatOp(self.inputs, self.axis.value.data)
        try:
            if joined.output.type != self.output.type:
                raise VerifyException(f"result must be {joined.output.type}, got {self.output.type}")
        finally:
            joined.erase()


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The result of a kernel or view."""

    name = "kern.yield"
    value = operand_def(TENSOR)
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(BodyOp)))
    assembly_format = "$value attr-dict `:` type($value)"

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value])


Kern = Dialect("kern", [KernelOp, ViewOp, ConcatOp, YieldOp], [])
