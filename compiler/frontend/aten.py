"""One table: PyTorch operator -> the function that builds its qnn operations.

A builder gets the graph under construction and the call's arguments, nodes replaced by frontend values, with
PyTorch's own names and defaults. It returns a frontend value, or raises Refusal. Builders of movement and
quantization are in ``aten_layout``, those of pooling in ``aten_pool``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.ir import Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, shape_of
from compiler.frontend import aten_layout as layout
from compiler.frontend import aten_pool
from compiler.frontend.aten_moves import pair
from compiler.frontend.build import Graph
from compiler.frontend.qdq import (
    Codes,
    Constant,
    Float,
    Quantized,
    Refusal,
    Value,
    Weight,
    check_product_sum,
)

Pair = int | Sequence[int]
Builder = Callable[..., Any]


def conv2d(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Value:
    """``aten.conv2d``."""
    top, left = pair(padding)
    return _conv(g, x, w, bias, pair(stride), (top, left, top, left), pair(dilation), groups)


def conv2d_named_padding(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None = None,
    stride: Pair = 1,
    padding: str = "valid",
    dilation: Pair = 1,
    groups: int = 1,
) -> Value:
    """``aten.conv2d.padding``: of an odd total, "same" puts the larger part at the end."""
    sides = (0, 0, 0, 0)
    if padding == "same":
        if pair(stride) != (1, 1):
            raise Refusal(f"padding 'same' needs stride 1, got {stride}", "write the padding as numbers")
        kernel = _kernel(w)
        total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
        sides = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    return _conv(g, x, w, bias, pair(stride), sides, pair(dilation), groups)


def _kernel(w: Value) -> tuple[int, ...]:
    if not isinstance(w, Weight) or w.codes.ndim != 4:
        raise Refusal("needs a quantized constant weight [O, C/g, kh, kw]", "quantize this layer's weight")
    return w.codes.shape[2:]


def convolution(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    transposed: bool,
    output_padding: Pair,
    groups: int,
) -> Value:
    """``aten.convolution``, not transposed."""
    if transposed:
        raise Refusal("transposed convolutions are not supported", "upsample and convolve instead")
    return conv2d(g, x, w, bias, stride, padding, dilation, groups)


def _conv(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Value:
    source = g.ints(x)
    kernel = _kernel(w)
    if len(shape_of(source)) != 4:
        raise Refusal(f"input must be [N, C, H, W], got {list(shape_of(source))}", "give the model a batch dimension")
    qnn.conv_shape(shape_of(source), (*_shape(w)[:2], *kernel), strides, padding, dilation, groups)
    codes, scale = g.weight(w, source)
    vector = g.bias(bias, shape_of(codes)[0])
    op = qnn.Conv2dOp(source, codes, scale, vector, strides=strides, padding=padding, dilation=dilation, groups=groups)
    return Float(g.add(op))


def _shape(value: Any) -> tuple[int, ...]:
    match value:
        case Weight():
            return value.codes.shape
        case Constant(array):
            return array.shape
        case Codes(ssa) | Quantized(ssa) | Float(ssa):
            return shape_of(ssa)
        case _:
            return ()


def linear(g: Graph, x: Value, w: Value, bias: Value | None = None) -> Value:
    """``aten.linear``: x [..., K], w [O, K]."""
    source = g.ints(x)
    codes, scale = g.weight(w, source)
    return Float(g.add(qnn.LinearOp(source, codes, scale, g.bias(bias, shape_of(codes)[0]))))


def matmul(g: Graph, a: Value, b: Value) -> Value:
    """``aten.matmul``, ``mm`` and ``bmm``; a quantized constant b [K, N] makes it a linear."""
    if isinstance(b, Weight) and b.codes.ndim == 2 and not isinstance(a, Weight):
        return linear(g, a, b.permute((1, 0)))
    left, right = g.ints(a), g.ints(b)
    check_product_sum(int_type(left), int_type(right), shape_of(left)[-1])
    _check_batches(shape_of(left), shape_of(right))
    return Float(g.add(qnn.MatmulOp(left, right)))


def _check_batches(a: Sequence[int], b: Sequence[int]) -> None:
    """Either one right factor for all, or a pair of factors per product: the machine repeats no matrices."""
    left, right = math.prod(a[:-2]), math.prod(b[:-2])
    if right != 1 and not left == right == math.prod(qnn.matmul_shape(tuple(a), tuple(b))[:-2]):
        raise Refusal(
            f"a product of {left} by {right} matrices (shapes {list(a)} and {list(b)}) repeats matrices",
            "repeat the smaller batch with torch.cat, or exchange the factors",
        )


def addmm(g: Graph, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    """``bias + a @ b`` with a constant bias vector and a quantized constant b [K, N]."""
    if beta != 1 or alpha != 1:
        raise Refusal(f"addmm needs beta = alpha = 1, got {beta} and {alpha}", "fold the factors into the weights")
    if isinstance(b, Weight) and isinstance(bias, (Constant, Weight)) and len(_shape(bias)) == 1:
        return linear(g, a, b.permute((1, 0)), bias)
    return binary(qnn.AddOp)(g, matmul(g, a, b), bias)


def binary(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of an elementwise operation of two operands; Python numbers become constants."""

    def build(g: Graph, a: Any, b: Any, *, alpha: float = 1) -> Value:
        if alpha != 1:
            raise Refusal(f"alpha must be 1, got {alpha}", "multiply the operand by alpha first")
        return Float(g.add(kind(g.float(a), g.float(b))))

    return build


def rsub(g: Graph, a: Any, b: Any, alpha: float = 1) -> Value:
    """``b - alpha * a``."""
    return binary(qnn.SubOp)(g, b, a, alpha=alpha)


def unary(kind: Callable[[SSAValue], Operation]) -> Builder:
    """Builder of a function of each element."""

    def build(g: Graph, x: Value) -> Value:
        return Float(g.add(kind(g.float(x))))

    return build


def clamp(g: Graph, x: Value, min: float | None = None, max: float | None = None) -> Value:
    """``aten.clamp`` with number bounds; a missing bound is an infinity."""
    low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
    if low == 0 and high == math.inf:
        return Float(g.add(qnn.ReluOp(g.float(x))))
    return Float(g.add(qnn.ClampOp(g.float(x), low, high)))


def clamp_max(g: Graph, x: Value, max: float) -> Value:
    """``min(x, max)``."""
    return clamp(g, x, None, max)


def hardtanh(g: Graph, x: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    """``aten.hardtanh``."""
    return clamp(g, x, min_val, max_val)


def relu6(g: Graph, x: Value) -> Value:
    """``clamp(x, 0, 6)``."""
    return clamp(g, x, 0.0, 6.0)


def silu(g: Graph, x: Value) -> Value:
    """``x * sigmoid(x)``."""
    value = g.float(x)
    return Float(g.add(qnn.MulOp(value, g.add(qnn.SigmoidOp(value)))))


def batch_norm(
    g: Graph,
    x: Value,
    weight: Constant | None,
    bias: Constant | None,
    mean: Constant,
    variance: Constant,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Value:
    """``x * a + b`` per channel, two roundings.

    ``a = gamma / sqrt(var + eps)`` and ``b = beta - mean * a``, in binary64 and each rounded once to binary32.
    """
    if training:
        raise Refusal("batch norm is in training mode", "call model.eval() before exporting")
    value = g.float(x)
    a = np.asarray(1.0 if weight is None else weight.array, np.float64) / np.sqrt(
        variance.array.astype(np.float64) + eps
    )
    b = np.asarray(0.0 if bias is None else bias.array, np.float64) - mean.array.astype(np.float64) * a
    shape = (-1, *[1] * (len(shape_of(value)) - 2))
    scale, shift = (g.constant(v.astype(np.float32).reshape(shape)) for v in (a, b))
    return Float(g.add(qnn.AddOp(g.add(qnn.MulOp(value, scale)), shift)))


def batch_norm_tuple(
    g: Graph, x: Value, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> tuple[Value, ...]:
    """The decomposed batch norm, whose first result is the tensor."""
    return (batch_norm(g, x, weight, bias, mean, variance, False, momentum, eps),)


def getitem(g: Graph, values: tuple[Value, ...], index: int) -> Value:
    """One result of an operator with several; those that we do not compute are refused."""
    if not 0 <= index < len(values):
        raise Refusal(f"result {index} of this operator is not supported", "use only its first result")
    return values[index]


OPERATORS: dict[str, Builder] = {
    "aten.conv2d.default": conv2d,
    "aten.conv2d.padding": conv2d_named_padding,
    "aten.convolution.default": convolution,
    "aten.linear.default": linear,
    "aten.addmm.default": addmm,
    "aten.mm.default": matmul,
    "aten.bmm.default": matmul,
    "aten.matmul.default": matmul,
    "aten.add.Tensor": binary(qnn.AddOp),
    "aten.add.Scalar": binary(qnn.AddOp),
    "aten.add_.Tensor": binary(qnn.AddOp),
    "aten.add_.Scalar": binary(qnn.AddOp),
    "aten.sub.Tensor": binary(qnn.SubOp),
    "aten.sub.Scalar": binary(qnn.SubOp),
    "aten.sub_.Tensor": binary(qnn.SubOp),
    "aten.sub_.Scalar": binary(qnn.SubOp),
    "aten.rsub.Scalar": rsub,
    "aten.mul.Tensor": binary(qnn.MulOp),
    "aten.mul.Scalar": binary(qnn.MulOp),
    "aten.mul_.Tensor": binary(qnn.MulOp),
    "aten.mul_.Scalar": binary(qnn.MulOp),
    "aten.relu.default": unary(qnn.ReluOp),
    "aten.relu_.default": unary(qnn.ReluOp),
    "aten.relu6.default": relu6,
    "aten.relu6_.default": relu6,
    "aten.hardtanh.default": hardtanh,
    "aten.hardtanh_.default": hardtanh,
    "aten.clamp.default": clamp,
    "aten.clamp_.default": clamp,
    "aten.clamp_min.default": clamp,
    "aten.clamp_min_.default": clamp,
    "aten.clamp_max.default": clamp_max,
    "aten.hardswish.default": unary(qnn.HardswishOp),
    "aten.hardswish_.default": unary(qnn.HardswishOp),
    "aten.hardsigmoid.default": unary(qnn.HardsigmoidOp),
    "aten.hardsigmoid_.default": unary(qnn.HardsigmoidOp),
    "aten.sigmoid.default": unary(qnn.SigmoidOp),
    "aten.sigmoid_.default": unary(qnn.SigmoidOp),
    "aten.silu.default": silu,
    "aten.silu_.default": silu,
    "aten.tanh.default": unary(qnn.TanhOp),
    "aten.tanh_.default": unary(qnn.TanhOp),
    "aten.batch_norm.default": batch_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm_tuple,
    "_operator.getitem": getitem,
    **layout.OPERATORS,
    **aten_pool.OPERATORS,
}
"""Every supported operator."""
