"""What a value of the graph is: codes, a lazily dequantized tensor, a float tensor, or a constant.

A dequantize is lazy: operators that need integers take the codes behind it, operators that only move values move the
codes, and any other operator makes it real, once per value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import SSAValue

from compiler.backend.widths import CODES, product_of
from compiler.dialects.attrs import IntType
from isa import numerics
from isa.errors import UnsupportedError

Array = NDArray[Any]
ACCUMULATOR_LIMIT = 2**31


class Refusal(Exception):  # noqa: N818  (a finding that is collected, not an error that is raised to users)
    """One operator breaks ``rule``; ``advice`` says what to do. Collected into one UnsupportedError."""

    def __init__(self, rule: str, advice: str):
        super().__init__(rule)
        self.rule = rule
        self.advice = advice


@dataclass(frozen=True)
class Codes:
    """Integers: a tensor of ``!qnn.int``, as a quantize gives it. ``unsigned``: PyTorch sees them shifted, as uint8."""

    ssa: SSAValue
    unsigned: bool = False


@dataclass(frozen=True)
class Thresholds:
    """What a codebook's encoder will make codes of: the float tensor and the thresholds."""

    ssa: SSAValue
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Quantized:
    """A float tensor that is the dequantization of the codes ``ssa``."""

    ssa: SSAValue


@dataclass(frozen=True)
class Float:
    """A float tensor that had to be computed."""

    ssa: SSAValue


@dataclass(frozen=True)
class Mask(Float):
    """Zeros and ones in binary32, which PyTorch sees as bool."""


@dataclass(frozen=True)
class Indices:
    """Positions as int32, which PyTorch sees as int64."""

    ssa: SSAValue


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter, or what was folded from parameters."""

    array: Array


@dataclass(frozen=True, eq=False)
class Weight:
    """A dequantized constant: ``fp32(codes - zero) * fp32(scale)``; scale and zero vary along ``axis`` unless None."""

    codes: Array
    scale: Array
    zero: Array
    axis: int | None
    width: int = 8

    def permute(self, order: Sequence[int]) -> Weight:
        """The weight with its dimensions reordered."""
        axis = None if self.axis is None else list(order).index(self.axis)
        return Weight(self.codes.transpose(order), self.scale, self.zero, axis, self.width)

    def dequantized(self) -> Array:
        """The float32 values."""
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        scale = self.scale.astype(np.float32).reshape(shape)
        return (self.codes.astype(np.int32) - self.zero.reshape(shape)).astype(np.float32) * scale


Value = Codes | Thresholds | Quantized | Float | Indices | Constant | Weight


def width_of(low: int, high: int, dtype: str) -> tuple[int, int]:
    """Bits of codes in [low, high], the narrowest of 4, 8 and 16, and what is taken from unsigned ones to sign them.

    Raises Refusal for types other than int8, uint8, int16 and uint16.
    """
    if dtype not in ("int8", "uint8", "int16", "uint16"):
        raise Refusal(
            f"codes are int8, uint8, int16 or uint16, got {dtype} in [{low}, {high}]", "quantize to 4, 8 or 16 bits"
        )
    for width in (4, 8, 16):
        shift = 1 << (width - 1) if dtype.startswith("u") else 0
        if -(1 << (width - 1)) <= low - shift and high - shift < 1 << (width - 1):
            return width, shift
    raise Refusal(f"codes in [{low}, {high}] need more than 16 bits", "quantize to 4, 8 or 16 bits")


def codes_type(scale: float, zero: int, low: int, high: int, dtype: str) -> tuple[IntType, tuple[int, int]]:
    """Element type and clamping range of quantization parameters; unsigned codes are shifted into signed ones.

    Raises Refusal for types that the machine does not store and scales that are not positive.
    """
    width, shift = width_of(low, high, dtype)
    if not (0 < scale < float("inf")):
        raise Refusal(
            f"scale must be positive and finite, got {scale!r}", "calibrate with inputs that are not constant"
        )
    least, most = numerics.code_range(width)
    if not least <= zero - shift <= most:
        raise Refusal(f"zero point {zero} is not a code of {width} bits", "quantize with a zero point inside the range")
    return IntType(width, scale, zero - shift), (low - shift, high - shift)


def weight(codes: Array, scale: Any, zero: Any, axis: int | None, low: int, high: int) -> Weight:
    """Weight from stored codes in [low, high]; unsigned codes are shifted with their zero point."""
    scales, zeros = np.atleast_1d(np.asarray(scale)), np.atleast_1d(np.asarray(zero)).astype(np.int64)
    if codes.dtype == np.int32:
        return Weight(codes, scales, zeros, axis)
    width, shift = width_of(low, high, codes.dtype.name)
    if shift:
        codes, zeros = (codes.astype(np.int32) - shift).astype(numerics.code_type(width)), zeros - shift
    return Weight(codes, scales, zeros, axis, width)


def matrix_weight(value: Weight, x: IntType) -> tuple[Array, Array, tuple[int, ...] | None]:
    """Codes with the output channel first, ``fp32(sx) * fp32(sw[c])``, and zero points where one is not 0."""
    if value.axis not in (None, 0):
        raise Refusal(
            f"weight scales must vary along the output channel, axis 0, got axis {value.axis}",
            "quantize weights per output channel or per tensor",
        )
    check_widths(value.width, x, constant=True)
    channels = value.codes.shape[0]
    scale = np.broadcast_to(value.scale, (channels,))
    zeros = None
    if value.zero.any():
        zeros = tuple(int(z) for z in value.zero)
    return value.codes, numerics.product_scale(x.scale.data, scale), zeros


def check_widths(weight_width: int, x: IntType, constant: bool) -> None:
    """Refusal unless the matrix unit has a mode for weights of ``weight_width`` bits and activations ``x``."""
    codebook = tuple(v.data for v in x.codebook.data)
    try:
        product_of(CODES[weight_width], CODES[x.width.data], codebook, constant, "product")
    except UnsupportedError as error:
        rule, _, advice = str(error).removeprefix("product: ").partition("; ")
        raise Refusal(rule, advice) from error


def magnitude(codes: IntType) -> int:
    """Largest |q - zero| of the codes of a type, |entry - zero| where a codebook decodes them."""
    values = [entry.data for entry in codes.codebook.data] or [codes.low, codes.high]
    return max(abs(value - codes.zero.data) for value in values)


def check_sum(weights: Array, zeros: tuple[int, ...] | None, x: IntType) -> None:
    """Refusal when a product's sum over [O, ...] ``weights`` may leave the accumulators' int32 (int64 if x is wide)."""
    terms = weights.size // max(weights.shape[0], 1)
    if x.width.data == 16 or terms * 256 * magnitude(x) < ACCUMULATOR_LIMIT:
        return
    rows = weights.reshape(weights.shape[0], -1).astype(np.int64) - np.reshape(zeros or 0, (-1, 1))
    largest = int(np.abs(rows).sum(1).max()) * magnitude(x)
    if largest >= ACCUMULATOR_LIMIT:
        raise Refusal(
            f"a sum of {terms} products may reach {largest}, accumulators hold less than 2^31",
            "split the layer along its inputs and add the parts",
        )


def check_product_sum(a: IntType, b: IntType, terms: int) -> None:
    """Refusal when two activations cannot be multiplied, or a sum of ``terms`` products may leave the accumulators."""
    if b.codebook.data:
        raise Refusal(
            "the second factor cannot have a codebook: only activations are decoded",
            "quantize the second factor uniformly, or exchange the factors",
        )
    check_widths(b.width.data, a, constant=False)
    largest = terms * magnitude(a) * magnitude(b)
    if a.width.data < 16 and largest >= ACCUMULATOR_LIMIT:
        raise Refusal(
            f"a sum of {terms} products may reach {largest}, accumulators hold less than 2^31",
            "split the contracted dimension and add the parts",
        )
