"""Exact integer work over windows of [N, C, H, W] arrays: convolution, window sums and maxima."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from compiler.ir.shapes import Shape, window_sizes
from isa import numerics

Ints = NDArray[Any]


@dataclass(frozen=True)
class Windows:
    """Kernel, strides, padding (top, left, bottom, right) and dilation of a 2-D window."""

    kernel: Shape
    strides: Shape = (1, 1)
    padding: Shape = (0, 0, 0, 0)
    dilation: Shape = (1, 1)

    def sizes(self, x: Ints) -> Shape:
        """Output (h, w) over x [N, C, H, W]."""
        return window_sizes(x.shape[2:], self.kernel, self.strides, self.dilation, self.padding)

    def pad(self, x: Ints, value: int) -> Ints:
        """x surrounded by ``value``."""
        top, left, bottom, right = self.padding
        if not any(self.padding):
            return x
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)

    def taps(self, x: Ints, sizes: Shape) -> Iterator[Ints]:
        """The padded x as each tap sees it, row by row: views [N, C, h, w]."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                top, left = i * self.dilation[0], j * self.dilation[1]
                yield x[
                    :,
                    :,
                    top : top + (sizes[0] - 1) * self.strides[0] + 1 : self.strides[0],
                    left : left + (sizes[1] - 1) * self.strides[1] + 1 : self.strides[1],
                ]

    def columns(self, x: Ints, sizes: Shape) -> Ints:
        """The padded x as a matrix [N*h*w, C*kh*kw]."""
        extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        view = sliding_window_view(x, extent, (2, 3))
        view = view[:, :, :: self.strides[0], :: self.strides[1], :: self.dilation[0], :: self.dilation[1]]
        view = view[:, :, : sizes[0], : sizes[1]]
        return view.transpose(0, 2, 3, 1, 4, 5).reshape(x.shape[0] * sizes[0] * sizes[1], -1)


def conv2d_exact(x: Ints, zero: int, w: Ints, zeros: Ints, windows: Windows, groups: int) -> Ints:
    """``sum((x - zero) * (w - zeros[o]))`` of codes of any width, exact in binary64, [N, h, w, O]."""
    sizes = windows.sizes(x)
    left = windows.pad(x.astype(np.float64) - zero, 0)
    right = w.reshape(w.shape[0], -1).astype(np.float64) - zeros.reshape(-1, 1)
    return _by_group(left, right, windows, sizes, groups, lambda a, b: a @ b.T)


def conv2d_f32(x: Ints, w: Ints, windows: Windows, groups: int) -> Ints:
    """Binary32 products summed one after the other in (c, kh, kw) order, [N, h, w, O]."""
    sizes = windows.sizes(x)
    return _by_group(windows.pad(x, 0), w.reshape(w.shape[0], -1), windows, sizes, groups, numerics.matmul_f32)


def _by_group(
    x: Ints, w: Ints, windows: Windows, sizes: Shape, groups: int, product: Callable[[Ints, Ints], Ints]
) -> Ints:
    c, o = x.shape[1] // groups, w.shape[0] // groups
    parts = [
        product(windows.columns(x[:, g * c : (g + 1) * c], sizes), w[g * o : (g + 1) * o]) for g in range(groups)
    ]
    return np.concatenate(parts, 1).reshape(x.shape[0], *sizes, w.shape[0])


def conv2d_i32(x: Ints, zero: int, w: Ints, windows: Windows, groups: int) -> Ints:
    """``sum((x - zero) * w)`` as int32 [N, h, w, O] for codes x [N, C, H, W] and w [O, C/g, kh, kw]."""
    sizes = windows.sizes(x)
    padded = windows.pad(x, zero)
    if w.shape[1] == 1 and groups > 1:
        return _depthwise_i32(padded, zero, w, windows, sizes)
    c, o = w.shape[1], w.shape[0] // groups
    parts = [
        numerics.matmul_zero(
            windows.columns(padded[:, g * c : (g + 1) * c], sizes), zero, w[g * o : (g + 1) * o].reshape(o, -1)
        )
        for g in range(groups)
    ]
    acc = parts[0] if groups == 1 else np.concatenate(parts, 1)
    return acc.reshape(x.shape[0], *sizes, w.shape[0])


def _depthwise_i32(padded: Ints, zero: int, w: Ints, windows: Windows, sizes: Shape) -> Ints:
    """One input channel per group: a multiply and an add per tap."""
    repeat = w.shape[0] // padded.shape[1]
    centred = np.repeat(padded, repeat, 1) if repeat > 1 else padded
    centred = centred.astype(np.int32) - zero
    acc = np.zeros((padded.shape[0], w.shape[0], *sizes), np.int32)
    for tap, weight in zip(windows.taps(centred, sizes), w.reshape(w.shape[0], -1).T, strict=True):
        acc += tap * weight.astype(np.int32)[:, None, None]
    return acc.transpose(0, 2, 3, 1)


def reduce_taps(x: Ints, windows: Windows, outside: int, function: Callable[[Ints, Ints], Ints]) -> Ints:
    """Fold ``function`` over the taps of every window; taps outside read ``outside``."""
    taps = windows.taps(windows.pad(x, outside), windows.sizes(x))
    result = next(taps).copy()
    for tap in taps:
        result = function(result, tap)
    return result


def tap_counts(size: Sequence[int], windows: Windows) -> Ints:
    """How many taps of each window lie inside an [H, W] input."""
    return reduce_taps(np.ones((1, 1, *size), np.int32), windows, 0, np.add)


def adaptive_ranges(size: int, count: int) -> list[tuple[int, int]]:
    """PyTorch's ``count`` windows over ``size`` elements."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
