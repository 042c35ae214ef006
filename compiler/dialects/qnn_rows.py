"""``qnn`` operations along one axis, and interpolation of images."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntegerAttr, StringAttr, TensorType, UnitAttr, f32, i32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import IntsAttr, NumberAttr
from compiler.dialects.qnn_base import (
    ANY,
    INDEX,
    QnnOp,
    Value,
    expect_float,
    expect_rank,
    expect_type,
    float_tensor,
    is_int,
    shape_of,
    tensor,
)

REDUCTIONS = ("sum", "mean", "max", "min", "argmax")


def _axis(value: SSAValue, axis: int) -> int:
    if not 0 <= axis < len(shape_of(value)):
        raise VerifyException(f"axis {axis} is none of {tensor(value)}")
    return axis


@irdl_op_definition
class SoftmaxOp(QnnOp):
    """Softmax along ``axis``: exp2((x - max) * log2 e) over its sum, an exact sum of fixed-point numbers."""

    name = "qnn.softmax"
    input = operand_def(ANY)
    axis = prop_def(INDEX)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input `axis` $axis attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, axis: int):
        super().__init__(
            operands=[value],
            result_types=[float_tensor(shape_of(value))],
            properties={"axis": IntegerAttr(axis % max(len(shape_of(value)), 1), i64)},
        )

    def infer(self) -> Attribute:
        expect_float("input", self.input)
        _axis(self.input, self.axis.value.data)
        return float_tensor(shape_of(self.input))


@irdl_op_definition
class LayerNormOp(QnnOp):
    """(x - mean) / sqrt(variance + eps) along the last axis, times gamma, plus beta; x is codes or binary32."""

    name = "qnn.layer_norm"
    input = operand_def(ANY)
    gamma = opt_operand_def(ANY)
    beta = opt_operand_def(ANY)
    eps = prop_def(NumberAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format = (
        "$input (`gamma` $gamma^ `:` type($gamma))? (`beta` $beta^ `:` type($beta))? `eps` $eps"
        " attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(self, value: Value, gamma: Value | None, beta: Value | None, eps: float):
        super().__init__(
            operands=[value, gamma, beta],
            result_types=[float_tensor(shape_of(value))],
            properties={"eps": NumberAttr(float(eps))},
        )

    def infer(self) -> Attribute:
        return _normed(self.input, self.gamma, self.beta)


@irdl_op_definition
class RmsNormOp(QnnOp):
    """x / sqrt(mean of squares + eps) along the last axis, times gamma; x is codes or binary32."""

    name = "qnn.rms_norm"
    input = operand_def(ANY)
    gamma = opt_operand_def(ANY)
    eps = prop_def(NumberAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input (`,` $gamma^)? `eps` $eps attr-dict `:` functional-type(operands, results)"

    def __init__(self, value: Value, gamma: Value | None, eps: float):
        super().__init__(
            operands=[value, gamma],
            result_types=[float_tensor(shape_of(value))],
            properties={"eps": NumberAttr(float(eps))},
        )

    def infer(self) -> Attribute:
        return _normed(self.input, self.gamma)


def _normed(value: SSAValue, *vectors: SSAValue | None) -> Attribute:
    shape = shape_of(value)
    if not shape:
        raise VerifyException("a norm needs an axis, got a scalar")
    if not is_int(value):
        expect_float("input", value)
    for vector in vectors:
        if vector is not None:
            expect_type("gamma or beta", vector.type, float_tensor(shape[-1:]))
    return float_tensor(shape)


@irdl_op_definition
class ReduceOp(QnnOp):
    """Sum, mean, max, min (of codes: codes) or argmax (i32) along ``axis``, which stays with size 1 or goes."""

    name = "qnn.reduce"
    input = operand_def(ANY)
    kind = prop_def(StringAttr)
    axis = prop_def(INDEX)
    keepdim = opt_prop_def(UnitAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$kind $input `axis` $axis (`keepdim` $keepdim^)? attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, kind: str, axis: int, keepdim: bool = False):
        super().__init__(
            operands=[value],
            result_types=[_reduced(SSAValue.get(value), kind, axis % max(len(shape_of(value)), 1), keepdim)],
            properties={
                "kind": StringAttr(kind),
                "axis": IntegerAttr(axis % max(len(shape_of(value)), 1), i64),
                "keepdim": UnitAttr() if keepdim else None,
            },
        )

    def infer(self) -> Attribute:
        if self.kind.data not in REDUCTIONS:
            raise VerifyException(f"kind {self.kind.data!r} is not one of {', '.join(REDUCTIONS)}")
        return _reduced(self.input, self.kind.data, _axis(self.input, self.axis.value.data), self.keepdim is not None)


def _reduced(value: SSAValue, kind: str, axis: int, keepdim: bool) -> Attribute:
    shape = list(shape_of(value))
    shape[axis : axis + 1] = [1] if keepdim else []
    if kind == "argmax":
        return TensorType(i32, shape)
    return TensorType(tensor(value).element_type if kind in ("max", "min") else f32, shape)


@irdl_op_definition
class Resize2dOp(QnnOp):
    """Interpolate x [N, C, H, W] to ``size``; output y lies at max(y*num + phase, 0) / den (``isa.numerics.resize``).

    ``kind`` bilinear gives f32; nearest moves elements, codes too.
    """

    name = "qnn.resize2d"
    input = operand_def(ANY)
    kind = prop_def(StringAttr)
    num = prop_def(IntsAttr)
    den = prop_def(IntsAttr)
    phase = prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$kind $input `num` $num `den` $den `phase` $phase attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(
        self, value: Value, kind: str, num: Sequence[int], den: Sequence[int], phase: Sequence[int], size: Sequence[int]
    ):
        element = tensor(value).element_type if kind == "nearest" else f32
        super().__init__(
            operands=[value],
            result_types=[TensorType(element, (*shape_of(value)[:2], *size))],
            properties={
                "kind": StringAttr(kind),
                "num": IntsAttr(tuple(num)),
                "den": IntsAttr(tuple(den)),
                "phase": IntsAttr(tuple(phase)),
            },
        )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the result."""
        return shape_of(self.output)[2], shape_of(self.output)[3]

    def infer(self) -> Attribute:
        if self.kind.data not in ("nearest", "bilinear"):
            raise VerifyException(f"kind {self.kind.data!r} is neither nearest nor bilinear")
        shape, result = expect_rank("input", self.input, 4), expect_rank("result", self.output, 4)
        if {len(v.data) for v in (self.num, self.den, self.phase)} != {2} or min(self.den.data) < 1:
            raise VerifyException("num, den and phase have an entry for rows and one for columns; den is positive")
        element = tensor(self.input).element_type if self.kind.data == "nearest" else f32
        return TensorType(element, (*shape[:2], *result[2:]))
