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
from compiler.frontend.build import COMPUTED, Graph, describe
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
        kernel = _shape(_constant(w))[2:]
        total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
        sides = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    return _conv(g, x, w, bias, pair(stride), sides, pair(dilation), groups)


def _constant(w: Value, layout: str = "[O, C/g, kh, kw]") -> Weight | Constant:
    """``w`` as the weight of a convolution of images."""
    if not isinstance(w, (Weight, Constant)):
        raise Refusal(f"needs a constant weight {layout}, got {describe(w)}", COMPUTED)
    if len(shape := _shape(w)) != 4:
        raise Refusal(f"weight must be {layout}, got {list(shape)}", "give the layer images, of two dimensions")
    return w


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
    kernel = _shape(_constant(w))[2:]
    source = g.factor(x)
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
    padding: Pair | str = 0,
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
    step, spread = moves.pair(stride)[-1], moves.pair(dilation)[-1]
    if isinstance(padding, str):
        y = conv2d_named_padding(g, row, w, bias, (1, step), padding, (1, spread), groups)
    else:
        y = conv2d(g, row, w, bias, (1, step), (0, moves.pair(padding)[-1]), (1, spread), groups)
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
    """``aten.conv_transpose2d``, w [C, O/g, kh, kw]: a convolution with s*s times the channels, shuffled into pixels.

    Output s*m + r takes the taps r, r + s, ... of inputs m, m - 1, ...: a convolution for each phase r. Dilation puts
    zeros between the taps. Outputs that ``output_padding`` adds behind the last tap read padding.
    """
    w = _constant(w, "[C, O/g, kh, kw]")
    if isinstance(w, Weight) and w.axis not in (None, 1):
        raise Refusal(f"weight scales must vary along axis 1, got axis {w.axis}", "quantize it per output channel")
    spread, strides, low, extra = (moves.pair(v) for v in (dilation, stride, padding, output_padding))
    kernel = [d * (k - 1) + 1 for d, k in zip(spread, _shape(w)[2:], strict=True)]
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    n, _, *have = _shape(x)
    out = [(h - 1) * s - 2 * p + k + e for h, s, p, k, e in zip(have, strides, low, kernel, extra, strict=True)]
    blocks = [max(h + t - 1, -(-(p + o) // s)) for h, t, p, o, s in zip(have, taps, low, out, strides, strict=True)]
    behind = [b - h for b, h in zip(blocks, have, strict=True)]
    (sh, sw), each = strides, _shape(w)[1]
    phases = _phases(w, strides, (taps[0], taps[1]), spread, groups)
    vector = None if bias is None else Constant(_by_phase(_bias_array(bias), sh * sw, groups))
    y = _conv(g, x, phases, vector, (1, 1), (taps[0] - 1, taps[1] - 1, behind[0], behind[1]), (1, 1), groups)
    y = moves.reshape(g, y, (n, groups, sh, sw, each, *blocks))
    y = moves.permute(g, y, (0, 1, 4, 5, 2, 6, 3))
    y = moves.reshape(g, y, (n, groups * each, blocks[0] * sh, blocks[1] * sw))
    return moves.cut(g, moves.cut(g, y, 2, low[0], out[0]), 3, low[1], out[1])


def _by_phase(values: Array, phases: int, groups: int) -> Array:
    """A number per output channel, [g, O/g], repeated for the phases of each group."""
    return np.repeat(values.reshape(groups, 1, -1), phases, 1).reshape(-1)


def _bias_array(bias: Any) -> Any:
    return bias.dequantized() if isinstance(bias, Weight) else bias.array


def _phases(
    w: Weight | Constant, stride: tuple[int, int], taps: tuple[int, int], spread: tuple[int, int], groups: int
) -> Weight | Constant:
    """Weights [g*sh*sw*O/g, C/g, th, tw] of the phases; taps that a phase lacks are zero points."""
    repeats = stride[0] * stride[1]
    if isinstance(w, Constant):
        none: Array = np.zeros((w.array.shape[1],), np.float32)
        return Constant(_phase_array(w.array, none, stride, taps, spread, groups))
    outputs = (w.codes.shape[1],)
    scale, zeros = (np.tile(np.broadcast_to(v, outputs), groups) for v in (w.scale, w.zero))
    codes = _phase_array(w.codes, zeros[: outputs[0]], stride, taps, spread, groups)
    return Weight(codes, _by_phase(scale, repeats, groups), _by_phase(zeros, repeats, groups), 0, w.width)


def _phase_array(
    w: Array, zeros: Array, stride: tuple[int, int], taps: tuple[int, int], spread: tuple[int, int], groups: int
) -> Array:
    c, o, kh, kw = w.shape
    (sh, sw), (th, tw), (dh, dw) = stride, taps, spread
    own = w.reshape(groups, c // groups, o, kh, kw)
    whole = np.empty((groups, sh, sw, o, c // groups, th, tw), w.dtype)
    whole[...] = zeros.reshape(o, 1, 1, 1)
    for i in range(kh):
        for j in range(kw):
            y, x = i * dh, j * dw
            tap = own[..., i, j].transpose(0, 2, 1)
            whole[:, y % sh, x % sw, :, :, th - 1 - y // sh, tw - 1 - x // sw] = tap
    return whole.reshape(-1, c // groups, th, tw)


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
    "aten.conv1d.padding": conv1d,
    "aten.conv_transpose2d.input": conv_transpose2d,
}
"""Builders by operator."""
