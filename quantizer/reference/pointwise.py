"""Conversions, elementwise ops and ops that move values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from isa import numerics
from isa.errors import UnsupportedError
from quantizer.reference.values import OFFSETS, Codes, Lazy, Weight, as_float

Value = Any
"""torch.Tensor | Codes | Lazy | Weight."""


def _offset(dtype: torch.dtype) -> int:
    if dtype not in OFFSETS:
        raise UnsupportedError(f"activations of type {dtype}: this machine stores codes of 4, 8 or 16 bits")
    return OFFSETS[dtype]


def _held(dtype: torch.dtype) -> str:
    return "int8" if dtype in (torch.int8, torch.uint8) else "int16"


def quantize_per_tensor(x: Value, scale: Value, zero: Value, lo: int, hi: int, dtype: torch.dtype, **_: Any) -> Codes:
    """clamp(rne(x * fp32(1/scale)) + zero, lo, hi)."""
    offset, scale, zero = _offset(dtype), float(scale), int(zero)
    shifted = (zero - offset, int(lo) - offset, int(hi) - offset)
    if isinstance(x, Lazy) and (x.scale, x.zero) == (scale, shifted[0]):
        full = shifted[1:] == (torch.iinfo(x.codes.dtype).min, torch.iinfo(x.codes.dtype).max)
        return Codes(x.codes if full else x.codes.clamp(*shifted[1:]), offset)
    return Codes(numerics.quantize(as_float(x), numerics.inverse_scale(scale), *shifted, _held(dtype)), offset)


def dequantize_per_tensor(q: Value, scale: Value, zero: Value, lo: int, hi: int, dtype: torch.dtype, **_: Any) -> Value:
    """A lazy tensor; wide constants (an int32 bias) become binary32 at once."""
    if dtype not in OFFSETS:
        return numerics.dequantize(q, float(scale), int(zero))
    offset = _offset(dtype)
    codes = q.codes if isinstance(q, Codes) else (q.to(torch.int32) - offset).to(getattr(torch, _held(dtype)))
    return Lazy(codes, float(scale), int(zero) - offset)


def dequantize_per_channel(
    q: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    axis: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
    **_: Any,
) -> Value:
    """A weight with one scale per channel of axis 0; wide constants become binary32 at once."""
    zeros = torch.zeros_like(scales, dtype=torch.int64) if zeros is None else zeros
    if axis not in (0, 1):
        raise UnsupportedError(
            f"weights quantized per channel of axis {axis}: the machine scales output channels, axis 0 (1 if "
            "transposed)"
        )
    if dtype not in OFFSETS:
        shape = (-1, *[1] * (q.dim() - 1))
        return (q - zeros.view(shape)).float() * scales.float().view(shape)
    offset = _offset(dtype)
    codes = (q.to(torch.int32) - offset).to(getattr(torch, _held(dtype)))
    return Weight(codes, scales.double(), zeros.long() - offset)


def quantize_per_channel(
    x: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    axis: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
    **_: Any,
) -> torch.Tensor:
    """Codes of a constant that convert left unfolded."""
    shape = [1] * x.dim()
    shape[axis] = -1
    inverse = (1.0 / scales.double()).float().view(shape)
    y = (x * inverse).round() + zeros.float().view(shape)
    return y.clamp(lo, hi).to(dtype)


def _binary(function: Callable[[Value, Value], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def operation(a: Value, b: Value, *, alpha: float = 1) -> torch.Tensor:
        if alpha != 1:
            raise UnsupportedError(f"alpha={alpha} of add or sub: multiply the operand first")
        a, b = (numerics.fp32(v) if isinstance(v, (int, float)) else as_float(v) for v in (a, b))
        return function(a, b)

    return operation


add, sub, mul = _binary(torch.add), _binary(torch.sub), _binary(torch.mul)


def rsub(a: Value, b: Value, alpha: float = 1) -> torch.Tensor:
    """b - a."""
    return sub(b, a, alpha=alpha)


def batch_norm(
    x: Value,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> torch.Tensor:
    """``x * a + b`` per channel, two roundings.

    ``a = gamma / sqrt(var + eps)`` and ``b = beta - mean * a``, in binary64 and each rounded once to binary32.
    """
    if training:
        raise UnsupportedError("batch norm is in training mode: call model.eval() before exporting")
    a = (1.0 if weight is None else weight.double()) / (variance.double() + eps).sqrt()
    b = (0.0 if bias is None else bias.double()) - mean.double() * a
    value = as_float(x)
    shape = (-1, *[1] * (value.dim() - 2))
    return value * a.float().view(shape) + b.float().view(shape)


def batch_norm_tuple(
    x: Value, weight: Any, bias: Any, mean: torch.Tensor, variance: torch.Tensor, momentum: float, eps: float
) -> tuple[torch.Tensor, ...]:
    """The decomposed batch norm, whose first result is the tensor."""
    return (batch_norm(x, weight, bias, mean, variance, False, momentum, eps),)


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Value], torch.Tensor]:
    def operation(x: Value) -> torch.Tensor:
        return function(as_float(x))

    return operation


def _table(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Value], torch.Tensor]:
    """A function of many steps: 256 evaluations where the operand is int8, the same bits."""

    def operation(x: Value) -> torch.Tensor:
        if not isinstance(x, Lazy) or x.codes.numel() <= 256 or x.codes.dtype is not torch.int8:
            return function(as_float(x))
        entries = function(x.moved(torch.arange(-128, 128, dtype=torch.int8)).float())
        return entries[x.codes.int() + 128]

    return operation


relu = _unary(numerics.relu)
hardswish = _unary(numerics.hardswish)
hardsigmoid = _unary(numerics.hardsigmoid)
sigmoid = _table(numerics.sigmoid)
tanh = _table(numerics.tanh)
silu = _table(numerics.silu)
exp = _table(numerics.exp)
log = _table(numerics.log)
erf = _table(numerics.erf)
rsqrt = _table(numerics.rsqrt)
reciprocal = _table(numerics.reciprocal)
sqrt = _unary(numerics.sqrt)
absolute = _unary(torch.abs)
floor = _unary(torch.floor)
negative = _unary(lambda x: x * -1.0)
div = _binary(numerics.div)
minimum, maximum = _binary(numerics.minimum), _binary(numerics.maximum)
ge, gt, eq = _binary(torch.ge), _binary(torch.gt), _binary(torch.eq)
le, lt = _binary(lambda a, b: torch.le(a, b)), _binary(lambda a, b: torch.lt(a, b))
ne = _binary(lambda a, b: ~torch.eq(a, b))


def gelu(x: Value, *, approximate: str = "none") -> torch.Tensor:
    """GELU with erf, or with tanh."""
    return _gelus[approximate](x)


_gelus = {"none": _table(numerics.gelu), "tanh": _table(numerics.gelu_tanh)}


def power(x: Value, exponent: float) -> torch.Tensor:
    """x ** 2, x ** 0.5, x ** -0.5 and x ** -1. Raises UnsupportedError for others."""
    if not isinstance(exponent, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UnsupportedError(
            "pow with a tensor as exponent: the machine has the numbers 2, 0.5, -0.5 and -1; of a positive base, write "
            "torch.exp(exponent * torch.log(base))"
        )
    value = as_float(x)
    if exponent == 2:
        return value * value
    if exponent not in _powers:
        raise UnsupportedError(
            f"pow with exponent {exponent}: the machine has 2, 0.5, -0.5 and -1; of a positive base, write "
            f"torch.exp({exponent} * torch.log(base))"
        )
    return _powers[exponent](value)


_powers = {0.5: numerics.sqrt, -0.5: numerics.rsqrt, -1: numerics.reciprocal}


def where(condition: Value, a: Value, b: Value) -> torch.Tensor:
    """a where the condition holds, else b."""
    mask = condition if condition.dtype is torch.bool else condition != 0
    yes, no = (numerics.fp32(v) if isinstance(v, (int, float)) else as_float(v) for v in (a, b))
    return torch.where(mask, yes, no).float()


def softmax(x: Value, dim: int, *_: Any, **__: Any) -> torch.Tensor:
    """exp2((x - max) * log2 e) over its exact sum."""
    return numerics.softmax(as_float(x).movedim(dim, -1).contiguous()).movedim(-1, dim)


def layer_norm(
    x: Value, shape: Sequence[int], weight: Value = None, bias: Value = None, eps: float = 1e-5, *_: Any
) -> torch.Tensor:
    """Over the last axis, from integer sums; a longer ``shape`` is one axis."""
    return _norm(x, shape, lambda v, s: numerics.layer_norm(v, _vector(weight), _vector(bias), eps, s))


def rms_norm(x: Value, shape: Sequence[int], weight: Value = None, eps: float | None = None) -> torch.Tensor:
    """Over the last axis, from integer sums."""
    e = float(torch.finfo(torch.float32).eps) if eps is None else eps
    return _norm(x, shape, lambda v, s: numerics.rms_norm(v, _vector(weight), e, s))


def _vector(value: Value) -> torch.Tensor | None:
    return None if value is None else as_float(value).reshape(-1)


def _norm(x: Value, shape: Sequence[int], function: Callable[..., torch.Tensor]) -> torch.Tensor:
    count = prod(shape)
    if isinstance(x, Lazy):
        v = (x.codes.to(torch.int32) - x.zero).float()
        return function(v.reshape(-1, count), x.scale).view(x.codes.shape)
    value = as_float(x)
    return function(value.reshape(-1, count), None).view(value.shape)


def relu6(x: Value) -> torch.Tensor:
    """clamp(x, 0, 6)."""
    return numerics.clamp(as_float(x), 0.0, 6.0)


def hardtanh(x: Value, min_val: float = -1.0, max_val: float = 1.0) -> torch.Tensor:
    """clamp(x, min_val, max_val)."""
    return numerics.clamp(as_float(x), min_val, max_val)


def clamp(x: Value, min: float | None = None, max: float | None = None) -> torch.Tensor:
    """max with the lower bound, then min with the upper; a missing bound is infinite."""
    for bound in (min, max):
        if isinstance(bound, torch.Tensor):
            raise UnsupportedError("clamp with tensors as bounds: give numbers")
    return numerics.clamp(as_float(x), -torch.inf if min is None else min, torch.inf if max is None else max)


def _move(function: Callable[..., torch.Tensor]) -> Callable[..., Value]:
    def operation(x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, (Codes, Lazy)):
            return x.moved(function(x.codes, *args, **kwargs))
        return function(as_float(x), *args, **kwargs)

    return operation


reshape = _move(lambda x, shape: x.reshape(shape))
flatten = _move(torch.flatten)
permute = _move(torch.permute)
transpose = _move(torch.transpose)
squeeze = _move(torch.squeeze)
unsqueeze = _move(torch.unsqueeze)
matrix_transpose = _move(torch.t)
same = _move(lambda x, *_, **__: x)


def dropout(x: Value, p: float, train: bool) -> Value:
    """The operand, outside of training. Raises UnsupportedError in it."""
    if train:
        raise UnsupportedError(DROPS)
    return x


DROPS = "dropout is in training mode: call model.eval() before exporting; F.dropout needs training=self.training"
INDICES_STAY = "indices can only be returned; return them, and convert them outside of the model"


def to(x: Value, *args: Any, **kwargs: Any) -> Value:
    """``aten.to`` and ``_to_copy`` that stay in float32, or make 1 and 0 of a mask. Raises UnsupportedError."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.dtype) and value is not torch.float32:
            raise UnsupportedError(f"conversion to {value}: keep the tensor in float32")
    if not isinstance(x, torch.Tensor) or x.dtype is torch.float32:
        return x
    if x.dtype is torch.int32:  # what argmax gives; other integers are constants
        raise UnsupportedError(f"conversion of {x.dtype}: {INDICES_STAY}")
    return x.float()


def pad(x: Value, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """Constant padding; codes stay codes if ``value`` is one of theirs."""
    if mode != "constant":
        raise UnsupportedError(f"pad in mode {mode!r}: the machine pads with a constant")
    value = numerics.fp32(value or 0.0)
    if isinstance(x, Lazy):
        info = torch.iinfo(x.codes.dtype)
        held = str(x.codes.dtype).removeprefix("torch.")
        code = numerics.quantize(
            torch.tensor([value]), numerics.inverse_scale(x.scale), x.zero, info.min, info.max, held
        )
        if x.moved(code).float().item() == value:
            return x.moved(torch.nn.functional.pad(x.codes, list(padding), value=int(code)))
    return torch.nn.functional.pad(as_float(x), list(padding), value=value)


def constant_pad_nd(x: Value, padding: Sequence[int], value: float = 0) -> Value:
    """``pad`` under its other name."""
    return pad(x, padding, "constant", value)


def _split(function: Callable[..., Sequence[torch.Tensor]]) -> Callable[..., tuple[Value, ...]]:
    def operation(x: Value, *args: Any, **kwargs: Any) -> tuple[Value, ...]:
        if isinstance(x, (Codes, Lazy)):
            return tuple(x.moved(part) for part in function(x.codes, *args, **kwargs))
        return tuple(function(as_float(x), *args, **kwargs))

    return operation


split, chunk, unbind = _split(torch.split), _split(torch.chunk), _split(torch.unbind)
split_with_sizes = _split(torch.split_with_sizes)
slice_ = _move(torch.ops.aten.slice.Tensor)
select = _move(torch.select)
narrow = _move(torch.narrow)
expand = _move(lambda x, size, **_: x.expand(*size))
expand_as = _move(lambda x, other: x.expand(tuple(getattr(other, "codes", other).shape)))
repeat = _move(lambda x, sizes: x.repeat(*sizes))
tile = _move(torch.tile)
unflatten = _move(torch.unflatten)
movedim = _move(torch.movedim)
pixel_shuffle = _move(torch.pixel_shuffle)
pixel_unshuffle = _move(torch.pixel_unshuffle)
roll = _move(torch.roll)


def stack(tensors: Sequence[Value], dim: int = 0) -> Value:
    """``cat`` along a new axis."""
    return cat([unsqueeze(t, dim) for t in tensors], dim)


def im2col(
    x: Value, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Value:
    """``unfold``: padding is the code of 0, which must be one."""
    padded = pad(x, (padding[1], padding[1], padding[0], padding[0]))
    if not isinstance(padded, Lazy):
        return torch.nn.functional.unfold(padded, tuple(kernel), tuple(dilation), 0, tuple(stride))
    patches = torch.nn.functional.unfold(padded.codes.float(), tuple(kernel), tuple(dilation), 0, tuple(stride))
    return padded.moved(patches.to(padded.codes.dtype))


def cat(tensors: Sequence[Value], dim: int = 0) -> Value:
    """Codes if all operands are codes, or share scale and zero point, else binary32."""
    first = tensors[0]
    if isinstance(first, (Codes, Lazy)) and all(first.same_grid(t) for t in tensors):
        return first.moved(torch.cat([t.codes for t in tensors], dim))
    return torch.cat([as_float(t) for t in tensors], dim)
