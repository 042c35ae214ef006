"""Masks, what depends on them, and operators that are made of others."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.nn import functional

from isa import numerics
from isa.errors import UnsupportedError
from quantizer.reference import matrix, pointwise, pooling
from quantizer.reference.values import Lazy, as_float

Value = Any
"""torch.Tensor | Codes | Lazy | Weight."""


def masked_fill(x: Value, mask: torch.Tensor, value: Value) -> torch.Tensor:
    """``value`` where the mask holds, else x."""
    return pointwise.where(mask, value, x)


def leaky_relu(x: Value, slope: float = 0.01) -> torch.Tensor:
    """x where it is positive, else x * slope."""
    value = as_float(x)
    return torch.where(value > 0, value, value * numerics.fp32(slope))


def elu(x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> torch.Tensor:
    """x where it is positive, else (exp(x) - 1) * alpha. Raises UnsupportedError for other scales than 1."""
    if scale != 1 or input_scale != 1:
        raise UnsupportedError("elu with scales: the machine has none; scale the operand and the result")
    value = as_float(x)
    bent = numerics.exp(value) - 1.0
    return torch.where(value > 0, value, bent if alpha == 1 else bent * numerics.fp32(alpha))


def softplus(x: Value, beta: float = 1, threshold: float = 20) -> torch.Tensor:
    """log(exp(x) + 1), and x above the threshold. Raises UnsupportedError unless beta is 1."""
    if beta != 1:
        raise UnsupportedError(f"softplus with beta {beta}: the machine has beta 1; scale the operand and the result")
    value = as_float(x)
    return torch.where(value > numerics.fp32(threshold), value, numerics.log(numerics.exp(value) + 1.0))


def extreme(
    reduce: Callable[..., Value], elementwise: Callable[..., Value], places: Callable[..., torch.Tensor] | None
) -> Callable[..., Any]:
    """The overloads of ``max`` and ``min``: of all elements, along one axis (with positions), of two tensors."""

    def operation(x: Value, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return reduce(x)
        if not isinstance(dim, int):
            return elementwise(x, dim)
        values = reduce(x, dim, keepdim)
        return (values,) if places is None else (values, places(x, dim, keepdim))

    return operation


largest = extreme(pooling.amax, pointwise.maximum, pooling.argmax)
smallest = extreme(pooling.amin, pointwise.minimum, None)


def group_norm(
    x: Value, groups: int, weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> torch.Tensor:
    """A layer norm of each group, then a factor and a sum per channel."""
    shape = tuple(x.codes.shape if isinstance(x, Lazy) else x.shape)
    rows = pointwise.reshape(x, (shape[0], groups, -1))
    y = pointwise.layer_norm(rows, (prod(shape[1:]) // groups,), None, None, eps)
    y, each = y.view(shape), (-1, *[1] * (len(shape) - 2))
    y = y if weight is None else y * as_float(weight).view(each)
    return y if bias is None else y + as_float(bias).view(each)


def baddbmm(x: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> torch.Tensor:
    """x + a @ b."""
    if beta != 1 or alpha != 1:
        raise UnsupportedError(f"baddbmm with beta {beta} and alpha {alpha}: multiply the operands first")
    return pointwise.add(matrix.matmul(a, b), x)


def getitem(values: tuple[Value, ...], index: int) -> Value:
    """One result of an operator with several. Raises UnsupportedError for those that the machine does not compute."""
    if not -len(values) <= index < len(values):
        raise UnsupportedError(f"result {index} of this operator is not supported: use only its first result")
    return values[index]


def embedding(table: Value, indices: Value, *_: Any) -> torch.Tensor:
    """Rows of a constant at constant positions."""
    return as_float(table)[indices]


def index(x: Value, indices: list[Any]) -> torch.Tensor:
    """A constant indexed by constants."""
    return as_float(x)[tuple(slice(None) if i is None else i for i in indices)]


def _moved(function: Callable[..., torch.Tensor]) -> Callable[..., Value]:
    def operation(x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, Lazy):
            return x.moved(function(x.codes, *args, **kwargs))
        return function(as_float(x), *args, **kwargs)

    return operation


flip = _moved(torch.flip)
channel_shuffle = _moved(torch.channel_shuffle)
unfold = _moved(lambda x, dim, count, step: x.unfold(dim, count, step))
repeat_interleave = _moved(lambda x, repeats, dim=None, output_size=None: x.repeat_interleave(repeats, dim))
reshape_as = _moved(lambda x, other: x.reshape(tuple(getattr(other, "codes", other).shape)))


def _fold(x: torch.Tensor, *windows: Any) -> torch.Tensor:
    """A move: windows do not overlap. PyTorch adds to 0, which loses the sign of a zero."""
    y = functional.fold(x.float(), *windows)
    if not x.is_floating_point():
        return y.to(x.dtype)
    negative = functional.fold(x.signbit().float(), *windows)
    return torch.where((y == 0) & (negative > 0), -0.0, y)


fold = _moved(_fold)
