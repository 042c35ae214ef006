"""``qnn`` operations on each binary32 element."""

from __future__ import annotations

from typing import ClassVar

from xdsl.ir import Attribute
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from compiler.dialects.attrs import NumberAttr
from compiler.dialects.qnn_base import ANY, QnnOp, Value, expect_float, float_tensor, shape_of, tensor
from compiler.ir import shapes


class BinaryOp(QnnOp):
    """One binary32 operation per element, with numpy broadcasting."""

    lhs = operand_def(ANY)
    rhs = operand_def(ANY)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def __init__(self, lhs: Value, rhs: Value):
        shape = shapes.broadcast(shape_of(lhs), shape_of(rhs))
        super().__init__(operands=[lhs, rhs], result_types=[float_tensor(shape)])

    def infer(self) -> Attribute:
        expect_float("left operand", self.lhs)
        expect_float("right operand", self.rhs)
        return float_tensor(shapes.broadcast(shape_of(self.lhs), shape_of(self.rhs)))


@irdl_op_definition
class AddOp(BinaryOp):
    """``lhs + rhs``."""

    name = "qnn.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """``lhs - rhs``."""

    name = "qnn.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """``lhs * rhs``."""

    name = "qnn.mul"


class UnaryOp(QnnOp):
    """One function of each binary32 element."""

    T: ClassVar = VarConstraint("T", ANY)
    input = operand_def(T)
    output = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input)"

    def __init__(self, value: Value):
        super().__init__(operands=[value], result_types=[tensor(value)])

    def infer(self) -> Attribute:
        expect_float("input", self.input)
        return self.input.type


@irdl_op_definition
class ReluOp(UnaryOp):
    """``max(x, 0)``."""

    name = "qnn.relu"


@irdl_op_definition
class HardswishOp(UnaryOp):
    """``(x * min(max(x + 3, 0), 6)) * fp32(1/6)``."""

    name = "qnn.hardswish"


@irdl_op_definition
class HardsigmoidOp(UnaryOp):
    """``min(max(x + 3, 0), 6) * fp32(1/6)``."""

    name = "qnn.hardsigmoid"


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """``1 / (1 + exp(-x))`` as the fixed sequence of ``isa.numerics``."""

    name = "qnn.sigmoid"


@irdl_op_definition
class TanhOp(UnaryOp):
    """``tanh(x)`` as the fixed sequence of ``isa.numerics``."""

    name = "qnn.tanh"


@irdl_op_definition
class ClampOp(UnaryOp):
    """``min(max(x, fp32(min)), fp32(max))``; an infinite bound does nothing."""

    name = "qnn.clamp"
    min = prop_def(NumberAttr)
    max = prop_def(NumberAttr)
    assembly_format = "$input `min` $min `max` $max attr-dict `:` type($input)"

    def __init__(self, value: Value, low: float, high: float):
        IRDLOperation.__init__(
            self,
            operands=[value],
            result_types=[tensor(value)],
            properties={"min": NumberAttr(float(low)), "max": NumberAttr(float(high))},
        )


@irdl_op_definition
class DivOp(BinaryOp):
    """``lhs / rhs``, the IEEE quotient."""

    name = "qnn.div"


@irdl_op_definition
class MinimumOp(BinaryOp):
    """The smaller operand; NaN if one is."""

    name = "qnn.minimum"


@irdl_op_definition
class MaximumOp(BinaryOp):
    """The larger operand; NaN if one is."""

    name = "qnn.maximum"


@irdl_op_definition
class GeOp(BinaryOp):
    """1 where ``lhs >= rhs``, else 0."""

    name = "qnn.ge"


@irdl_op_definition
class GtOp(BinaryOp):
    """1 where ``lhs > rhs``, else 0."""

    name = "qnn.gt"


@irdl_op_definition
class EqOp(BinaryOp):
    """1 where ``lhs == rhs``, else 0."""

    name = "qnn.eq"


@irdl_op_definition
class ExpOp(UnaryOp):
    """``e**x`` as the fixed sequence of ``isa.numerics``."""

    name = "qnn.exp"


@irdl_op_definition
class LogOp(UnaryOp):
    """Natural logarithm as the fixed sequence of ``isa.numerics``."""

    name = "qnn.log"


@irdl_op_definition
class SqrtOp(UnaryOp):
    """IEEE square root."""

    name = "qnn.sqrt"


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """``1 / sqrt(x)`` as the fixed sequence of ``isa.numerics``."""

    name = "qnn.rsqrt"


@irdl_op_definition
class ReciprocalOp(UnaryOp):
    """``1 / x`` as the fixed sequence of ``isa.numerics``."""

    name = "qnn.reciprocal"


@irdl_op_definition
class AbsOp(UnaryOp):
    """``|x|``."""

    name = "qnn.abs"


@irdl_op_definition
class FloorOp(UnaryOp):
    """Largest integer not above x."""

    name = "qnn.floor"


@irdl_op_definition
class ErfOp(UnaryOp):
    """Error function as the fixed sequence of ``isa.numerics``."""

    name = "qnn.erf"


@irdl_op_definition
class SelectOp(QnnOp):
    """``a`` where ``condition`` is not 0, else ``b``, with numpy broadcasting."""

    name = "qnn.select"
    condition = operand_def(ANY)
    a = operand_def(ANY)
    b = operand_def(ANY)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$condition `,` $a `,` $b attr-dict `:` functional-type(operands, results)"

    def __init__(self, condition: Value, a: Value, b: Value):
        super().__init__(operands=[condition, a, b], result_types=[float_tensor(_common(condition, a, b))])

    def infer(self) -> Attribute:
        for what, value in (("condition", self.condition), ("a", self.a), ("b", self.b)):
            expect_float(what, value)
        return float_tensor(_common(self.condition, self.a, self.b))


def _common(*values: Value) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    for value in values:
        shape = shapes.broadcast(shape, shape_of(value))
    return shape
