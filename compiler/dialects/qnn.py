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
    IntegerType,
    Signedness,
    TensorType,
    f32,
    i8,
)
from xdsl.ir import Attribute, Dialect
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
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
    QnnOp,
    Tensor,
    Value,
    expect_float,
    float_tensor,
    int_type,
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
from compiler.dialects.qnn_matrix import Conv2dOp, LinearOp, MatmulOp, conv_shape, matmul_shape
from compiler.dialects.qnn_moves import ExpandOp, PermuteOp, ReshapeOp, SliceOp
from compiler.dialects.qnn_rows import LayerNormOp, ReduceOp, Resize2dOp, RmsNormOp, SoftmaxOp

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
