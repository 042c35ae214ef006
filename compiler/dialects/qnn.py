"""The ``qnn`` dialect: what a quantized network computes, exactly.

Tensors are builtin ``tensor<...>`` in PyTorch's logical order. Element types are ``f32``, ``i8`` (weight codes)
and ``!qnn.int<8, scale, zero>`` (activation codes). Numerics are those of ``isa.numerics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    BytesAttr,
    DenseIntOrFPElementsAttr,
    IntegerAttr,
    IntegerType,
    Signedness,
    TensorType,
    UnitAttr,
    f32,
    i8,
    i64,
)
from xdsl.ir import Attribute, Dialect
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import ConstantLike, Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import IntsAttr, IntType, NumberAttr
from compiler.dialects.qnn_base import (
    ANY,
    INDEX,
    NO_PADDING,
    ONE,
    ONES,
    QnnOp,
    Tensor,
    Value,
    expect_float,
    expect_parameters,
    expect_rank,
    float_tensor,
    int_type,
    is_int,
    shape_of,
    tensor,
)
from compiler.dialects.qnn_elementwise import (
    AbsOp,
    AddOp,
    BinaryOp,
    ClampOp,
    DivOp,
    EqOp,
    ErfOp,
    ExpOp,
    FloorOp,
    GeOp,
    GtOp,
    HardsigmoidOp,
    HardswishOp,
    LogOp,
    MaximumOp,
    MinimumOp,
    MulOp,
    ReciprocalOp,
    ReluOp,
    RsqrtOp,
    SelectOp,
    SigmoidOp,
    SqrtOp,
    SubOp,
    TanhOp,
    UnaryOp,
)
from compiler.dialects.qnn_layout import (
    AdaptiveAvgPool2dOp,
    AvgPool2dOp,
    ConcatOp,
    MaxPool2dOp,
    PadOp,
)
from compiler.dialects.qnn_moves import ExpandOp, PermuteOp, ReshapeOp, SliceOp
from compiler.dialects.qnn_rows import LayerNormOp, ReduceOp, Resize2dOp, RmsNormOp, SoftmaxOp
from compiler.ir import shapes

i4, i16 = IntegerType(4), IntegerType(16)
ELEMENTS = {"float32": f32, "int8": i8, "int16": i16}


@irdl_op_definition
class ConstantOp(QnnOp):
    """A tensor known at compile time; ``codes`` tells what i8 values mean when they are activation codes."""

    name = "qnn.constant"
    value = prop_def(DenseIntOrFPElementsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure(), ConstantLike())
    assembly_format = "$value attr-dict `:` type($output)"

    def __init__(self, array: NDArray[Any], codes: IntType | IntegerType | None = None):
        """``array`` is float32, int8 or int16; its bytes are copied once. ``codes`` i4: 4-bit weights, held as i8."""
        element = ELEMENTS.get(array.dtype.name)
        if element is None:
            raise ValueError(f"constants are float32, int8 or int16, got {array.dtype}")
        kind = cast(TensorType[IntegerType | AnyFloat], TensorType(element, array.shape))
        value = DenseIntOrFPElementsAttr(kind, BytesAttr(array.tobytes()))
        super().__init__(
            properties={"value": value},
            result_types=[kind if codes is None else TensorType(codes, array.shape)],
        )

    def verify_(self) -> None:
        held, element = cast(Tensor, self.value.type), tensor(self.output).element_type
        whole = cast(IntType | IntegerType[int, Signedness], element)
        width = 0 if element == f32 else whole.width.data
        fits = held.element_type == (i16 if width == 16 else i8) and width in (4, 8, 16)
        if shape_of(self.output) != held.get_shape() or (held.element_type != element and not fits):
            raise VerifyException(f"value {held} cannot be a {self.output.type}")


def constant_array(op: ConstantOp) -> NDArray[Any]:
    """The constant as a read-only float32, int8 or int16 array over the attribute's own bytes, without a copy."""
    kind = cast(Tensor, op.value.type)
    dtype = np.dtype("<f4" if kind.element_type == f32 else "<i2" if kind.element_type == i16 else "i1")
    return np.frombuffer(op.value.data.data, dtype).reshape(kind.get_shape())


@irdl_op_definition
class QuantizeOp(QnnOp):
    """``clamp(rne(y * fp32(1/s)) + z, lo, hi)``; lo and hi default to the range of the width.

    A codebook's codes are -8 + the number of ``thresholds`` (15, rising) that are <= y.
    """

    name = "qnn.quantize"
    input = operand_def(ANY)
    range = opt_prop_def(IntsAttr)
    thresholds = opt_prop_def(ArrayAttr[NumberAttr])
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$input (`range` $range^)? (`thresholds` $thresholds^)? attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(
        self,
        value: Value,
        codes: IntType,
        bounds: tuple[int, int] | None = None,
        thresholds: Sequence[float] | None = None,
    ):
        limits = bounds if bounds != (codes.low, codes.high) else None
        super().__init__(
            operands=[value],
            result_types=[TensorType(codes, shape_of(value))],
            properties={
                "range": None if limits is None else IntsAttr(limits),
                "thresholds": None if thresholds is None else ArrayAttr([NumberAttr(float(t)) for t in thresholds]),
            },
        )

    @property
    def lo(self) -> int:
        """Smallest code that this op gives."""
        return self.range.data[0] if self.range is not None else int_type(self.output).low

    @property
    def hi(self) -> int:
        """Largest code that this op gives."""
        return self.range.data[1] if self.range is not None else int_type(self.output).high

    def infer(self) -> Attribute:
        codes = int_type(self.output)
        expect_float("input", self.input)
        if (self.thresholds is not None) is not bool(codes.codebook.data):
            raise VerifyException("thresholds belong to codes with a codebook, and to no others")
        if self.thresholds is not None:
            values = [t.data for t in self.thresholds.data]
            if len(values) != 15 or values != sorted(values):
                raise VerifyException(f"a codebook has 15 rising thresholds, got {values}")
        if self.range is not None and len(self.range.data) != 2:
            raise VerifyException(f"range must be <lo, hi>, got {self.range.data}")
        if not codes.low <= self.lo <= self.hi <= codes.high:
            raise VerifyException(
                f"range <{self.lo}, {self.hi}> must be ordered and lie in [{codes.low}, {codes.high}]"
            )
        return TensorType(codes, shape_of(self.input))


@irdl_op_definition
class DequantizeOp(QnnOp):
    """``fp32(q - z) * fp32(s)``."""

    name = "qnn.dequantize"
    input = operand_def(ANY)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value):
        super().__init__(operands=[value], result_types=[float_tensor(shape_of(value))])

    def infer(self) -> Attribute:
        int_type(self.input)
        return float_tensor(shape_of(self.input))


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


__all__ = [
    "AbsOp",
    "AdaptiveAvgPool2dOp",
    "AddOp",
    "AvgPool2dOp",
    "BinaryOp",
    "ClampOp",
    "ConcatOp",
    "ConstantOp",
    "Conv2dOp",
    "DequantizeOp",
    "DivOp",
    "EqOp",
    "ErfOp",
    "ExpOp",
    "ExpandOp",
    "FloorOp",
    "GeOp",
    "GtOp",
    "HardsigmoidOp",
    "HardswishOp",
    "LayerNormOp",
    "LinearOp",
    "LogOp",
    "MatmulOp",
    "MaxPool2dOp",
    "MaximumOp",
    "MinimumOp",
    "MulOp",
    "PadOp",
    "PermuteOp",
    "Qnn",
    "QnnOp",
    "QuantizeOp",
    "ReciprocalOp",
    "ReduceOp",
    "ReluOp",
    "ReshapeOp",
    "Resize2dOp",
    "RmsNormOp",
    "RsqrtOp",
    "SelectOp",
    "SigmoidOp",
    "SliceOp",
    "SoftmaxOp",
    "SqrtOp",
    "SubOp",
    "TanhOp",
    "UnaryOp",
    "constant_array",
    "conv_shape",
    "matmul_shape",
    "shape_of",
    "tensor",
]

Qnn = Dialect(
    "qnn",
    [
        ConstantOp,
        QuantizeOp,
        DequantizeOp,
        Conv2dOp,
        LinearOp,
        MatmulOp,
        AddOp,
        SubOp,
        MulOp,
        ReluOp,
        ClampOp,
        HardswishOp,
        HardsigmoidOp,
        SigmoidOp,
        TanhOp,
        MaxPool2dOp,
        AvgPool2dOp,
        AdaptiveAvgPool2dOp,
        PadOp,
        ConcatOp,
        ReshapeOp,
        PermuteOp,
        SliceOp,
        ExpandOp,
        DivOp,
        MinimumOp,
        MaximumOp,
        ExpOp,
        LogOp,
        SqrtOp,
        RsqrtOp,
        ReciprocalOp,
        AbsOp,
        FloorOp,
        ErfOp,
        GeOp,
        GtOp,
        EqOp,
        SelectOp,
        SoftmaxOp,
        LayerNormOp,
        RmsNormOp,
        ReduceOp,
        Resize2dOp,
    ],
    [IntType, IntsAttr, NumberAttr],
)
