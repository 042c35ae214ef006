"""Pools of binary32, which the window unit does not have: slices and what joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from quantizer.definitions import pick
from quantizer.recipe import Recipe

aten = torch.ops.aten
Tensor = torch.Tensor


def definitions(recipe: Recipe) -> Mapping[object, Callable[..., Any]]:
    """The pools that ``recipe`` needs in other operators."""
    return _POOLS if recipe.is_float else {}


def _max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | tuple[()] = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Tensor:
    """Along each axis the maxima of as many tensors as the window has taps; a tap outside repeats one inside."""
    out = functional.max_pool2d(x, kernel, stride or None, padding, dilation, ceil).shape
    for axis in (-2, -1):
        k, s, p, d = (_at(v, axis) for v in (kernel, stride or kernel, padding, dilation))
        size, y = x.shape[axis], None
        for tap in range(k):
            places = [_inside(i * s - p, tap, k, d, size) for i in range(out[axis])]
            part = pick(x, x.dim() + axis, places)
            y = part if y is None else torch.maximum(y, part)
        assert y is not None
        x = y
    return x


def _at(value: Any, axis: int) -> int:
    return value if isinstance(value, int) else value[axis] if len(value) == 2 else value[0]


def _inside(start: int, tap: int, taps: int, step: int, size: int) -> int:
    """Where a tap of the window at ``start`` reads: its own place, or the window's first inside."""
    own = start + tap * step
    if 0 <= own < size:
        return own
    return next(start + t * step for t in range(taps) if 0 <= start + t * step < size)


def _avg_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | tuple[()] = (),
    padding: Any = 0,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    """The sum over a row of taps, times a constant per window; where one number divides all, the machine's own."""
    if not ceil and (count_include_pad or divisor or not any(_at(padding, axis) for axis in (-2, -1))):
        return NotImplemented
    options = (kernel, stride or None, padding, ceil, count_include_pad, divisor)
    ones = torch.ones((1, 1, *x.shape[-2:]))
    factor = functional.avg_pool2d(ones, kernel, stride or None, padding, ceil, True, 1)  # taps inside
    weights = functional.avg_pool2d(ones, *options) / factor
    (kh, sh, ph), (kw, sw, pw) = ([_at(v, a) for v in (kernel, stride or kernel, padding)] for a in (-2, -1))
    rows, columns = factor.shape[-2:]
    below = max(0, (rows - 1) * sh + kh - x.shape[-2] - ph)
    beside = max(0, (columns - 1) * sw + kw - x.shape[-1] - pw)
    x = functional.pad(x, (pw, beside, ph, below))
    taps = [
        x[..., i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return torch.stack(taps, -1).sum(-1) * weights


def _adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Any:
    """A mean, or an average pool where the windows are even."""
    wanted = [n if m is None else m for n, m in zip(x.shape[-2:], output_size, strict=True)]
    if wanted == [1, 1]:
        return x.mean((-2, -1), keepdim=True)
    kernel = [n // m for n, m in zip(x.shape[-2:], wanted, strict=True)]
    if any(n % m for n, m in zip(x.shape[-2:], wanted, strict=True)):
        return NotImplemented
    return functional.avg_pool2d(x, kernel, kernel)


_POOLS: dict[object, Callable[..., Any]] = {
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
}
