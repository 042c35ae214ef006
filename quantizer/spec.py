"""How the machine wants its numbers: the recipe's quantization specs and the table of aten operators."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from isa.errors import QuantizationError
from quantizer.observers import AverageMinMaxObserver, WeightObserver

aten = torch.ops.aten

ACTIVATION_EPS = WEIGHT_EPS = 2.0**-24
"""Smallest scale: keeps the scales of dead channels and constant tensors, and the products of two, normal binary32."""


@dataclass(frozen=True)
class Recipe:
    """Quantizers by the role of a tensor; None leaves everything in binary32."""

    name: str
    weight: QuantizationSpec | None
    activation: QuantizationSpec | None
    """Operands of convolutions and products."""
    elementwise: QuantizationSpec | None
    """Operands that elementwise operators, pools and interpolation read from memory."""
    wide: QuantizationSpec | None
    """Inputs of norms, and the residual tensors that feed one."""


def activation_spec(bits: int) -> QuantizationSpec:
    """Affine per-tensor codes of ``bits`` bits over the average of the batches' ranges."""
    return QuantizationSpec(
        dtype=torch.int8 if bits <= 8 else torch.int16,
        quant_min=-(1 << (bits - 1)),
        quant_max=(1 << (bits - 1)) - 1,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=AverageMinMaxObserver.with_args(eps=ACTIVATION_EPS),
    )


def weight_spec(bits: int, axis: int = 0) -> QuantizationSpec:
    """Symmetric codes of ``bits`` bits in the narrow range, a scale per output channel, which is dimension ``axis``."""
    return QuantizationSpec(
        dtype=torch.int8 if bits <= 8 else torch.int16,
        quant_min=1 - (1 << (bits - 1)),
        quant_max=(1 << (bits - 1)) - 1,
        qscheme=torch.per_channel_symmetric,
        ch_axis=axis,
        observer_or_fake_quant_ctr=WeightObserver.with_args(eps=WEIGHT_EPS),
    )


def _recipe(weights: int, activations: int) -> Recipe:
    by_bits = {bits: activation_spec(bits) for bits in (4, 8, 16)}  # tensors share a quantizer by being the same object
    return Recipe(
        f"w{weights}a{activations}",
        weight_spec(weights),
        by_bits[activations],
        by_bits[max(activations, 8)],
        by_bits[16],
    )


RECIPES: dict[str, Recipe] = {
    **{r.name: r for r in (_recipe(8, 8), _recipe(4, 8), _recipe(4, 4), _recipe(8, 16), _recipe(16, 16))},
    "f32": Recipe("f32", None, None, None, None),
}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; raises QuantizationError with the known names otherwise."""
    if name not in RECIPES:
        raise QuantizationError(f"unknown recipe {name!r}: known recipes are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


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
    return OPERATORS.get(node.target)
