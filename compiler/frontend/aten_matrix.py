"""Builders of convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type, is_int, shape_of
from compiler.frontend import aten_moves as moves
from compiler.frontend.aten_moves import pair
from compiler.frontend.build import Graph
from compiler.frontend.qdq import (
    Array,
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
        none: Array = np.zeros((w.array.shape[1],), np.float32)
        return Constant(_phase_array(w.array, none, stride, taps))
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
    return _sum(g, matmul(g, a, b), x)


def addmm(g: Graph, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    """``bias + a @ b`` with a constant bias vector and a quantized constant b [K, N]."""
    if beta != 1 or alpha != 1:
        raise Refusal(f"addmm needs beta = alpha = 1, got {beta} and {alpha}", "fold the factors into the weights")
    if isinstance(b, Weight) and isinstance(bias, (Constant, Weight)) and len(_shape(bias)) == 1:
        return linear(g, a, b.permute((1, 0)), bias)
    return _sum(g, matmul(g, a, b), bias)


def _sum(g: Graph, a: Value, b: Value) -> Value:
    return Float(g.add(qnn.AddOp(g.float(a), g.float(b))))


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten.conv2d.default": conv2d,
    "aten.conv2d.padding": conv2d_named_padding,
    "aten.convolution.default": convolution,
    "aten.linear.default": linear,
    "aten.addmm.default": addmm,
    "aten.baddbmm.default": baddbmm,
    "aten.mm.default": matmul,
    "aten.bmm.default": matmul,
    "aten.matmul.default": matmul,
    "aten.conv1d.default": conv1d,
    "aten.conv_transpose2d.input": conv_transpose2d,
}
"""Builders by operator."""
