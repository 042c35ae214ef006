"""How the machine wants its numbers: the recipe's quantization specs and the table of aten operators."""

from __future__ import annotations

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
    """Widths and quantizers of a named recipe."""

    name: str
    activation: QuantizationSpec
    weight: QuantizationSpec


RECIPES: dict[str, Recipe] = {
    "w8a8": Recipe(
        name="w8a8",
        activation=QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=AverageMinMaxObserver.with_args(eps=ACTIVATION_EPS),
        ),
        weight=QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=WeightObserver.with_args(eps=WEIGHT_EPS),
        ),
    )
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
    """Integer operand, float result."""
    ELEMENTWISE = auto()
    """Float in, float out, one element at a time: fuses with what makes its operand."""
    MOVE = auto()
    """Moves values: works on codes, so its result shares the operand's scale and zero point."""
    MAX_POOL = auto()
    """As MOVE, and always on codes."""


def _overloads(kind: Kind, *names: str) -> dict[Any, Kind]:
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return {getattr(packet, overload): kind for packet in packets for overload in packet.overloads()}


OPERATORS: dict[Any, Kind] = {
    **_overloads(Kind.WEIGHTED, "conv2d", "linear"),
    **_overloads(Kind.PRODUCT, "matmul", "bmm", "mm"),
    **_overloads(Kind.POOL, "avg_pool2d", "adaptive_avg_pool2d", "mean"),
    **_overloads(Kind.ELEMENTWISE, "add", "add_", "sub", "sub_", "mul", "mul_"),
    **_overloads(Kind.ELEMENTWISE, "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_"),
    **_overloads(Kind.ELEMENTWISE, "clamp_min", "clamp_max", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_"),
    **_overloads(Kind.ELEMENTWISE, "sigmoid", "sigmoid_", "silu", "silu_", "tanh", "tanh_"),
    **_overloads(Kind.MOVE, "flatten", "view", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze"),
    **_overloads(Kind.MOVE, "contiguous", "clone", "dropout", "detach", "pad", "constant_pad_nd", "cat", "alias"),
    **_overloads(Kind.MAX_POOL, "max_pool2d"),
}
"""The table that drives annotation: an operator that is not here stays float, and the report says so."""

FLOAT_RESULT = frozenset({Kind.WEIGHTED, Kind.PRODUCT, Kind.POOL, Kind.ELEMENTWISE})
MAX_CHAIN_OPERANDS = 2
"""Tensors that a chain of elementwise ops may take beside the one that flows through: the VCU has four streams."""


def kind_of(node: torch.fx.Node) -> Kind | None:
    """The node's kind, None for operators outside the table and for nodes that are not calls."""
    return OPERATORS.get(node.target) if node.op == "call_function" else None
