"""Builders of operators that join pieces: concatenation, and the windows of unfold with their inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from compiler.dialects import qnn
from compiler.dialects.qnn_base import int_type
from compiler.frontend.aten_layout import pad
from compiler.frontend.aten_moves import Pair, cut, movedim, pair, permute, reshape, size, unsqueeze
from compiler.frontend.build import Graph
from compiler.frontend.qdq import Codes, Constant, Float, Quantized, Refusal, Value, Weight
from compiler.ir import shapes


def concat(g: Graph, values: Sequence[Value], dim: int = 0) -> Value:
    """``aten.cat``: on the codes when all have one scale and zero point; of constants at once."""
    axis = dim % len(size(values[0]))
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, Constant) for value in values):
        return Constant(np.concatenate([value.array for value in values if isinstance(value, Constant)], axis))
    for kind in (Quantized, Codes):
        found = [_codes(g, value, values) if kind is Quantized else value for value in values]
        codes = [value.ssa for value in found if isinstance(value, kind)]
        if len(codes) == len(values) and len({int_type(ssa) for ssa in codes}) == 1:
            return kind(g.add(qnn.ConcatOp(codes, axis)))
    return Float(g.add(qnn.ConcatOp([g.float(value) for value in values], axis)))


def _codes(g: Graph, value: Value, values: Sequence[Value]) -> Value:
    """A quantized constant as codes, where it joins a tensor of the same scale and zero point."""
    other = next((v for v in values if isinstance(v, Quantized)), None)
    if not isinstance(value, Weight) or value.axis is not None or other is None:
        return value
    kind = int_type(other.ssa)
    same = (float(value.scale[0]), int(value.zero[0])) == (kind.scale.data, kind.zero.data)
    fits = value.codes.min() >= kind.low and value.codes.max() <= kind.high
    return Quantized(g.constant(np.ascontiguousarray(value.codes), kind)) if same and fits else value


def stack(g: Graph, values: Sequence[Value], dim: int = 0) -> Value:
    """``aten.stack``: a join along a new dimension."""
    dim %= len(size(values[0])) + 1
    return concat(g, [unsqueeze(g, value, dim) for value in values], dim)


def roll(g: Graph, x: Value, shifts: Pair, dims: Pair = ()) -> Value:
    """``aten.roll``: the last indices come first."""
    shape = size(x)
    if not dims and not isinstance(dims, int):
        return reshape(g, roll(g, reshape(g, x, (prod(shape),)), shifts, 0), shape)
    shifts, dims = ((v,) if isinstance(v, int) else v for v in (shifts, dims))
    for shift, dim in zip(shifts, dims, strict=True):
        count = size(x)[dim]
        if head := shift % count:
            x = concat(g, [cut(g, x, dim, count - head, head), cut(g, x, dim, 0, count - head)], dim)
    return x


def im2col(g: Graph, x: Value, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Value:
    """``aten.im2col`` (``F.unfold``): every tap of every window as [N, C*kh*kw, L]."""
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (pair(v) for v in (kernel, dilation, padding, stride))
    if len(size(x)) != 4:
        raise Refusal(f"unfold takes a batch of images, got {list(size(x))}", "add the dimension of the batch")
    padded = pad(g, x, (pw, pw, ph, ph))
    n, c, h, w = size(padded)
    oh, ow = shapes.window_sizes((h, w), (kh, kw), (sh, sw), (dh, dw), (0, 0, 0, 0))
    if ((kh, kw), (dh, dw), (oh * kh, ow * kw)) == ((sh, sw), (1, 1), (h, w)):  # windows tile the image
        tiles = permute(g, reshape(g, padded, (n, c, oh, kh, ow, kw)), (0, 1, 3, 5, 2, 4))
        return reshape(g, tiles, (n, c * kh * kw, oh * ow))
    taps = [
        reshape(g, cut(g, cut(g, padded, 2, i * dh, oh, sh), 3, j * dw, ow, sw), (n, c, 1, oh * ow))
        for i, j in product(range(kh), range(kw))
    ]
    return reshape(g, concat(g, taps, 2), (n, c * kh * kw, oh * ow))


def col2im(
    g: Graph, x: Value, output: Pair, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair
) -> Value:
    """``aten.col2im`` (``F.fold``) of windows that tile the image."""
    (h, w), (kh, kw) = pair(output), pair(kernel)
    tiles = (pair(dilation), pair(padding), pair(stride)) == ((1, 1), (0, 0), (kh, kw)) and not (h % kh or w % kw)
    if not tiles or len(size(x)) != 3:
        raise Refusal("fold of windows that overlap or leave gaps is not supported", "use a transposed convolution")
    n, c, _ = size(x)
    c //= kh * kw
    apart = permute(g, reshape(g, x, (n, c, kh, kw, h // kh, w // kw)), (0, 1, 4, 2, 5, 3))
    return reshape(g, apart, (n, c, h, w))


def windows(g: Graph, x: Value, dim: int, count: int, step: int) -> Value:
    """``aten.unfold``: slices of ``count`` along ``dim``, ``step`` apart; their elements are the new last dimension."""
    shape = size(x)
    dim %= len(shape)
    number = (shape[dim] - count) // step + 1
    taps = [unsqueeze(g, cut(g, x, dim, i, number, step), len(shape)) for i in range(count)]
    if count == step:
        whole = cut(g, x, dim, 0, number * step)
        apart = reshape(g, whole, (*shape[:dim], number, count, *shape[dim + 1 :]))
        return movedim(g, apart, dim + 1, len(shape))
    return concat(g, taps, len(shape))


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten.cat.default": concat,
    "aten.concat.default": concat,
    "aten.stack.default": stack,
    "aten.roll.default": roll,
    "aten.im2col.default": im2col,
    "aten.col2im.default": col2im,
    "aten.unfold.default": windows,
}
"""Builders by operator."""
