"""Operators that the machine lacks, or forms of one, in operators that it has: ordinary PyTorch, one by one.

A definition returns NotImplemented where the call is one that the machine has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

aten = torch.ops.aten
Tensor = torch.Tensor
Definition = Callable[..., Any]


def _weighted(function: Definition) -> Definition:
    """a +- alpha * b, where alpha is not 1."""

    def definition(a: Any, b: Any, alpha: float = 1) -> Any:
        return NotImplemented if alpha == 1 else function(a, b * alpha)

    return definition


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _product_and_sum(product: Definition) -> Definition:
    def definition(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        y = _times(product(a, b), alpha)
        return y + _times(x, beta) if beta else y

    return definition


def _power(x: Tensor, exponent: float) -> Any:
    """Whole powers by squares, others by exp and log, NaN below zero; 2, 0.5, -0.5 and -1 are the machine's own."""
    if exponent in (2, 0.5, -0.5, -1) or not 0 < abs(exponent) <= 64:
        return NotImplemented
    if exponent != int(exponent):
        return torch.exp(torch.log(x) * exponent)
    if exponent < 0:
        return torch.reciprocal(x**-exponent if exponent != -1 else x)
    half = x ** (exponent // 2) if exponent > 3 else x
    if exponent == 1:
        return x.clone()
    square = half * half
    return square * x if exponent % 2 else square


def _exponential(base: float, x: Tensor) -> Any:
    return torch.exp(x * math.log(base)) if base > 0 else NotImplemented


def _clamp(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    quotient = a / b
    return {None: lambda q: q, "floor": torch.floor, "trunc": _truncate}[rounding_mode](quotient)


def _truncate(x: Tensor) -> Tensor:
    return torch.where(x < 0, -torch.floor(-x), torch.floor(x))


def _matmul(a: Tensor, b: Tensor) -> Any:
    """Products with a vector, as those of a matrix."""
    if a.dim() > 1 and b.dim() > 1:
        return NotImplemented
    left = a if a.dim() > 1 else a.unsqueeze(0)
    y = torch.matmul(left, b if b.dim() > 1 else b.unsqueeze(-1))
    y = y if b.dim() > 1 else y.squeeze(-1)
    return y if a.dim() > 1 else y.squeeze(-1 if b.dim() == 1 else -2)


def _variance(root: bool, mean: bool) -> Definition:
    """The variance, or with ``root`` the deviation, and with ``mean`` the mean beside it."""

    def definition(x: Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False, **named: Any) -> Any:
        if isinstance(correction, bool):  # the overload that says whether Bessel's correction applies
            correction = int(correction)
        correction = 1 if correction is None else correction
        dims = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
        count = math.prod(x.shape[d] for d in dims)
        middle = x.mean(dims, keepdim=True)
        apart = x - middle
        spread = (apart * apart).mean(dims, keepdim=keepdim) * (count / max(count - correction, 0.5))
        spread = spread.sqrt() if root else spread
        return (spread, middle if keepdim else x.mean(dims)) if mean else spread

    return definition


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """x where it is positive, else alpha * (exp(x * input_scale) - 1); all times scale, as SELU and CELU want it."""
    if scale == input_scale == 1:
        return NotImplemented
    low = _times(torch.exp(_times(x, input_scale)) - 1.0, alpha)
    return _times(torch.where(x > 0, x, low), scale)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    each = weight if weight.numel() == 1 else weight.view(-1, *[1] * (x.dim() - 2))
    return torch.where(x > 0, x, x * each)


def _log_sigmoid(x: Tensor) -> tuple[Tensor]:
    """min(x, 0) - log(1 + exp(-|x|)), without the buffer for gradients."""
    return (x.clamp(max=0.0) - torch.log(torch.exp(-x.abs()) + 1.0),)


def _nan_to_num(x: Tensor, nan: float | None = None, high: float | None = None, low: float | None = None) -> Tensor:
    largest = torch.finfo(torch.float32).max
    x = torch.where(x != x, nan or 0.0, x)
    x = torch.where(x == math.inf, largest if high is None else high, x)
    return torch.where(x == -math.inf, -largest if low is None else low, x)


def _cosine_similarity(a: Tensor, b: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    one, other = (x / (x * x).sum(dim, keepdim=True).sqrt().clamp(min=eps) for x in (a, b))
    return (one * other).sum(dim)


def _sign(x: Tensor) -> Tensor:
    return (x > 0).float() - (x < 0).float()


def _any(mask: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    values = mask.float()
    return (values.amax() if dim is None else values.amax(dim, keepdim)) != 0


def _all(mask: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    values = mask.float()
    return (values.amin() if dim is None else values.amin(dim, keepdim)) != 0


def _argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return torch.argmax(-x, dim, keepdim)


def _min(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return torch.amin(x, dim, keepdim), torch.argmax(-x, dim, keepdim)


def _max(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return torch.amax(x, dim, keepdim), torch.argmax(x, dim, keepdim)


def _instance_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, use_input: bool, momentum: float, eps: float, *_: Any
) -> Tensor:
    """Of its own statistics a group norm of one channel each, else a batch norm."""
    if use_input:
        return functional.group_norm(x, x.shape[1], weight, bias, eps)
    return functional.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)


def _pad(x: Tensor, padding: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Negative padding cuts; other modes repeat rows of the tensor."""
    if mode == "constant":
        if min(padding, default=0) >= 0:
            return NotImplemented
        for i in range(len(padding) // 2):
            low, high = (max(-p, 0) for p in padding[2 * i : 2 * i + 2])
            x = x.narrow(-1 - i, low, x.shape[-1 - i] - low - high)
        return functional.pad(x, [max(p, 0) for p in padding], mode, value)
    for i in range(len(padding) // 2):
        dim, size = x.dim() - 1 - i, x.shape[-1 - i]
        wanted = range(-padding[2 * i], size + padding[2 * i + 1])
        x = pick(x, dim, [_outside(mode, k, size) for k in wanted])
    return x


def _outside(mode: str, index: int, size: int) -> int:
    """Which element of ``size`` stands at ``index``, which may lie outside."""
    if mode == "circular":
        return index % size
    if mode == "reflect":
        index = abs(index)
        return index if index < size else 2 * (size - 1) - index
    return min(max(index, 0), size - 1)


def pick(x: Tensor, dim: int, indices: Sequence[int]) -> Tensor:
    """Elements of a dimension in any order, as a join of slices."""
    pieces, start = [], 0
    while start < len(indices):
        step = indices[start + 1] - indices[start] if start + 1 < len(indices) else 1
        end = start + 1
        while step > 0 and end < len(indices) and indices[end] - indices[end - 1] == step:
            end += 1
        pieces.append(aten.slice.Tensor(x, dim, indices[start], indices[end - 1] + 1, step if end - start > 1 else 1))
        start = end
    return torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0].clone()


def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        x = pick(x, dim % x.dim(), range(x.shape[dim])[::-1])
    return x


def _slice_scatter(
    x: Tensor, new: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """``new`` in place of a slice: a join of pieces of both."""
    count = x.shape[dim]
    places = range(count)[slice(start, end, step)]
    if step == 1:
        pieces = [x.narrow(dim, 0, places.start), new, x.narrow(dim, places.stop, count - places.stop)]
        return torch.cat([p for p in pieces if p.shape[dim]], dim)
    at = {place: i for i, place in enumerate(places)}
    return torch.cat([(new if i in at else x).narrow(dim, at.get(i, i), 1) for i in range(count)], dim)


def _select_scatter(x: Tensor, new: Tensor, dim: int, index: int) -> Tensor:
    start = index % x.shape[dim]
    return _slice_scatter(x, new.unsqueeze(dim), dim, start, start + 1)


def _copy(x: Tensor, source: Tensor, *_: Any) -> Tensor:
    return source.expand(x.shape).clone()


def _index_put(x: Tensor, indices: Sequence[Tensor | None], value: Tensor, accumulate: bool = False) -> Any:
    """Assignment of one number where a mask holds."""
    mask = indices[0] if len(indices) == 1 else None
    if mask is None or mask.dtype != torch.bool or mask.shape != x.shape or value.numel() != 1 or accumulate:
        return NotImplemented
    return torch.where(mask, value, x)


def _upsample(mode: str) -> Definition:
    def definition(x: Tensor, size: Any, *args: Any, **kwargs: Any) -> Tensor:
        rest = [*args, *kwargs.values()]
        corners = bool(next((a for a in rest if isinstance(a, bool)), False))
        scales = next((a for a in rest if isinstance(a, (list, tuple))), None)
        options: dict[str, Any] = {"align_corners": corners} if mode == "bilinear" else {}
        if size is not None:
            return functional.interpolate(x.unsqueeze(2), (1, size[0]), None, mode, **options).squeeze(2)
        assert scales is not None
        return functional.interpolate(x.unsqueeze(2), None, (1.0, scales[0]), mode, **options).squeeze(2)

    return definition


def _conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> Tensor:
    y = functional.conv_transpose2d(
        x.unsqueeze(2), weight.unsqueeze(2), bias, (1, stride[0]), (0, padding[0]), (0, output_padding[0]), groups,
        (1, dilation[0]),
    )  # fmt: skip
    return y.squeeze(2)


def _adaptive_max_pool2d(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor]:
    """A maximum over windows, without its positions; over rows and then columns where windows are not equal."""
    wanted = output_size if len(output_size) == 2 else (output_size[0],) * 2
    if not any(n % m for n, m in zip(x.shape[-2:], wanted, strict=True)):
        kernel = [n // m for n, m in zip(x.shape[-2:], wanted, strict=True)]
        return (functional.max_pool2d(x, kernel, kernel),)
    for dim, count in zip((-2, -1), wanted, strict=True):
        size = x.shape[dim]
        windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        x = torch.cat([x.narrow(dim, first, end - first).amax(dim, keepdim=True) for first, end in windows], dim)
    return (x,)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    return NotImplemented if beta == 1 else functional.softplus(x * beta, 1.0, threshold) * (1 / beta)


DEFINITIONS: dict[object, Definition] = {
    aten.add.Tensor: _weighted(torch.add),
    aten.add.Scalar: _weighted(torch.add),
    aten.sub.Tensor: _weighted(torch.sub),
    aten.sub.Scalar: _weighted(torch.sub),
    aten.rsub.Tensor: lambda a, b, alpha=1: b - _times(a, alpha),
    aten.rsub.Scalar: lambda a, b, alpha=1: a * -float(alpha) + b,
    aten.baddbmm.default: _product_and_sum(torch.bmm),
    aten.addmm.default: _product_and_sum(torch.matmul),
    aten.matmul.default: _matmul,
    aten.mv.default: _matmul,
    aten.dot.default: _matmul,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Scalar: _exponential,
    aten.exp2.default: lambda x: _exponential(2.0, x),
    aten.clamp.Tensor: _clamp,
    aten.clamp_min.Tensor: torch.maximum,
    aten.clamp_max.Tensor: torch.minimum,
    aten.div.Tensor_mode: _divide,
    aten.div.Scalar_mode: _divide,
    aten.ceil.default: lambda x: -torch.floor(-x),
    aten.trunc.default: _truncate,
    aten.argmin.default: _argmin,
    aten.var.correction: _variance(False, False),
    aten.var.dim: _variance(False, False),
    aten.std.correction: _variance(True, False),
    aten.std.dim: _variance(True, False),
    aten.var_mean.correction: _variance(False, True),
    aten.var_mean.dim: _variance(False, True),
    aten.square.default: lambda x: x * x,
    aten.expm1.default: lambda x: torch.exp(x) - 1.0,
    aten.log1p.default: lambda x: torch.log(x + 1.0),
    aten.log2.default: lambda x: torch.log(x) * (1 / math.log(2)),
    aten.log10.default: lambda x: torch.log(x) * (1 / math.log(10)),
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.threshold.default: lambda x, threshold, value: torch.where(x <= threshold, value, x),
    aten.hardshrink.default: lambda x, lambd=0.5: torch.where(x.abs() <= lambd, 0.0, x),
    aten.nan_to_num.default: _nan_to_num,
    aten.cosine_similarity.default: _cosine_similarity,
    aten.elu.default: _elu,
    aten.softplus.default: _softplus,
    aten.prelu.default: _prelu,
    aten._prelu_kernel.default: _prelu,
    aten.sign.default: _sign,
    aten.isnan.default: lambda x: x != x,
    aten.isfinite.default: lambda x: x.abs() < math.inf,
    aten.isinf.default: lambda x: x.abs() == math.inf,
    aten.any.dim: _any,
    aten.any.default: _any,
    aten.all.dim: _all,
    aten.all.default: _all,
    aten.max.dim: _max,
    aten.min.dim: _min,
    aten.instance_norm.default: _instance_norm,
    aten.pad.default: _pad,
    aten.flip.default: _flip,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.copy.default: _copy,
    aten.index_put.default: _index_put,
    aten.upsample_linear1d.vec: _upsample("bilinear"),
    aten.upsample_nearest1d.vec: _upsample("nearest"),
    aten.conv_transpose1d.default: _conv_transpose1d,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
    aten.max_pool2d_with_indices.default: lambda *args: (torch.ops.aten.max_pool2d.default(*args),),
}
"""Operators in operators of the machine; NotImplemented where the call is one that the machine has."""
