"""How the machine wants its numbers: a recipe's formats as quantization specs, and the table of aten operators."""

from __future__ import annotations

import operator
from enum import Enum, auto
from functools import cache
from typing import Any

import torch
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from quantizer.observers import ActivationObserver, Observer, PerChannelWeightObserver, WeightObserver
from quantizer.quantizers import Grid, affine, symmetric
from quantizer.recipe import TENSOR, Format

aten = torch.ops.aten


@cache  # tensors share a quantizer by having the same object
def activation_spec(how: Format) -> QuantizationSpec | None:
    """The quantizer of activations in this format; None for binary32."""
    if how.is_float:
        return None
    grid = symmetric(how.bits) if how.symmetric else affine(how.bits)
    return _spec(
        grid,
        torch.per_tensor_symmetric if how.symmetric else torch.per_tensor_affine,
        ActivationObserver.with_args(estimator=how.range),
    )


@cache
def weight_spec(how: Format, axis: int = 0) -> QuantizationSpec | None:
    """The quantizer of weights whose output channels are dimension ``axis``; None for binary32.

    Symmetric codes are in the narrow range.
    """
    if how.is_float:
        return None
    grid = symmetric(how.bits, narrow=True) if how.symmetric else affine(how.bits)
    if how.per == TENSOR:
        scheme = torch.per_tensor_symmetric if how.symmetric else torch.per_tensor_affine
        return _spec(grid, scheme, WeightObserver.with_args(estimator=how.range))
    scheme = torch.per_channel_symmetric if how.symmetric else torch.per_channel_affine
    return _spec(grid, scheme, PerChannelWeightObserver.with_args(estimator=how.range), axis)


def _spec(grid: Grid, scheme: torch.qscheme, observer: Any, axis: int | None = None) -> QuantizationSpec:
    return QuantizationSpec(grid.dtype, observer, grid.least, grid.most, scheme, axis)


def observer_for(spec: QuantizationSpec | None) -> Observer | None:
    """What torchao puts where a node is annotated with ``spec``."""
    if spec is None:
        return None
    options: dict[str, Any] = {name: getattr(spec, name) for name in ("quant_min", "quant_max", "qscheme", "dtype")}
    if spec.ch_axis is not None:
        options["ch_axis"] = spec.ch_axis
    made: Any = spec.observer_or_fake_quant_ctr(**options)
    assert isinstance(made, Observer), "formats have observers of this package"
    return made


class Kind(Enum):
    """What quantization an operator asks for."""

    WEIGHTED = auto()
    """Integer operands, the second one a weight; float result that later elementwise ops may swallow."""
    PRODUCT = auto()
    """Integer operands, both activations; float result."""
    POOL = auto()
    """Integer operand, float result: pools, reductions, interpolation."""
    NORM = auto()
    """Integer operand of many bits, float result."""
    ELEMENTWISE = auto()
    """Float in, float out, one element or row at a time: fuses with what makes its operand."""
    MOVE = auto()
    """Moves values: works on codes, so its result shares the operand's scale and zero point."""
    SPLIT = auto()
    """As MOVE, with several results."""
    MAX_POOL = auto()
    """As MOVE, and always on codes."""


def _overloads(kind: Kind, *names: str) -> dict[Any, Kind]:
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return {getattr(packet, overload): kind for packet in packets for overload in packet.overloads()}


OPERATORS: dict[Any, Kind] = {
    **_overloads(Kind.WEIGHTED, "conv2d", "linear", "conv1d", "conv_transpose2d"),
    **_overloads(Kind.PRODUCT, "matmul", "bmm", "mm"),
    **_overloads(Kind.POOL, "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "amax", "amin", "argmax"),
    **_overloads(Kind.POOL, "upsample_bilinear2d"),
    **_overloads(Kind.NORM, "layer_norm", "rms_norm", "group_norm"),
    **_overloads(Kind.ELEMENTWISE, "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "pow", "neg", "abs"),
    **_overloads(Kind.ELEMENTWISE, "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_"),
    **_overloads(Kind.ELEMENTWISE, "clamp_min", "clamp_max", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_"),
    **_overloads(Kind.ELEMENTWISE, "sigmoid", "sigmoid_", "silu", "silu_", "tanh", "tanh_", "gelu", "exp", "log"),
    **_overloads(Kind.ELEMENTWISE, "sqrt", "rsqrt", "reciprocal", "erf", "minimum", "maximum", "where", "floor"),
    **_overloads(Kind.ELEMENTWISE, "softmax", "_softmax", "leaky_relu", "elu", "softplus", "ge", "gt"),
    **_overloads(Kind.ELEMENTWISE, "le", "lt", "eq", "ne"),
    **_overloads(Kind.ELEMENTWISE, "masked_fill", "masked_fill_"),
    **_overloads(Kind.MOVE, "flatten", "view", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze"),
    **_overloads(Kind.MOVE, "contiguous", "clone", "dropout", "detach", "pad", "constant_pad_nd", "cat", "alias"),
    **_overloads(Kind.MOVE, "slice", "select", "narrow", "expand", "expand_as", "repeat", "unflatten", "movedim"),
    **_overloads(Kind.MOVE, "pixel_shuffle", "pixel_unshuffle", "stack", "roll", "im2col", "upsample_nearest2d"),
    **_overloads(Kind.MOVE, "channel_shuffle", "unfold", "repeat_interleave", "reshape_as", "view_as", "tile"),
    **_overloads(Kind.MOVE, "col2im"),
    **_overloads(Kind.SPLIT, "split", "split_with_sizes", "chunk", "unbind"),
    operator.getitem: Kind.MOVE,
    **_overloads(Kind.MAX_POOL, "max_pool2d"),
}
"""The table that drives annotation: an operator that is not here stays float, and the report says so."""

FLOAT_RESULT = frozenset({Kind.WEIGHTED, Kind.PRODUCT, Kind.POOL, Kind.NORM, Kind.ELEMENTWISE})
MAX_CHAIN_OPERANDS = 2
"""Tensors that a chain of elementwise ops may take beside the one that flows through: the VCU has four streams."""


def kind_of(node: torch.fx.Node) -> Kind | None:
    """The node's kind, None for operators outside the table, what picks from their results, and what is no call."""
    if node.op != "call_function":
        return None
    if node.target is operator.getitem and kind_of(node.all_input_nodes[0]) is not Kind.SPLIT:
        return None
    kind = OPERATORS.get(node.target)
    return None if kind in (Kind.MOVE, Kind.SPLIT) and _is_mask(node.all_input_nodes[0]) else kind


def has_windows(node: torch.fx.Node) -> bool:
    """Whether a node is a pool of windows, which the machine has of codes alone."""
    return kind_of(node) in (Kind.POOL, Kind.MAX_POOL) and "pool" in str(node.target)


def weight_of(node: torch.fx.Node) -> object:
    """The operand of a layer that is its weight."""
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")


def _is_mask(node: torch.fx.Node) -> bool:
    """Whether a node's values are true or false, which have no scale."""
    return getattr(node.meta.get("val"), "dtype", None) is torch.bool
