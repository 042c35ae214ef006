"""Builders of pooling operators and of means, which are pools over everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import numpy as np
from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from compiler.frontend.aten_moves import Pair, pair, reshape
from compiler.frontend.build import Graph
from compiler.frontend.qdq import Float, Quantized, Refusal, Value
from compiler.ir import shapes

MAX_TAPS, MAX_STEP = 255, 63
"""Taps along one axis, and the stride, that a window of the instruction set can have."""


def _image(source: SSAValue) -> SSAValue:
    if len(shape_of(source)) != 4:
        raise Refusal(f"input must be [N, C, H, W], got {list(shape_of(source))}", "give the model a batch dimension")
    return source


def _padding(
    source: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[int, int, int, int]:
    (top, left), bottom_right = pair(padding), list(pair(padding))
    if ceil_mode:
        per_axis = zip(shape_of(source)[2:], pair(kernel), pair(stride), pair(dilation), pair(padding), strict=True)
        bottom_right = [shapes.ceil_padding(*axis) for axis in per_axis]
    return top, left, bottom_right[0], bottom_right[1]


def max_pool2d(
    g: Graph,
    x: Value,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Value:
    """``aten.max_pool2d`` on the codes."""
    source, strides = _image(g.uniform(x)), stride or kernel
    sides = _padding(source, kernel, strides, padding, dilation, ceil_mode)
    for axis, have in enumerate(shape_of(source)[2:]):
        window = (pair(kernel)[axis], pair(strides)[axis], pair(dilation)[axis], sides[axis], sides[axis + 2])
        if not shapes.windows_reach(have, *window):
            raise Refusal(
                f"a window lies wholly in the padding {tuple(sides)} of input {list(shape_of(source))}: "
                "its maximum would be of nothing",
                "pad less, or dilate less",
            )
    return Quantized(g.add(qnn.MaxPool2dOp(source, pair(kernel), pair(strides), sides, pair(dilation))))


def max_pool2d_tuple(g: Graph, *args: Any) -> tuple[Value, ...]:
    """``aten.max_pool2d_with_indices``, of which only the values are supported."""
    return (max_pool2d(g, *args),)


def avg_pool2d(
    g: Graph,
    x: Value,
    kernel: Pair,
    stride: Pair = (),
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """``aten.avg_pool2d``. Taps that ``ceil_mode`` adds never count, also where padding does."""
    if g.in_binary32 and not isinstance(x, Quantized):
        if ceil_mode or (padding not in (0, (0, 0)) and not count_include_pad and divisor_override is None):
            raise Refusal("average pools of binary32 divide by one number", "count the padding, without ceil_mode")
        return _avg_pool_f32(g, x, pair(kernel), pair(stride or kernel), pair(padding), divisor_override)
    source, strides = _image(g.uniform(x)), stride or kernel
    sides = _padding(source, kernel, strides, padding, 1, ceil_mode)
    own = (*pair(padding), *pair(padding))
    if count_include_pad and sides != own and divisor_override is None:
        top, left, bottom, right = own
        if any(own):
            source = g.add(qnn.PadOp(source, (0, 0, 0, 0, top, bottom, left, right)))
        sides, count_include_pad = (0, 0, sides[2] - bottom, sides[3] - right), False
    if not any(sides):
        count_include_pad = True  # the same, and simpler for what follows
    op = qnn.AvgPool2dOp(source, pair(kernel), pair(strides), sides, count_include_pad, divisor_override)
    return Float(g.add(op))


def _avg_pool_f32(
    g: Graph, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], divisor: int | None
) -> Value:
    """Of binary32, in graphs that have no codes: a depthwise convolution with ones adds the taps of a window, row by
    row from 0, and the vector unit scales the sum; so the pool reads its input once and may share a loop."""
    source = _image(g.float(x))
    channels = shape_of(source)[1]
    ones, unread = np.ones((channels, 1, *kernel), np.float32), np.ones(channels, np.float32)
    sides = (*padding, *padding)
    total = g.add(
        qnn.Conv2dOp(
            source, g.constant(ones), g.add(qnn.ConstantOp(unread)), strides=stride, padding=sides, groups=channels
        )
    )
    return Float(g.add(qnn.MulOp(total, g.constant(np.asarray(1.0 / (divisor or prod(kernel)), np.float32)))))


EVEN_WINDOWS = "give an output size that divides the input's, or quantize the operand"


def adaptive_avg_pool2d(g: Graph, x: Value, output_size: Pair) -> Value:
    """``aten.adaptive_avg_pool2d``: an average pool where the windows are even."""
    if g.in_binary32 and not isinstance(x, Quantized):
        raise Refusal("windows of several sizes are averaged of codes alone", EVEN_WINDOWS)
    source = _image(g.uniform(x))
    have, want = shape_of(source)[2:], cast(Sequence[int | None], pair(output_size))
    wanted = [h if w is None else w for h, w in zip(have, want, strict=True)]
    return Float(_averages(g, source, have, wanted))


def _averages(g: Graph, source: SSAValue, have: Sequence[int], wanted: Sequence[int]) -> SSAValue:
    """Means over equal windows that an instruction can count, or over whatever windows PyTorch takes."""
    kernel = [h // w for h, w in zip(have, wanted, strict=True)]
    if any(h % w for h, w in zip(have, wanted, strict=True)) or _too_wide(kernel, wanted):
        return g.add(qnn.AdaptiveAvgPool2dOp(source, wanted))
    return g.add(qnn.AvgPool2dOp(source, kernel, kernel))


def _too_wide(kernel: Sequence[int], outputs: Sequence[int]) -> bool:
    """Whether a window has more taps, or a longer step to a second output, than an instruction can say."""
    return any(k > (MAX_STEP if n > 1 else MAX_TAPS) for k, n in zip(kernel, outputs, strict=True))


def mean(g: Graph, x: Value, dims: Pair | None, keepdim: bool = False, *, dtype: str | None = None) -> Value:
    """``aten.mean.dim`` over neighbouring dimensions: an average pool and a reshape."""
    source = g.uniform(x)
    shape = shape_of(source)
    named = range(len(shape)) if not dims and dims != 0 else (dims,) if isinstance(dims, int) else dims or ()
    reduced = sorted(dim % len(shape) for dim in named)
    if reduced != list(range(reduced[0], reduced[-1] + 1)):
        raise Refusal(f"mean needs neighbouring dimensions, got {list(named)}", "permute the tensor first")
    first, last = reduced[0], reduced[-1] + 1
    if len(shape) == 4 and first >= 2:
        wanted = [1 if axis in reduced else shape[axis] for axis in (2, 3)]
        pooled = Float(_averages(g, source, shape[2:], wanted))
    else:
        kernel = [prod(shape[first:last]), 1]
        if _too_wide(kernel, (1, 1)):
            raise Refusal(f"a mean over {kernel[0]} elements is more than a window's {MAX_TAPS}", "sum rows instead")
        source = g.add(qnn.ReshapeOp(source, (prod(shape[:first]), 1, kernel[0], prod(shape[last:]))))
        pooled = Float(g.add(qnn.AvgPool2dOp(source, kernel, kernel)))
    middle = [1] * (last - first) if keepdim else []
    return reshape(g, pooled, [*shape[:first], *middle, *shape[last:]])


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten.max_pool2d.default": max_pool2d,
    "aten.max_pool2d_with_indices.default": max_pool2d_tuple,
    "aten.avg_pool2d.default": avg_pool2d,
    "aten.adaptive_avg_pool2d.default": adaptive_avg_pool2d,
    "aten._adaptive_avg_pool2d.default": adaptive_avg_pool2d,
    "aten.mean.dim": mean,
}
