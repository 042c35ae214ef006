"""``qnn`` operations that pool, or only move, values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import BoolAttr, IntegerAttr, TensorType, f32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from compiler.dialects.attrs import IntsAttr, IntType, NumberAttr
from compiler.dialects.qnn_base import (
    ANY,
    INDEX,
    NO_PADDING,
    ONES,
    QnnOp,
    Value,
    expect_rank,
    expect_type,
    float_tensor,
    int_type,
    shape_of,
    tensor,
)
from compiler.ir import shapes

TRUE = BoolAttr.from_bool(True)
NO_VALUE = NumberAttr(0.0)


def pool_shape(
    x: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
) -> tuple[int, ...]:
    """Result shape [N,C,H',W'] of a pool; ValueError when a window would lie in the padding alone."""
    if (len(kernel), len(strides), len(padding), len(dilation)) != (2, 2, 4, 2):
        raise ValueError("kernel, strides and dilation have 2 entries, padding has 4")
    out = shapes.window_sizes(x[2:], kernel, strides, dilation, padding)
    for axis in (0, 1):
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        last = (out[axis] - 1) * strides[axis] - padding[axis]
        if padding[axis] >= extent or last >= x[2 + axis]:
            raise ValueError(f"padding {tuple(padding)} leaves a window of {tuple(kernel)} without input")
    return (x[0], x[1], *out)


@irdl_op_definition
class MaxPool2dOp(QnnOp):
    """Largest code per window of [N,C,H,W]; taps outside are left out."""

    name = "qnn.max_pool2d"
    input = operand_def(ANY)
    kernel = prop_def(IntsAttr)
    strides = prop_def(IntsAttr, default_value=ONES)
    padding = prop_def(IntsAttr, default_value=NO_PADDING)
    dilation = prop_def(IntsAttr, default_value=ONES)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$input `kernel` $kernel (`strides` $strides^)? (`padding` $padding^)? (`dilation` $dilation^)?"
        " attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(
        self,
        value: Value,
        kernel: Sequence[int],
        strides: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
    ):
        shape = pool_shape(shape_of(value), kernel, strides, padding, dilation)
        super().__init__(
            operands=[value],
            result_types=[TensorType(tensor(value).element_type, shape)],
            properties={
                "kernel": IntsAttr(tuple(kernel)),
                "strides": IntsAttr(tuple(strides)),
                "padding": IntsAttr(tuple(padding)),
                "dilation": IntsAttr(tuple(dilation)),
            },
        )

    def infer(self) -> Attribute:
        codes, x = int_type(self.input), expect_rank("input", self.input, 4)
        window = (self.kernel.data, self.strides.data, self.padding.data, self.dilation.data)
        return TensorType(codes, pool_shape(x, *window))


@irdl_op_definition
class AvgPool2dOp(QnnOp):
    """``(fp32(sum(q - z)) * fp32(s)) * fp32(1/count)`` per window of [N,C,H,W]; taps outside add 0.

    count is ``divisor`` if given, else the window's taps, without those outside when ``count_include_pad`` is off.
    """

    name = "qnn.avg_pool2d"
    input = operand_def(ANY)
    kernel = prop_def(IntsAttr)
    strides = prop_def(IntsAttr, default_value=ONES)
    padding = prop_def(IntsAttr, default_value=NO_PADDING)
    count_include_pad = prop_def(BoolAttr, default_value=TRUE)
    divisor = opt_prop_def(INDEX)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = (
        "$input `kernel` $kernel (`strides` $strides^)? (`padding` $padding^)?"
        " (`count_include_pad` $count_include_pad^)? (`divisor` $divisor^)?"
        " attr-dict `:` type($input) `->` type($output)"
    )

    def __init__(
        self,
        value: Value,
        kernel: Sequence[int],
        strides: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        count_include_pad: bool = True,
        divisor: int | None = None,
    ):
        super().__init__(
            operands=[value],
            result_types=[float_tensor(pool_shape(shape_of(value), kernel, strides, padding))],
            properties={
                "kernel": IntsAttr(tuple(kernel)),
                "strides": IntsAttr(tuple(strides)),
                "padding": IntsAttr(tuple(padding)),
                "count_include_pad": BoolAttr.from_bool(count_include_pad),
                "divisor": None if divisor is None else IntegerAttr(divisor, i64),
            },
        )

    def infer(self) -> Attribute:
        int_type(self.input)
        if self.divisor is not None and self.divisor.value.data < 1:
            raise VerifyException(f"divisor must be >= 1, got {self.divisor.value.data}")
        x = expect_rank("input", self.input, 4)
        return float_tensor(pool_shape(x, self.kernel.data, self.strides.data, self.padding.data))


@irdl_op_definition
class AdaptiveAvgPool2dOp(QnnOp):
    """Averages over PyTorch's uneven windows: output i reads ``[floor(i*H/h), ceil((i+1)*H/h))``."""

    name = "qnn.adaptive_avg_pool2d"
    input = operand_def(ANY)
    output_size = prop_def(IntsAttr)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input `size` $output_size attr-dict `:` type($input) `->` type($output)"

    def __init__(self, value: Value, output_size: Sequence[int]):
        super().__init__(
            operands=[value],
            result_types=[float_tensor((*shape_of(value)[:2], *output_size))],
            properties={"output_size": IntsAttr(tuple(output_size))},
        )

    def infer(self) -> Attribute:
        int_type(self.input)
        x, size = expect_rank("input", self.input, 4), self.output_size.data
        if len(size) != 2 or min(size) < 1:
            raise VerifyException(f"output size must be two positive numbers, got {size}")
        return float_tensor((*x[:2], *size))


def code_of(value: float, codes: IntType) -> int | None:
    """The code that stands for exactly ``value``, or None when there is none."""
    if not math.isfinite(value):
        return None
    steps = round(value / codes.scale.data)
    code = steps + codes.zero.data
    if not codes.low <= code <= codes.high:
        return None
    return code if np.float32(steps) * np.float32(codes.scale.data) == np.float32(value) else None


@irdl_op_definition
class PadOp(QnnOp):
    """Surround a tensor; ``padding`` is (low, high) per dimension, in order.

    Codes are padded with the code of ``value`` (the zero point for 0), which must be a code.
    """

    name = "qnn.pad"
    input = operand_def(ANY)
    padding = prop_def(IntsAttr)
    value = prop_def(NumberAttr, default_value=NO_VALUE)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$input `by` $padding (`value` $value^)? attr-dict `:` type($input) `->` type($output)"

    def __init__(self, source: Value, padding: Sequence[int], value: float = 0.0):
        kind = tensor(source)
        super().__init__(
            operands=[source],
            result_types=[TensorType(kind.element_type, shapes.padded(kind.get_shape(), padding))],
            properties={"padding": IntsAttr(tuple(padding)), "value": NumberAttr(float(value))},
        )

    @property
    def code(self) -> int:
        """The code that surrounds a tensor of codes."""
        code = code_of(self.value.data, int_type(self.input))
        if code is None:
            raise VerifyException(f"value {self.value.data!r} is not a code of {int_type(self.input)}")
        return code

    def infer(self) -> Attribute:
        kind = tensor(self.input)
        shape, padding = kind.get_shape(), self.padding.data
        if len(padding) != 2 * len(shape) or min(padding, default=0) < 0:
            raise VerifyException(f"padding needs two numbers >= 0 for each of {len(shape)} dimensions, got {padding}")
        if kind.element_type != f32:
            _ = self.code
        return TensorType(kind.element_type, shapes.padded(shape, padding))


@irdl_op_definition
class ConcatOp(QnnOp):
    """Join tensors of one element type along ``axis``."""

    name = "qnn.concat"
    inputs = var_operand_def(ANY)
    axis = prop_def(INDEX)
    output = result_def(ANY)
    traits = traits_def(Pure())
    assembly_format = "$inputs `axis` $axis attr-dict `:` functional-type(operands, results)"

    def __init__(self, values: Sequence[Value], axis: int):
        super().__init__(
            operands=[[SSAValue.get(value) for value in values]],
            result_types=[_joined([SSAValue.get(value) for value in values], axis)],
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def infer(self) -> Attribute:
        return _joined(self.inputs, self.axis.value.data)


def _joined(values: Sequence[SSAValue], axis: int) -> Attribute:
    if not values:
        raise ValueError("concat needs an operand")
    first = tensor(values[0])
    shape = first.get_shape()
    if not 0 <= axis < len(shape):
        raise ValueError(f"axis must be in [0, {len(shape)}), got {axis}")
    for value in values[1:]:
        expect_type("element type", tensor(value).element_type, first.element_type)
        other = shape_of(value)
        if other[:axis] + other[axis + 1 :] != shape[:axis] + shape[axis + 1 :]:
            raise ValueError(f"shapes {shape} and {other} differ outside axis {axis}")
    total = sum(shape_of(value)[axis] for value in values)
    return TensorType(first.element_type, (*shape[:axis], total, *shape[axis + 1 :]))
