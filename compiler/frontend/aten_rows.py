"""Builders of row operations (softmax, norms, reductions) and of interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from compiler.frontend.aten_pool import mean as pooled_mean
from compiler.frontend.build import Graph
from compiler.frontend.qdq import Constant, Float, Indices, Quantized, Refusal, Value, Weight
from isa import numerics

LONGEST_ROW = 8192
"""Elements of a row whose squares the vector unit sums exactly."""

Axes = int | Sequence[int] | None


def softmax(g: Graph, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    """``aten.softmax`` and ``_softmax``."""
    return Float(g.add(qnn.SoftmaxOp(g.float(x), dim)))


def _source(g: Graph, x: Value) -> SSAValue:
    """The codes behind a value, or binary32."""
    return g.uniform(x) if isinstance(x, Quantized) else g.float(x)


def _vector(g: Graph, value: Value | None) -> SSAValue | None:
    if value is None:
        return None
    if isinstance(value, Weight):
        value = Constant(value.dequantized())
    if not isinstance(value, Constant) or value.array.dtype != np.float32:
        raise Refusal("gamma and beta must be float32 parameters", "keep the parameters of norms in float32")
    return g.constant(np.ascontiguousarray(value.array.reshape(-1)))


def layer_norm(
    g: Graph,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """``aten.layer_norm``; several axes are seen as one."""
    return _norm(g, x, shape, lambda v: qnn.LayerNormOp(v, _vector(g, weight), _vector(g, bias), eps))


def native_layer_norm(
    g: Graph, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, ...]:
    """The decomposed layer norm, whose first result is the tensor."""
    return (layer_norm(g, x, shape, weight, bias, eps),)


def rms_norm(
    g: Graph, x: Value, shape: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Value:
    """``aten.rms_norm``."""
    least = float(np.finfo(np.float32).eps) if eps is None else eps
    return _norm(g, x, shape, lambda v: qnn.RmsNormOp(v, _vector(g, weight), least))


def _norm(g: Graph, x: Value, shape: Sequence[int], make: Callable[[SSAValue], Any]) -> Value:
    source = _source(g, x)
    whole = shape_of(source)
    if prod(shape) > LONGEST_ROW:
        raise Refusal(f"a norm is over at most {LONGEST_ROW} elements, got {prod(shape)}", "normalise fewer elements")
    if len(shape) > 1:
        source = g.add(qnn.ReshapeOp(source, (*whole[: -len(shape)], prod(shape))))
    y = g.add(make(source))
    return Float(y if shape_of(y) == whole else g.add(qnn.ReshapeOp(y, whole)))


def reduction(kind: str) -> Callable[..., Value]:
    """Builder of a sum, maximum or minimum over any axes (all, if none are given)."""

    def build(g: Graph, x: Value, dims: Axes = None, keepdim: bool = False, *, dtype: str | None = None) -> Value:
        source = _source(g, x)
        shape = shape_of(source)
        axes = sorted(a % len(shape) for a in ((dims,) if isinstance(dims, int) else dims or range(len(shape))))
        kept = [a for a in range(len(shape)) if a not in axes]
        if kept + axes != list(range(len(shape))):
            source = g.add(qnn.PermuteOp(source, (*kept, *axes)))
        if len(axes) > 1:
            source = g.add(qnn.ReshapeOp(source, (*(shape[a] for a in kept), prod(shape[a] for a in axes))))
        y = g.add(qnn.ReduceOp(source, kind, len(kept)))
        wanted = tuple(1 if a in axes else n for a, n in enumerate(shape) if keepdim or a in kept)
        y = y if shape_of(y) == wanted else g.add(qnn.ReshapeOp(y, wanted))
        if kind == "argmax":
            return Indices(y)
        return Quantized(y) if isinstance(x, Quantized) and kind in ("max", "min") else Float(y)

    return build


def largest(kind: str) -> Callable[..., tuple[Value, ...]]:
    """Builder of ``aten.max.dim`` and ``min.dim``: values, and for the maximum their positions."""

    def build(g: Graph, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, ...]:
        values = reduction(kind)(g, x, dim, keepdim)
        return (values, argmax(g, x, dim, keepdim)) if kind == "max" else (values,)

    return build


def group_norm(
    g: Graph,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Value:
    """``aten.group_norm``: a layer norm of each group, then a factor and a sum per channel."""
    source = _source(g, x)
    shape = shape_of(source)
    rows = g.add(qnn.ReshapeOp(source, (shape[0], groups, prod(shape[1:]) // groups)))
    y = g.add(qnn.ReshapeOp(g.add(qnn.LayerNormOp(rows, None, None, eps)), shape))
    for kind, vector in ((qnn.MulOp, weight), (qnn.AddOp, bias)):
        if isinstance(vector, Constant):
            each = g.constant(np.ascontiguousarray(vector.array.reshape(-1, *[1] * (len(shape) - 2))))
            y = g.add(kind(y, each))
    return Float(y)


def argmax(g: Graph, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """``aten.argmax``: of a tensor whose axis is named, or of all its elements."""
    return reduction("argmax")(g, x, dim, keepdim)


def mean(g: Graph, x: Value, dims: Axes = None, keepdim: bool = False, *, dtype: str | None = None) -> Value:
    """``aten.mean``: of codes an average pool where windows allow, else a sum over rows."""
    if isinstance(x, Quantized):
        try:
            return pooled_mean(g, x, dims, keepdim, dtype=dtype)
        except Refusal:
            pass
    return reduction("mean")(g, x, dims, keepdim)


def upsample(kind: str, corners: bool) -> Callable[..., Value]:
    """Builder of the overloads of upsample; with ``corners`` the next argument is ``align_corners``."""

    def build(g: Graph, x: Value, size: Sequence[int] | None, *rest: Any, **named: Any) -> Value:
        rest_left = list(rest)
        aligned = bool(rest_left.pop(0) if rest_left else named.get("align_corners", False)) if corners else False
        given: Any = [r for r in rest_left if isinstance(r, tuple)] or [named.get("scale_factors") or ()]
        factors: Sequence[float] = given[0]
        source = _source(g, x)
        shape, pairs = shape_of(source)[2:], []
        if size is None:
            size = [int(n * s) for n, s in zip(shape, factors, strict=True)]
            if not aligned and any(n * s != m for n, s, m in zip(shape, factors, size, strict=True)):
                pairs = [_ratio(factor) for factor in factors]
        pairs = pairs or list(zip(shape, size, strict=True))
        places = [numerics.resize_scale(n, m, aligned, kind == "nearest") for n, m in pairs]
        num, den, phase = zip(*places, strict=True)
        y = g.add(qnn.Resize2dOp(source, kind, num, den, phase, size))
        return Quantized(y) if kind == "nearest" and isinstance(x, Quantized) else Float(y)

    return build


def _ratio(factor: float) -> tuple[int, int]:
    try:
        return numerics.resize_ratio(factor)
    except ValueError as error:
        raise Refusal(f"scale factor {error}", "give the output's size") from error


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten.softmax.int": softmax,
    "aten._softmax.default": softmax,
    "aten.layer_norm.default": layer_norm,
    "aten.native_layer_norm.default": native_layer_norm,
    "aten.rms_norm.default": rms_norm,
    "aten.sum.default": reduction("sum"),
    "aten.sum.dim_IntList": reduction("sum"),
    "aten.amax.default": reduction("max"),
    "aten.amin.default": reduction("min"),
    "aten.max.default": reduction("max"),
    "aten.min.default": reduction("min"),
    "aten.max.dim": largest("max"),
    "aten.min.dim": largest("min"),
    "aten.group_norm.default": group_norm,
    "aten.argmax.default": argmax,
    "aten.mean.dim": mean,
    "aten.mean.default": mean,
    "aten.upsample_bilinear2d.vec": upsample("bilinear", True),
    "aten.upsample_bilinear2d.default": upsample("bilinear", True),
    "aten.upsample_nearest2d.vec": upsample("nearest", False),
    "aten.upsample_nearest2d.default": upsample("nearest", False),
}
