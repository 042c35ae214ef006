"""Builders of quantization and padding; those of moves are in ``aten_moves``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.dialects.qnn_base import int_type
from compiler.dialects.qnn_layout import code_of
from compiler.frontend import aten_moves
from compiler.frontend.aten_moves import size
from compiler.frontend.build import RESULTS_ALONE, Graph, describe
from compiler.frontend.qdq import (
    Codes,
    Constant,
    Float,
    Indices,
    Mask,
    Quantized,
    Refusal,
    Thresholds,
    Value,
    codes_type,
    weight,
)
from isa import numerics


def quantize(g: Graph, x: Any, scale: float, zero: int, low: int, high: int, dtype: str) -> Value:
    """``quantize_per_tensor``; of a constant, its codes."""
    if isinstance(x, Constant):
        codes = numerics.quantize(x.array, numerics.inverse_scale(scale), zero, low, high, dtype)
        return Constant(codes)
    kind, bounds = codes_type(scale, zero, low, high, dtype)
    return Codes(g.add(qnn.QuantizeOp(g.float(x), kind, bounds)), dtype.startswith("u"))


def quantize_codebook(g: Graph, x: Any, thresholds: Sequence[float]) -> Value:
    """``quartic::quantize_codebook``: codes whose type the dequantize names."""
    if isinstance(x, Constant):
        return Constant(numerics.encode(x.array, thresholds))
    return Thresholds(g.float(x), tuple(thresholds))


def dequantize_codebook(g: Graph, x: Any, codebook: Sequence[int], zero: int, scale: float) -> Value:
    """``quartic::dequantize_codebook``: lazy."""
    if isinstance(x, Constant):
        return weight(numerics.decode(x.array, codebook), scale, zero, None, -128, 127)
    if not isinstance(x, Thresholds):
        raise Refusal("dequantize_codebook reads what quantize_codebook gave", "keep the two together")
    return Quantized(g.add(qnn.QuantizeOp(x.ssa, IntType(4, scale, zero, codebook), None, x.thresholds)))


def quantize_tensors(g: Graph, x: Any, scale: Any, zero: Any, low: int, high: int, dtype: str) -> Value:
    """``quantize_per_tensor`` whose parameters are constant tensors."""
    return quantize(g, x, _number(scale), int(_number(zero)), low, high, dtype)


def dequantize(
    g: Graph, x: Any, scale: float, zero: int, low: int, high: int, dtype: str, out_dtype: str | None = None
) -> Value:
    """``dequantize_per_tensor``: lazy."""
    if out_dtype not in (None, "float32"):
        raise Refusal(f"dequantize must give float32, got {out_dtype}", "dequantize to float32")
    if isinstance(x, Constant):
        return weight(x.array, scale, zero, None, low, high) if x.array.dtype != np.int32 else _folded(x, scale, zero)
    if not isinstance(x, Codes):
        raise Refusal(f"dequantize needs codes, got {describe(x)}", "quantize the tensor first")
    kind, _ = codes_type(scale, zero, low, high, dtype)
    if int_type(x.ssa) != kind:
        raise Refusal(
            f"dequantize reads {kind}, but the codes are {int_type(x.ssa)}",
            "use the same scale and zero point on both sides",
        )
    return Quantized(x.ssa)


def dequantize_tensors(
    g: Graph, x: Any, scale: Any, zero: Any, low: int, high: int, dtype: str, out_dtype: str | None = None
) -> Value:
    """``dequantize_per_tensor`` whose parameters are constant tensors."""
    return dequantize(g, x, _number(scale), int(_number(zero)), low, high, dtype, out_dtype)


def _number(value: Any) -> float:
    if isinstance(value, Constant) and value.array.size == 1:
        return float(value.array.reshape(()))
    raise Refusal(f"scale and zero point must be constants, got {describe(value)}", "use a static quantizer")


def _folded(x: Constant, scale: Any, zero: Any, axis: int | None = None) -> Value:
    """A dequantized int32 constant, such as a quantized bias."""
    return Constant(weight(x.array, scale, zero, axis, 0, 0).dequantized())


def quantize_channels(g: Graph, x: Any, scale: Any, zero: Any, axis: int, low: int, high: int, dtype: str) -> Value:
    """``quantize_per_channel`` of a constant."""
    if not all(isinstance(value, Constant) for value in (x, scale, zero)):
        raise Refusal("only constants can be quantized per channel", "quantize activations per tensor")
    shape = [1] * x.array.ndim
    shape[axis] = -1
    inverse = (1.0 / scale.array.astype(np.float64)).astype(np.float32).reshape(shape)
    codes = np.clip(np.rint(x.array * inverse) + zero.array.reshape(shape), low, high)
    return Constant(codes.astype(dtype))


def dequantize_channels(
    g: Graph,
    x: Any,
    scale: Any,
    zero: Any,
    axis: int,
    low: int,
    high: int,
    dtype: str,
    out_dtype: str | None = None,
) -> Value:
    """``dequantize_per_channel`` of a constant; its zero points may be absent."""
    if not isinstance(x, Constant) or not isinstance(scale, Constant):
        raise Refusal("only constants can be quantized per channel", "quantize activations per tensor")
    if out_dtype not in (None, "float32"):
        raise Refusal(f"dequantize must give float32, got {out_dtype}", "dequantize to float32")
    zeros = zero.array if isinstance(zero, Constant) else np.zeros(scale.array.shape, np.int64)
    if x.array.dtype == np.int32:
        return _folded(x, scale.array, zeros, axis)
    return weight(x.array, scale.array, zeros, axis % x.array.ndim, low, high)


def identity(g: Graph, x: Value, *_: Any, **__: Any) -> Value:
    """An operator that gives its operand."""
    return x


def dropout(g: Graph, x: Value, p: float, train: bool) -> Value:
    """``aten.dropout`` outside training."""
    if train:
        advice = "call model.eval() before exporting; F.dropout needs training=self.training"
        raise Refusal("dropout is in training mode", advice)
    return x


def convert(g: Graph, x: Value, *args: Any, **kwargs: Any) -> Value:
    """``aten.to`` and ``_to_copy`` that stay in float32."""
    named = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
    if isinstance(x, Mask) and "float32" in named:
        return Float(x.ssa)
    if isinstance(x, Indices) and "float32" in named:
        raise Refusal("conversion of indices to float32 is not supported", RESULTS_ALONE)
    if isinstance(x, Constant) and "float32" in named:
        return Constant(x.array.astype(np.float32))
    if any(value in ("float16", "bfloat16", "float64", "int8", "int32", "int64", "bool") for value in named):
        raise Refusal(f"conversion to {', '.join(named)} is not supported", "keep the tensor in float32")
    return x


def pad(
    g: Graph, x: Value, padding: Sequence[int], mode: str | float = "constant", value: float | None = None
) -> Value:
    """``aten.pad`` with a constant; ``padding`` starts at the last dimension, as in PyTorch."""
    if mode != "constant":
        raise Refusal(f"padding mode {mode!r} is not supported", "pad with a constant")
    if min(padding, default=0) < 0:
        raise Refusal(f"padding must not be negative, got {list(padding)}", "slice the tensor instead of padding it")
    number, rank = float(value or 0.0), len(size(x))
    pairs = [tuple(padding[i : i + 2]) for i in range(0, len(padding), 2)]
    sides = [n for p in reversed(pairs + [(0, 0)] * (rank - len(pairs))) for n in p]
    if not any(sides):
        return x
    if isinstance(x, Constant):
        return Constant(np.pad(x.array, np.reshape(sides, (rank, 2)), constant_values=number))
    if isinstance(x, Quantized) and not int_type(x.ssa).codebook.data and code_of(number, int_type(x.ssa)) is not None:
        return Quantized(g.add(qnn.PadOp(x.ssa, sides, number)))
    return Float(g.add(qnn.PadOp(g.float(x), sides, number)))


def constant_pad(g: Graph, x: Value, padding: Sequence[int], value: float = 0.0) -> Value:
    """``aten.constant_pad_nd``."""
    return pad(g, x, padding, "constant", value)


Q = "quantized_decomposed"
OPERATORS: dict[str, Callable[..., Any]] = {
    f"{Q}.quantize_per_tensor.default": quantize,
    f"{Q}.quantize_per_tensor.tensor": quantize_tensors,
    f"{Q}.quantize_per_channel.default": quantize_channels,
    f"{Q}.dequantize_per_tensor.default": dequantize,
    f"{Q}.dequantize_per_tensor.tensor": dequantize_tensors,
    f"{Q}.dequantize_per_channel.default": dequantize_channels,
    "aten.dropout.default": dropout,
    "aten.dropout_.default": dropout,
    "aten.feature_dropout.default": dropout,
    "aten.alias.default": identity,
    "aten._assert_tensor_metadata.default": identity,
    "aten.clone.default": identity,
    "aten.contiguous.default": identity,
    "aten.detach.default": identity,
    "aten.detach_.default": identity,
    "aten.lift_fresh_copy.default": identity,
    "aten._to_copy.default": convert,
    "aten.to.dtype": convert,
    "aten.to.dtype_layout": convert,
    "aten.pad.default": pad,
    "aten.constant_pad_nd.default": constant_pad,
    "quartic.quantize_codebook.default": quantize_codebook,
    "quartic.dequantize_codebook.default": dequantize_codebook,
    **aten_moves.OPERATORS,
}
"""Builders by operator."""
