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

from compiler.dialects.attrs import IntType
from isa import numerics

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
    """Integers: a tensor of ``!qnn.int``, as a quantize gives it. ``unsigned``: PyTorch sees uint8, we hold q - 128."""

    ssa: SSAValue
    unsigned: bool = False


@dataclass(frozen=True)
class Quantized:
    """A float tensor that is the dequantization of the codes ``ssa``."""

    ssa: SSAValue


@dataclass(frozen=True)
class Float:
    """A float tensor that had to be computed."""

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

    def permute(self, order: Sequence[int]) -> Weight:
        """The weight with its dimensions reordered."""
        axis = None if self.axis is None else list(order).index(self.axis)
        return Weight(self.codes.transpose(order), self.scale, self.zero, axis)

    def dequantized(self) -> Array:
        """The float32 values."""
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        scale = self.scale.astype(np.float32).reshape(shape)
        return (self.codes.astype(np.int32) - self.zero.reshape(shape)).astype(np.float32) * scale


Value = Codes | Quantized | Float | Constant | Weight


def codes_type(scale: float, zero: int, low: int, high: int, dtype: str) -> tuple[IntType, tuple[int, int]]:
    """Element type and clamping range of quantization parameters; uint8 is shifted by 128 into int8.

    Raises Refusal for widths other than 8 bits and scales that are not positive.
    """
    shift = {"int8": 0, "uint8": 128}.get(dtype)
    if shift is None or low - shift < numerics.INT8_MIN or high - shift > numerics.INT8_MAX:
        raise Refusal(
            f"activations are 8-bit codes (int8 or uint8), got {dtype} in [{low}, {high}]",
            "quantize activations to 8 bits",
        )
    if not (0 < scale < float("inf")):
        raise Refusal(
            f"scale must be positive and finite, got {scale!r}", "calibrate with inputs that are not constant"
        )
    if not numerics.INT8_MIN <= zero - shift <= numerics.INT8_MAX:
        raise Refusal(f"zero point {zero} is not a code of {dtype}", "quantize with a zero point inside the range")
    return IntType(8, scale, zero - shift), (low - shift, high - shift)


def weight(codes: Array, scale: Any, zero: Any, axis: int | None) -> Weight:
    """Weight from stored codes; uint8 codes are shifted with their zero point."""
    scales, zeros = np.atleast_1d(np.asarray(scale)), np.atleast_1d(np.asarray(zero)).astype(np.int64)
    if codes.dtype == np.uint8:
        codes, zeros = (codes.astype(np.int16) - 128).astype(np.int8), zeros - 128
    return Weight(codes, scales, zeros, axis)


def matrix_weight(value: Weight, x: IntType) -> tuple[Array, Array]:
    """Codes with the output channel first, and ``fp32(sx) * fp32(sw[c])`` for each; Refusal for what the MMU lacks."""
    if value.codes.dtype != np.int8:
        raise Refusal(f"weights are int8 codes, got {value.codes.dtype}", "quantize weights to 8 bits")
    if value.zero.any():
        raise Refusal(
            f"weight zero points must be 0, got {int(value.zero[np.flatnonzero(value.zero)[0]])}",
            "quantize weights symmetrically",
        )
    if value.axis not in (None, 0):
        raise Refusal(
            f"weight scales must vary along the output channel, axis 0, got axis {value.axis}",
            "quantize weights per output channel or per tensor",
        )
    scale = np.broadcast_to(value.scale, (value.codes.shape[0],))
    return value.codes, numerics.product_scale(x.scale.data, scale)


def magnitude(codes: IntType) -> int:
    """Largest |q - zero| of the codes of a type."""
    return max(codes.high - codes.zero.data, codes.zero.data - codes.low)


def check_sum(weights: Array, x: IntType) -> None:
    """Refusal when a product's sum over [O, ...] ``weights`` may leave the accumulators' int32."""
    terms = weights.size // max(weights.shape[0], 1)
    if terms * 128 * magnitude(x) < ACCUMULATOR_LIMIT:
        return
    largest = int(np.abs(weights.reshape(weights.shape[0], -1).astype(np.int64)).sum(1).max()) * magnitude(x)
    if largest >= ACCUMULATOR_LIMIT:
        raise Refusal(
            f"a sum of {terms} products may reach {largest}, accumulators hold less than 2^31",
            "split the layer along its inputs and add the parts",
        )


def check_product_sum(a: IntType, b: IntType, terms: int) -> None:
    """Refusal when a sum of ``terms`` products of two activations may leave the accumulators' int32."""
    largest = terms * magnitude(a) * magnitude(b)
    if largest >= ACCUMULATOR_LIMIT:
        raise Refusal(
            f"a sum of {terms} products may reach {largest}, accumulators hold less than 2^31",
            "split the contracted dimension and add the parts",
        )
