"""Pools and means: maxima of codes, and exact integer sums times two rounded factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch.nn import functional

from isa import numerics
from isa.errors import UnsupportedError
from quantizer.reference.matrix import FLOAT32_EXACT, pair
from quantizer.reference.values import Lazy, as_float, as_lazy, is_float

Pair = tuple[int, int]


def max_pool2d(
    x: Lazy | torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = 0,  # type: ignore[assignment]
    dilation: Sequence[int] = 1,  # type: ignore[assignment]
    ceil_mode: bool = False,
) -> Lazy | torch.Tensor:
    """Maximum over windows; taps outside are left out. Codes are pooled as codes."""
    step = pair(stride) if stride != () and stride != [] else pair(kernel)
    windows = pair(kernel), step, pair(padding), pair(dilation), ceil_mode
    if isinstance(x, Lazy):
        return x.moved(functional.max_pool2d(x.codes.float(), *windows).to(x.codes.dtype))
    y = functional.max_pool2d(x, *windows)
    # The maximum of both zeros is +0, which PyTorch leaves to the order of the taps.
    positive = functional.max_pool2d(((x == 0) & ~x.signbit()).float(), *windows)
    return torch.where(y == 0, torch.where(positive > 0, 0.0, -0.0), y)


def max_pool2d_tuple(*args: Any, **kwargs: Any) -> tuple[Lazy | torch.Tensor]:
    """``max_pool2d_with_indices``, of which only the values exist."""
    return (max_pool2d(*args, **kwargs),)


def avg_pool2d(
    x: object,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = 0,  # type: ignore[assignment]
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """(fp32(sum(q - z)) * fp32(s)) * fp32(1/count), with PyTorch's count for every window.

    Of binary32 the taps of a window are added to 0 row by row, every step rounded; all windows have one count.
    """
    window, frame = pair(kernel), pair(padding)
    step = pair(stride) if stride != () and stride != [] else window
    if is_float(x) and not ceil_mode and (count_include_pad or not any(frame) or divisor_override):
        return _avg_pool_f32(as_float(x), window, step, frame, divisor_override or prod(window))
    x = as_lazy(x, "avg_pool2d")
    total = functional.avg_pool2d(_centred(x, prod(window)), window, step, frame, ceil_mode, True, divisor_override=1)
    if divisor_override is not None:
        return numerics.sum_to_mean(total, x.scale, divisor_override)
    heights, widths = (
        _counts(total.shape[i], x.codes.shape[i], window[i], step[i], frame[i], count_include_pad) for i in (-2, -1)
    )
    return _scaled(total, x.scale, heights, widths)


def _avg_pool_f32(x: torch.Tensor, window: Pair, step: Pair, frame: Pair, count: int) -> torch.Tensor:
    padded = functional.pad(x, (frame[1], frame[1], frame[0], frame[0]))
    height, width = ((n - k) // s + 1 for n, k, s in zip(padded.shape[-2:], window, step, strict=True))
    total = x.new_zeros(())
    for i, j in product(range(window[0]), range(window[1])):
        tap = padded[..., i : i + step[0] * (height - 1) + 1 : step[0], j : j + step[1] * (width - 1) + 1 : step[1]]
        total = total + tap
    return total * numerics.fp32(1.0 / count)


def adaptive_avg_pool2d(x: object, output_size: int | Sequence[int | None]) -> torch.Tensor:
    """Mean over windows [floor(i*H/h), ceil((i+1)*H/h)) of exact integers."""
    if is_float(x):
        raise UnsupportedError(
            "windows of several sizes are averaged of codes alone: give an output size that divides the input's, or "
            "quantize the operand"
        )
    x = as_lazy(x, "adaptive_avg_pool2d")
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    height, width = x.codes.shape[-2:]
    rows, columns = _windows(height, sizes[0] or height), _windows(width, sizes[1] or width)
    values = _centred(x, height * width)
    sums = torch.stack([values[..., a:b, :].sum(-2) for a, b in rows], -2)
    total = torch.stack([sums[..., a:b].sum(-1) for a, b in columns], -1)
    return _scaled(total, x.scale, [b - a for a, b in rows], [b - a for a, b in columns])


def mean(
    x: object, dim: int | Sequence[int] | None = None, keepdim: bool = False, dtype: object = None
) -> torch.Tensor:
    """Mean over ``dim`` (all, if None or empty) from the exact integer sum."""
    if isinstance(x, torch.Tensor):
        rows, shape = _rows(x, dim, keepdim)
        return numerics.mean_rows(rows).view(shape)
    x = as_lazy(x, "mean")
    axes = [dim] if isinstance(dim, int) else list(dim or range(x.codes.dim()))
    count = prod(x.codes.shape[a] for a in axes)
    return numerics.sum_to_mean(_centred(x, count).sum(axes, keepdim=keepdim), x.scale, count)


def total(
    x: object, dim: int | Sequence[int] | None = None, keepdim: bool = False, dtype: object = None
) -> torch.Tensor:
    """Sum over ``dim`` (all, if None or empty): exact for codes, of 40 bits below the largest for binary32."""
    if isinstance(x, torch.Tensor):
        rows, shape = _rows(x.float() if x.dtype is torch.bool else x, dim, keepdim)
        return numerics.sum_rows(rows).view(shape)
    x = as_lazy(x, "sum")
    rows, shape = _rows((x.codes.to(torch.int32) - x.zero).double(), dim, keepdim)
    return (rows.sum(-1).float() * numerics.fp32(x.scale)).view(shape)


def _rows(x: torch.Tensor, dim: int | Sequence[int] | None, keepdim: bool) -> tuple[torch.Tensor, tuple[int, ...]]:
    """What is reduced as one last axis, and the shape of the result."""
    axes = [dim] if isinstance(dim, int) else list(dim or range(x.dim()))
    axes = sorted(a % x.dim() for a in axes)
    kept = [a for a in range(x.dim()) if a not in axes]
    shape = [1 if a in axes else x.shape[a] for a in range(x.dim()) if keepdim or a in kept]
    return x.permute(*kept, *axes).reshape(prod(x.shape[a] for a in kept), -1), tuple(shape)


def amax(x: object, dim: int | Sequence[int] = (), keepdim: bool = False) -> Lazy | torch.Tensor:
    """Maximum over ``dim``; codes give codes."""
    return _extreme(x, dim, keepdim, torch.amax, numerics.row_max)


def amin(x: object, dim: int | Sequence[int] = (), keepdim: bool = False) -> Lazy | torch.Tensor:
    """Minimum over ``dim``; codes give codes."""
    return _extreme(x, dim, keepdim, torch.amin, numerics.row_min)


def _extreme(
    x: object, dim: int | Sequence[int], keepdim: bool, codes: Callable[..., torch.Tensor], rows: Callable[..., Any]
) -> Lazy | torch.Tensor:
    if isinstance(x, Lazy):
        return x.moved(codes(x.codes, dim, keepdim))
    assert isinstance(x, torch.Tensor)
    flat, shape = _rows(x, dim, keepdim)
    return rows(flat).view(shape)


def argmax(x: object, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
    """Index of the first maximum, int32 as the chip stores it (PyTorch: int64)."""
    return (x.codes if isinstance(x, Lazy) else x).argmax(dim, keepdim).to(torch.int32)  # type: ignore[union-attr]


def upsample(kind: str) -> Callable[..., Lazy | torch.Tensor]:
    """Interpolation of [N, C, H, W]; nearest moves codes, bilinear gives binary32."""

    def operation(x: Lazy | torch.Tensor, *args: Any, **kwargs: Any) -> Lazy | torch.Tensor:
        height, width = (x.codes if isinstance(x, Lazy) else x).shape[-2:]
        size, corners, factors = _target(kind, (height, width), args, kwargs)
        pairs = map(_ratio, factors) if factors else zip((height, width), size, strict=True)
        places = [numerics.resize_scale(n, m, corners, kind == "nearest") for n, m in pairs]
        num, den, phase = zip(*places, strict=True)
        if kind == "nearest":
            values = x.codes if isinstance(x, Lazy) else x
            y = numerics.nearest(values.permute(0, 2, 3, 1), size, num, den, phase).permute(0, 3, 1, 2)
            return x.moved(y) if isinstance(x, Lazy) else y
        lazy = (x.zero, x.scale) if isinstance(x, Lazy) else (0, 0.0)
        values = x.codes if isinstance(x, Lazy) else x
        return numerics.bilinear(values.permute(0, 2, 3, 1), size, num, den, phase, *lazy).permute(0, 3, 1, 2)

    return operation


def _ratio(factor: float) -> tuple[int, int]:
    try:
        return numerics.resize_ratio(factor)
    except ValueError as error:
        raise UnsupportedError(f"scale factor {error}: give the output's size") from error


def _target(
    kind: str, shape: tuple[int, int], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[tuple[int, int], bool, Sequence[float]]:
    """Output size and ``align_corners`` of the overloads of upsample, and factors where they decide the positions."""
    size = args[0] if args else kwargs.get("output_size", kwargs.get("size"))
    rest = list(args[1:])
    corners = bool(rest.pop(0)) if kind == "bilinear" and rest else bool(kwargs.get("align_corners", False))
    scales = next((s for s in rest if isinstance(s, (list, tuple))), kwargs.get("scale_factors"))
    if size is None:
        assert scales is not None
        size = tuple(int(n * s) for n, s in zip(shape, scales, strict=True))
        if not corners and any(n * s != m for n, s, m in zip(shape, scales, size, strict=True)):
            return (size[0], size[1]), corners, scales
    return (size[0], size[1]), corners, ()


def _centred(x: Lazy, taps: int) -> torch.Tensor:
    """q - z in the narrowest float whose sums of ``taps`` values are exact."""
    dtype = torch.float32 if taps * x.span < FLOAT32_EXACT else torch.float64
    return x.codes.to(dtype).sub_(x.zero)


def _windows(size: int, pieces: int) -> list[tuple[int, int]]:
    return [(i * size // pieces, -(-(i + 1) * size // pieces)) for i in range(pieces)]


def _counts(outputs: int, size: int, kernel: int, step: int, pad: int, include_pad: bool) -> list[int]:
    """Taps of each window along one axis that count towards the divisor (aten's pool_size rule)."""
    low, high = (-pad, size + pad) if include_pad else (0, size)
    starts = [i * step - pad for i in range(outputs)]
    return [min(s + kernel, high) - max(s, low) for s in starts]


def _scaled(total: torch.Tensor, scale: float, heights: list[int], widths: list[int]) -> torch.Tensor:
    """(total * fp32(scale)) * fp32(1/(h*w)) for windows of ``heights`` x ``widths`` taps."""
    if len({*heights}) == len({*widths}) == 1:
        return numerics.sum_to_mean(total, scale, heights[0] * widths[0])
    inverse = torch.tensor([[1.0 / (h * w) for w in widths] for h in heights], dtype=torch.float64).float()
    return total.float().mul_(numerics.fp32(scale)).mul_(inverse)
