"""One table: PyTorch operator -> the function that builds its qnn operations.

A builder gets the graph under construction and the call's arguments, nodes replaced by frontend values, with
PyTorch's own names and defaults. It returns a frontend value, or raises Refusal. Builders of movement and
quantization are in ``aten_layout``, those of pooling in ``aten_pool``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from xdsl.ir import Operation, SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.frontend import aten_layout as layout
from compiler.frontend import aten_moves as moves
from compiler.frontend import aten_pool, aten_rows
from compiler.frontend.aten_moves import pair
from compiler.frontend.build import Graph
from compiler.frontend.qdq import (
    Array,
    Codes,
    Constant,
    Float,
    Mask,
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
    shape = _shape(w) if isinstance(w, (Weight, Constant)) else ()
    if len(shape) != 4:
        raise Refusal("needs a quantized constant weight [O, C/g, kh, kw]", "quantize this layer's weight")
    return shape[2:]


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
    """``aten.convolution``."""
    if transposed:
        return conv_transpose2d(g, x, w, bias, stride, padding, output_padding, groups, dilation)
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
    source = g.factor(x)
    kernel = _kernel(w)
    if len(shape_of(source)) != 4:
        raise Refusal(f"input must be [N, C, H, W], got {list(shape_of(source))}", "give the model a batch dimension")
    qnn.conv_shape(shape_of(source), (*_shape(w)[:2], *kernel), strides, padding, dilation, groups)
    codes, scale, zeros = g.weight(w, source)
    vector = g.bias(bias, shape_of(codes)[0])
    return Float(
        g.add(
            qnn.Conv2dOp(
                source,
                codes,
                scale,
                vector,
                strides=strides,
                padding=padding,
                dilation=dilation,
                groups=groups,
                weight_zeros=zeros,
            )
        )
    )


def conv1d(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Value:
    """``aten.conv1d``: the convolution of one row."""
    (n, c, length), (o, k, taps) = _shape(x), _shape(w)
    row = moves.reshape(g, x, (n, c, 1, length))
    if isinstance(w, Weight):
        w = replace(w, codes=w.codes.reshape(o, k, 1, taps))
    elif isinstance(w, Constant):
        w = Constant(w.array.reshape(o, k, 1, taps))
    one = [moves.pair(value)[-1] for value in (stride, padding, dilation)]
    y = conv2d(g, row, w, bias, (1, one[0]), (0, one[1]), (1, one[2]), groups)
    return moves.reshape(g, y, (n, o, _shape(y)[-1]))


def conv_transpose2d(
    g: Graph,
    x: Value,
    w: Value,
    bias: Value | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Value:
    """``aten.conv_transpose2d``, w [C, O, kh, kw]: a convolution with s*s times the channels, shuffled into pixels.

    Output s*m + r takes the taps r, r + s, ... of inputs m, m - 1, ...: a convolution for each phase r.
    """
    if groups != 1 or moves.pair(dilation) != (1, 1):
        raise Refusal("transposed convolutions have one group and no dilation", "upsample and convolve instead")
    shape = _shape(w)
    if not isinstance(w, (Weight, Constant)) or len(shape) != 4 or (isinstance(w, Weight) and w.axis not in (None, 1)):
        raise Refusal("needs a quantized constant weight [C, O, kh, kw]", "quantize it per output channel, axis 1")
    (sh, sw), (top, left), extra = moves.pair(stride), moves.pair(padding), moves.pair(output_padding)
    n, _, height, width = _shape(x)
    o, kernel = shape[1], shape[2:]
    th, tw = -(-kernel[0] // sh), -(-kernel[1] // sw)
    phases = _phases(w, (sh, sw), (th, tw))
    vector = None if bias is None else Constant(np.tile(_bias_array(bias), sh * sw))
    y = _conv(g, x, phases, vector, (1, 1), (th - 1, tw - 1, th - 1, tw - 1), (1, 1), 1)
    rows, columns = height + th - 1, width + tw - 1
    y = moves.reshape(g, y, (n, sh, sw, o, rows, columns))
    y = moves.permute(g, y, (0, 3, 4, 1, 5, 2))
    y = moves.reshape(g, y, (n, o, rows * sh, columns * sw))
    out = ((height - 1) * sh - 2 * top + kernel[0] + extra[0], (width - 1) * sw - 2 * left + kernel[1] + extra[1])
    if top + out[0] > rows * sh or left + out[1] > columns * sw:
        raise Refusal(f"output_padding {extra} reaches behind the last input", "use a smaller output_padding")
    y = moves.cut(g, y, 2, top, out[0])
    return moves.cut(g, y, 3, left, out[1])


def _bias_array(bias: Any) -> Any:
    return bias.dequantized() if isinstance(bias, Weight) else bias.array


def _phases(w: Weight | Constant, stride: tuple[int, int], taps: tuple[int, int]) -> Weight | Constant:
    """Weights [sh*sw*O, C, th, tw] of the phases (rows, columns, outputs); taps that a phase lacks are zero points."""
    repeats = stride[0] * stride[1]
    if isinstance(w, Constant):
        return Constant(_phase_array(w.array, np.zeros(w.array.shape[1], w.array.dtype), stride, taps))
    outputs = (w.codes.shape[1],)
    scale, zeros = np.broadcast_to(w.scale, outputs), np.broadcast_to(w.zero, outputs)
    codes = _phase_array(w.codes, zeros, stride, taps)
    return Weight(codes, np.tile(scale, repeats), np.tile(zeros, repeats), 0, w.width)


def _phase_array(w: Array, zeros: Array, stride: tuple[int, int], taps: tuple[int, int]) -> Array:
    c, o, kh, kw = w.shape
    (sh, sw), (th, tw) = stride, taps
    whole = np.empty((sh, sw, o, c, th, tw), w.dtype)
    whole[...] = zeros.reshape(o, 1, 1, 1)
    for i in range(kh):
        for j in range(kw):
            whole[i % sh, j % sw, :, :, th - 1 - i // sh, tw - 1 - j // sw] = w[:, :, i, j].T
    return whole.reshape(-1, c, th, tw)


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
    source = g.factor(x)
    codes, scale, zeros = g.weight(w, source)
    return Float(g.add(qnn.LinearOp(source, codes, scale, g.bias(bias, shape_of(codes)[0]), weight_zeros=zeros)))


def matmul(g: Graph, a: Value, b: Value) -> Value:
    """``aten.matmul``, ``mm`` and ``bmm``; a quantized constant b [K, N] makes it a linear."""
    if isinstance(b, Weight) and b.codes.ndim == 2 and not isinstance(a, Weight):
        return linear(g, a, b.permute((1, 0)))
    left, right = g.factor(a), g.factor(b)
    if is_int(left) and is_int(right):
        check_product_sum(int_type(left), int_type(right), shape_of(left)[-1])
    batch = qnn.matmul_shape(shape_of(left), shape_of(right))[:-2]
    if math.prod(shape_of(right)[:-2]) != 1:  # one right factor serves all; else every product has its pair
        left, right = (_repeated(g, value, batch) for value in (left, right))
    return Float(g.add(qnn.MatmulOp(left, right)))


def _repeated(g: Graph, value: SSAValue, batch: Sequence[int]) -> SSAValue:
    """A batch of matrices repeated to ``batch``."""
    shape = (*batch, *shape_of(value)[-2:])
    return value if shape == shape_of(value) else g.add(qnn.ExpandOp(value, shape))


def baddbmm(g: Graph, x: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    """``x + a @ b`` of batches."""
    if beta != 1 or alpha != 1:
        raise Refusal(f"baddbmm needs beta = alpha = 1, got {beta} and {alpha}", "multiply the operands first")
    return binary(qnn.AddOp)(g, matmul(g, a, b), x)


def embedding(g: Graph, table: Value, indices: Value, *_: Any) -> Value:
    """``aten.embedding`` of constant positions."""
    if isinstance(table, Constant) and isinstance(indices, Constant):
        return Constant(np.ascontiguousarray(table.array[indices.array]))
    raise Refusal("an embedding needs constant positions: memory has no gather", "look the rows up before the model")


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


SQRT_HALF, SQRT_2_PI, CUBIC = 0.5**0.5, (2.0 / math.pi) ** 0.5, 0.044715


def gelu(g: Graph, x: Value, *, approximate: str = "none") -> Value:
    """``aten.gelu``: (x * 0.5) * (erf(x * sqrt(1/2)) + 1), or with tanh."""
    value = g.float(x)

    def number(v: float) -> SSAValue:
        return g.constant(np.asarray(v, np.float32))

    if approximate == "tanh":
        cube = g.add(qnn.MulOp(g.add(qnn.MulOp(value, value)), value))
        inner = g.add(qnn.AddOp(value, g.add(qnn.MulOp(cube, number(CUBIC)))))
        bent = g.add(qnn.TanhOp(g.add(qnn.MulOp(inner, number(SQRT_2_PI)))))
    else:
        bent = g.add(qnn.ErfOp(g.add(qnn.MulOp(value, number(SQRT_HALF)))))
    half = g.add(qnn.MulOp(value, number(0.5)))
    return Float(g.add(qnn.MulOp(half, g.add(qnn.AddOp(bent, number(1.0))))))


def negative(g: Graph, x: Value) -> Value:
    """``x * -1``."""
    return binary(qnn.MulOp)(g, x, -1.0)


def power(g: Graph, x: Value, exponent: float) -> Value:
    """x ** 2, 0.5, -0.5 and -1."""
    value = g.float(x)
    if exponent == 2:
        return Float(g.add(qnn.MulOp(value, value)))
    kinds: dict[float, Any] = {0.5: qnn.SqrtOp, -0.5: qnn.RsqrtOp, -1: qnn.ReciprocalOp}
    if exponent not in kinds:
        raise Refusal(f"pow has exponents 2, 0.5, -0.5 and -1, got {exponent}", "write it with exp and log")
    return Float(g.add(kinds[exponent](value)))


def compare(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of a comparison, which gives zeros and ones."""

    def build(g: Graph, a: Any, b: Any) -> Value:
        return Mask(g.add(kind(g.float(a), g.float(b))))

    return build


def swapped(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of a comparison with its operands exchanged: a <= b is b >= a."""
    build = compare(kind)

    def exchanged(g: Graph, a: Any, b: Any) -> Value:
        return build(g, b, a)

    return exchanged


def inverted(g: Graph, mask: Any) -> Value:
    """``aten.logical_not`` and ``bitwise_not`` of a mask."""
    return compare(qnn.EqOp)(g, mask, 0.0)


def unequal(g: Graph, a: Any, b: Any) -> Value:
    """1 where a and b differ, or one is NaN."""
    return inverted(g, compare(qnn.EqOp)(g, a, b))


def combined(kind: Callable[[SSAValue, SSAValue], Operation]) -> Builder:
    """Builder of ``logical_and`` (the smaller) and ``logical_or`` (the larger) of two masks."""

    def build(g: Graph, a: Any, b: Any) -> Value:
        if not isinstance(a, (Mask, Constant)) or not isinstance(b, (Mask, Constant)):
            raise Refusal("logical operators join masks", "compare the tensors first")
        return Mask(g.add(kind(g.float(a), g.float(b))))

    return build


def where(g: Graph, condition: Any, a: Any, b: Any) -> Value:
    """``aten.where``: masks are binary32, 0 or not."""
    return Float(g.add(qnn.SelectOp(g.float(condition), g.float(a), g.float(b))))


def masked_fill(g: Graph, x: Any, mask: Any, value: Any) -> Value:
    """``value`` where the mask holds, else x."""
    return where(g, mask, value, x)


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
    if not -len(values) <= index < len(values):
        raise Refusal(f"result {index} of this operator is not supported", "use only its first result")
    return values[index]


OPERATORS: dict[str, Builder] = {
    "aten.conv2d.default": conv2d,
    "aten.conv2d.padding": conv2d_named_padding,
    "aten.convolution.default": convolution,
    "aten.linear.default": linear,
    "aten.addmm.default": addmm,
    "aten.baddbmm.default": baddbmm,
    "aten.embedding.default": embedding,
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
    "aten.conv1d.default": conv1d,
    "aten.conv_transpose2d.input": conv_transpose2d,
    "aten.gelu.default": gelu,
    "aten.gelu_.default": gelu,
    "aten.neg.default": negative,
    "aten.abs.default": unary(qnn.AbsOp),
    "aten.exp.default": unary(qnn.ExpOp),
    "aten.log.default": unary(qnn.LogOp),
    "aten.sqrt.default": unary(qnn.SqrtOp),
    "aten.rsqrt.default": unary(qnn.RsqrtOp),
    "aten.reciprocal.default": unary(qnn.ReciprocalOp),
    "aten.erf.default": unary(qnn.ErfOp),
    "aten.floor.default": unary(qnn.FloorOp),
    "aten.pow.Tensor_Scalar": power,
    "aten.div.Tensor": binary(qnn.DivOp),
    "aten.div.Scalar": binary(qnn.DivOp),
    "aten.max.other": binary(qnn.MaximumOp),
    "aten.min.other": binary(qnn.MinimumOp),
    "aten.logical_not.default": inverted,
    "aten.bitwise_not.default": inverted,
    "aten.logical_and.default": combined(qnn.MinimumOp),
    "aten.bitwise_and.Tensor": combined(qnn.MinimumOp),
    "aten.logical_or.default": combined(qnn.MaximumOp),
    "aten.bitwise_or.Tensor": combined(qnn.MaximumOp),
    "aten.minimum.default": binary(qnn.MinimumOp),
    "aten.maximum.default": binary(qnn.MaximumOp),
    "aten.ge.Tensor": compare(qnn.GeOp),
    "aten.ge.Scalar": compare(qnn.GeOp),
    "aten.gt.Tensor": compare(qnn.GtOp),
    "aten.gt.Scalar": compare(qnn.GtOp),
    "aten.eq.Tensor": compare(qnn.EqOp),
    "aten.eq.Scalar": compare(qnn.EqOp),
    "aten.le.Tensor": swapped(qnn.GeOp),
    "aten.le.Scalar": swapped(qnn.GeOp),
    "aten.lt.Tensor": swapped(qnn.GtOp),
    "aten.lt.Scalar": swapped(qnn.GtOp),
    "aten.ne.Tensor": unequal,
    "aten.ne.Scalar": unequal,
    "aten.where.self": where,
    "aten.where.ScalarOther": where,
    "aten.where.ScalarSelf": where,
    "aten.where.Scalar": where,
    "aten.masked_fill.Scalar": masked_fill,
    "aten.masked_fill.Tensor": masked_fill,
    "_operator.getitem": getitem,
    **layout.OPERATORS,
    **aten_pool.OPERATORS,
    **aten_rows.OPERATORS,
}
"""Every supported operator."""

IN_PLACE = ("div", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "floor", "pow", "masked_fill")
"""Operators whose in-place variants, named with an underscore, compute the same."""
OPERATORS.update(
    {
        target.replace(f".{name}.", f".{name}_."): build
        for name in IN_PLACE
        for target, build in list(OPERATORS.items())
        if target.startswith(f"aten.{name}.")
    }
)
