"""``qnn`` products: convolutions, linear layers and products of two activations."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntegerAttr, UnitAttr, i64
from xdsl.ir import Attribute
from xdsl.irdl import (
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

from compiler.dialects.attrs import IntsAttr
from compiler.dialects.qnn_base import (
    ANY,
    INDEX,
    NO_PADDING,
    ONE,
    ONES,
    QnnOp,
    Value,
    expect_float,
    expect_parameters,
    expect_rank,
    float_tensor,
    is_int,
    shape_of,
)
from compiler.ir import shapes


@irdl_op_definition
class Conv2dOp(QnnOp):
    """``y = fp32(sum((xq - zx) * (wq - zw[c]))) * scale[c] (+ bias[c])`` over windows of x [N,C,H,W], w [O,C/g,kh,kw].

    ``weight_zeros`` holds one zero point or one for each output channel. With x and w in f32 the sum is of binary32
    products in (c, kh, kw) order, each step rounded, and ``scale`` is not read.
    """

    name = "qnn.conv2d"
    x = operand_def(ANY)
    w = operand_def(ANY)
    scale = operand_def(ANY)
    bias = opt_operand_def(ANY)
    strides = prop_def(IntsAttr, default_value=ONES)
    padding = prop_def(IntsAttr, default_value=NO_PADDING)
    dilation = prop_def(IntsAttr, default_value=ONES)
    groups = prop_def(INDEX, default_value=ONE)
    weight_zeros = opt_prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$x `,` $w `,` $scale (`,` $bias^)? (`strides` $strides^)? (`padding` $padding^)?"
        " (`dilation` $dilation^)? (`groups` $groups^)? (`weight_zeros` $weight_zeros^)?"
        " attr-dict `:` functional-type(operands, results)"
    )

    def __init__(
        self,
        x: Value,
        w: Value,
        scale: Value,
        bias: Value | None = None,
        *,
        strides: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        weight_zeros: Sequence[int] | None = None,
    ):
        shape = conv_shape(shape_of(x), shape_of(w), strides, padding, dilation, groups)
        super().__init__(
            operands=[x, w, scale, bias],
            result_types=[float_tensor(shape)],
            properties={
                "strides": IntsAttr(tuple(strides)),
                "padding": IntsAttr(tuple(padding)),
                "dilation": IntsAttr(tuple(dilation)),
                "groups": IntegerAttr(groups, i64),
                "weight_zeros": None if weight_zeros is None else IntsAttr(tuple(weight_zeros)),
            },
        )

    def infer(self) -> Attribute:
        expect_rank("input", self.x, 4)
        expect_rank("weight", self.w, 4)
        expect_parameters(self.x, self.w, self.scale, self.bias)
        expect_zeros(self.weight_zeros, shape_of(self.w)[0])
        window = (self.strides.data, self.padding.data, self.dilation.data)
        if tuple(map(len, window)) != (2, 4, 2):
            raise VerifyException(
                f"strides, padding and dilation have 2, 4 and 2 entries, got {', '.join(map(str, window))}"
            )
        return float_tensor(conv_shape(shape_of(self.x), shape_of(self.w), *window, self.groups.value.data))


def conv_shape(
    x: Sequence[int],
    w: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[int, ...]:
    """Result shape [N,O,H',W'] of a convolution; ValueError when channels and groups do not agree."""
    if groups < 1 or w[0] % groups:
        raise ValueError(f"{w[0]} output channels do not divide into {groups} groups")
    if x[1] != w[1] * groups:
        raise ValueError(f"input has {x[1]} channels, weight wants {w[1]} x {groups} groups")
    return (x[0], w[0], *shapes.window_sizes(x[2:], w[2:], strides, dilation, padding))


@irdl_op_definition
class LinearOp(QnnOp):
    """``y = fp32(sum((xq - zx) * (wq - zw[o]))) * scale[o] (+ bias[o])`` over the last axis of x [..., K], w [O, K].

    ``weight_zeros`` and f32 operands as for ``qnn.conv2d``.
    """

    name = "qnn.linear"
    x = operand_def(ANY)
    w = operand_def(ANY)
    scale = operand_def(ANY)
    bias = opt_operand_def(ANY)
    weight_zeros = opt_prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$x `,` $w `,` $scale (`,` $bias^)? (`weight_zeros` $weight_zeros^)? attr-dict"
        " `:` functional-type(operands, results)"
    )

    def __init__(
        self,
        x: Value,
        w: Value,
        scale: Value,
        bias: Value | None = None,
        *,
        weight_zeros: Sequence[int] | None = None,
    ):
        shape = (*shape_of(x)[:-1], shape_of(w)[0])
        super().__init__(
            operands=[x, w, scale, bias],
            result_types=[float_tensor(shape)],
            properties={"weight_zeros": None if weight_zeros is None else IntsAttr(tuple(weight_zeros))},
        )

    def infer(self) -> Attribute:
        x, w = shape_of(self.x), expect_rank("weight", self.w, 2)
        expect_parameters(self.x, self.w, self.scale, self.bias)
        expect_zeros(self.weight_zeros, w[0])
        if not x or x[-1] != w[1]:
            raise VerifyException(f"contraction mismatch: input {x}, weight {w}")
        return float_tensor((*x[:-1], w[0]))


@irdl_op_definition
class MatmulOp(QnnOp):
    """``y = fp32(sum((aq - za) * (bq - zb))) * (fp32(sa) * fp32(sb))`` of a [..., M, K] and b [..., K, N].

    With ``transpose_b`` b is [..., N, K]. Of f32 operands the sum is of binary32 products, k after k, each rounded.
    """

    name = "qnn.matmul"
    a = operand_def(ANY)
    b = operand_def(ANY)
    transpose_b = opt_prop_def(UnitAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$a `,` $b (`transpose_b` $transpose_b^)? attr-dict `:` functional-type(operands, results)"

    def __init__(self, a: Value, b: Value, transpose_b: bool = False):
        super().__init__(
            operands=[a, b],
            result_types=[float_tensor(matmul_shape(shape_of(a), shape_of(b), transpose_b))],
            properties={"transpose_b": UnitAttr() if transpose_b else None},
        )

    def infer(self) -> Attribute:
        if not is_int(self.a) or not is_int(self.b):
            expect_float("a, beside f32 b,", self.a)
            expect_float("b, beside f32 a,", self.b)
        return float_tensor(matmul_shape(shape_of(self.a), shape_of(self.b), self.transpose_b is not None))


def expect_zeros(zeros: IntsAttr | None, channels: int) -> None:
    """VerifyException unless there is one zero point, or one for each output channel."""
    if zeros is not None and len(zeros.data) not in (1, channels):
        raise VerifyException(f"weight_zeros has 1 or {channels} entries, got {len(zeros.data)}")


def matmul_shape(a: tuple[int, ...], b: tuple[int, ...], transpose_b: bool = False) -> tuple[int, ...]:
    """Result shape of a batched matrix product; ValueError when the operands do not fit."""
    if min(len(a), len(b)) < 2 or a[-1] != b[-1 if transpose_b else -2]:
        raise ValueError(f"contraction mismatch: {a} times {b}" + " transposed" * transpose_b)
    return (*shapes.broadcast(a[:-2], b[:-2]), a[-2], b[-2 if transpose_b else -1])
