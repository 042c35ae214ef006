"""aten and quantized_decomposed operators to the functions that compute them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed

import quantizer.codebook  # noqa: F401  (registers its operators)
from isa import numerics
from quantizer.reference import masks, matrix, pointwise, pooling
from quantizer.reference.values import Codes, Lazy, as_float

aten = torch.ops.aten
decomposed = torch.ops.quantized_decomposed


def _rows(packet: Any, function: Callable[..., Any]) -> dict[Any, Callable[..., Any]]:
    return {getattr(packet, overload): function for overload in packet.overloads()}


def _named(function: Callable[..., Any], *names: str) -> dict[Any, Callable[..., Any]]:
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return {target: f for packet in packets for target, f in _rows(packet, function).items()}


def addmm(bias: Any, x: Any, weight: Any) -> torch.Tensor:
    """bias + x @ weight, where weight is the transpose of a constant [O, K]."""
    return pointwise.add(matrix.matmul(x, weight), bias)


def _decoded(q: Any, codebook: Any, zero: int, scale: float) -> Lazy:
    return Lazy(numerics.decode(q.codes if isinstance(q, Codes) else q, codebook), scale, zero)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **_rows(decomposed.quantize_per_tensor, pointwise.quantize_per_tensor),
    **_rows(decomposed.dequantize_per_tensor, pointwise.dequantize_per_tensor),
    **_rows(decomposed.quantize_per_channel, pointwise.quantize_per_channel),
    **_rows(decomposed.dequantize_per_channel, pointwise.dequantize_per_channel),
    **_named(matrix.conv2d, "conv2d"),
    **_named(matrix.convolution, "convolution"),
    **_named(matrix.linear, "linear"),
    **_named(matrix.matmul, "matmul", "bmm", "mm"),
    **_named(addmm, "addmm"),
    **_named(pointwise.add, "add", "add_"),
    **_named(pointwise.sub, "sub", "sub_"),
    **_named(pointwise.mul, "mul", "mul_"),
    **_named(pointwise.rsub, "rsub"),
    **_named(pointwise.batch_norm, "batch_norm"),
    **_named(pointwise.batch_norm_tuple, "_native_batch_norm_legit_no_training"),
    **_named(pointwise.relu, "relu", "relu_"),
    **_named(pointwise.relu6, "relu6", "relu6_"),
    **_named(pointwise.hardtanh, "hardtanh", "hardtanh_"),
    **_named(pointwise.clamp, "clamp", "clamp_"),
    **_named(lambda x, min: pointwise.clamp(x, min), "clamp_min", "clamp_min_"),
    **_named(lambda x, max: pointwise.clamp(x, None, max), "clamp_max", "clamp_max_"),
    **_named(pointwise.hardswish, "hardswish", "hardswish_"),
    **_named(pointwise.hardsigmoid, "hardsigmoid", "hardsigmoid_"),
    **_named(pointwise.sigmoid, "sigmoid", "sigmoid_"),
    **_named(pointwise.silu, "silu", "silu_"),
    **_named(pointwise.tanh, "tanh", "tanh_"),
    **_named(pooling.max_pool2d, "max_pool2d"),
    **_named(pooling.max_pool2d_tuple, "max_pool2d_with_indices"),
    **_named(pooling.avg_pool2d, "avg_pool2d"),
    **_named(pooling.adaptive_avg_pool2d, "adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
    **_named(pooling.mean, "mean"),
    **_named(pointwise.pad, "pad"),
    **_named(pointwise.constant_pad_nd, "constant_pad_nd"),
    **_named(pointwise.cat, "cat"),
    **_named(pointwise.flatten, "flatten"),
    **_named(pointwise.reshape, "reshape", "view", "_unsafe_view"),
    **_named(pointwise.squeeze, "squeeze"),
    **_named(pointwise.unsqueeze, "unsqueeze"),
    **_named(pointwise.permute, "permute"),
    **_named(pointwise.transpose, "transpose"),
    **_named(pointwise.matrix_transpose, "t"),
    **_named(pointwise.same, "contiguous", "clone", "detach", "detach_", "alias"),
    **_named(pointwise.dropout, "dropout", "dropout_", "feature_dropout"),
    **_named(pointwise.same, "lift_fresh_copy", "_assert_tensor_metadata"),
    **_named(pointwise.to, "to", "_to_copy"),
    **_named(matrix.conv1d, "conv1d"),
    **_named(matrix.conv_transpose2d, "conv_transpose2d"),
    **_named(pointwise.gelu, "gelu", "gelu_"),
    **_named(pointwise.softmax, "softmax", "_softmax"),
    **_named(pointwise.layer_norm, "layer_norm"),
    **_named(lambda *a: (pointwise.layer_norm(*a),), "native_layer_norm"),
    **_named(pointwise.rms_norm, "rms_norm"),
    **_named(pointwise.exp, "exp", "exp_"),
    **_named(pointwise.log, "log", "log_"),
    **_named(pointwise.erf, "erf", "erf_"),
    **_named(pointwise.sqrt, "sqrt", "sqrt_"),
    **_named(pointwise.rsqrt, "rsqrt", "rsqrt_"),
    **_named(pointwise.reciprocal, "reciprocal", "reciprocal_"),
    **_named(pointwise.absolute, "abs", "abs_"),
    **_named(pointwise.floor, "floor", "floor_"),
    **_named(pointwise.negative, "neg", "neg_"),
    **_named(pointwise.div, "div", "div_"),
    **_named(pointwise.power, "pow", "pow_"),
    **_named(pointwise.minimum, "minimum"),
    **_named(pointwise.maximum, "maximum"),
    **_named(pointwise.ge, "ge"),
    **_named(pointwise.gt, "gt"),
    **_named(pointwise.eq, "eq"),
    **_named(pointwise.le, "le"),
    **_named(pointwise.lt, "lt"),
    **_named(pointwise.ne, "ne"),
    **_named(pointwise.where, "where"),
    **_named(pooling.total, "sum"),
    **_named(pooling.amax, "amax"),
    **_named(pooling.amin, "amin"),
    **_named(pooling.argmax, "argmax"),
    **_named(pooling.upsample("bilinear"), "upsample_bilinear2d"),
    **_named(pooling.upsample("nearest"), "upsample_nearest2d"),
    **_named(pointwise.split, "split"),
    **_named(pointwise.split_with_sizes, "split_with_sizes"),
    **_named(pointwise.chunk, "chunk"),
    **_named(pointwise.unbind, "unbind"),
    **_named(pointwise.slice_, "slice"),
    **_named(pointwise.select, "select"),
    **_named(pointwise.narrow, "narrow"),
    **_named(pointwise.expand, "expand"),
    **_named(pointwise.expand_as, "expand_as"),
    **_named(pointwise.repeat, "repeat"),
    **_named(pointwise.unflatten, "unflatten"),
    **_named(pointwise.movedim, "movedim"),
    **_named(pointwise.pixel_shuffle, "pixel_shuffle"),
    **_named(pointwise.pixel_unshuffle, "pixel_unshuffle"),
    **_named(pointwise.roll, "roll"),
    **_named(pointwise.stack, "stack"),
    **_named(pointwise.im2col, "im2col"),
    **_named(masks.masked_fill, "masked_fill", "masked_fill_"),
    **_named(masks.leaky_relu, "leaky_relu", "leaky_relu_"),
    **_named(masks.elu, "elu", "elu_"),
    **_named(masks.softplus, "softplus"),
    **_named(masks.largest, "max"),
    **_named(masks.smallest, "min"),
    **_named(masks.group_norm, "group_norm"),
    **_named(masks.baddbmm, "baddbmm"),
    **_named(masks.embedding, "embedding"),
    **_named(masks.index, "index"),
    **_named(masks.flip, "flip"),
    **_named(masks.channel_shuffle, "channel_shuffle"),
    **_named(masks.unfold, "unfold"),
    **_named(masks.repeat_interleave, "repeat_interleave"),
    **_named(masks.reshape_as, "reshape_as", "view_as"),
    **_named(masks.fold, "col2im"),
    **_named(pointwise.cat, "concat"),
    **_named(pointwise.tile, "tile"),
    **_named(torch.logical_not, "logical_not", "bitwise_not"),
    **_named(torch.logical_and, "logical_and", "bitwise_and", "__and__"),
    **_named(torch.logical_or, "logical_or", "bitwise_or", "__or__"),
    torch.ops.quartic.quantize_codebook.default: lambda x, thresholds: Codes(numerics.encode(as_float(x), thresholds)),
    torch.ops.quartic.dequantize_codebook.default: _decoded,
    operator.getitem: masks.getitem,
}
"""Every operator that the reference computes; others are reported together before anything runs."""
