"""Shape arithmetic of tensors: windows, broadcasting, padding. Pure functions on tuples of ints."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]


def window_size(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Number of windows along one axis; below 1 when the window is larger than the padded input."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def windows_reach(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> bool:
    """Whether every window along one axis has a tap inside [0, size)."""
    starts = range(-before, window_size(size, kernel, stride, dilation, before, after) * stride - before, stride)
    return all(any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)


def window_sizes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
) -> Shape:
    """Output (h, w) of a 2-D window; ``padding`` is (top, left, bottom, right).

    Raises ValueError when a window does not fit or a number is out of its range.
    """
    if min(*kernel, *strides, *dilation) < 1:
        raise ValueError(
            f"kernel {tuple(kernel)}, strides {tuple(strides)} and dilation {tuple(dilation)} must be >= 1"
        )
    if min(padding) < 0:
        raise ValueError(f"padding must not be negative, got {tuple(padding)}")
    out = tuple(window_size(sizes[i], kernel[i], strides[i], dilation[i], padding[i], padding[i + 2]) for i in (0, 1))
    if min(out) < 1:
        raise ValueError(
            f"window {tuple(kernel)} with dilation {tuple(dilation)} is larger than input {tuple(sizes)} "
            f"padded by {tuple(padding)}"
        )
    return out


def ceil_padding(size: int, kernel: int, stride: int, dilation: int, pad: int) -> int:
    """Padding after the end that makes the floor formula give PyTorch's ``ceil_mode`` number of windows.

    PyTorch drops a last window that would start in the padding after the end.
    """
    extent = dilation * (kernel - 1) + 1
    count = -(-(size + 2 * pad - extent) // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    return max(pad, (count - 1) * stride + extent - size - pad)


def broadcast(*shapes: Shape) -> Shape:
    """Shape of numpy broadcasting; ValueError when the shapes do not agree."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    out: list[int] = []
    for sizes in zip(*aligned, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise ValueError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def resolve(shape: Sequence[int], count: int) -> Shape:
    """Replace a single -1 so that the shape has ``count`` elements."""
    known = prod(size for size in shape if size != -1)
    return tuple(count // known if size == -1 and known else size for size in shape)


def padded(shape: Shape, padding: Sequence[int]) -> Shape:
    """Shape after adding ``padding`` = (low 0, high 0, low 1, high 1, ...)."""
    return tuple(size + padding[2 * i] + padding[2 * i + 1] for i, size in enumerate(shape))
