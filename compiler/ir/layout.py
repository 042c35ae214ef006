"""Where elements lie: a rank-4 tensor is stored NHWC, any other row-major; movement as loops over strides.

Strides and offsets are in elements. All is arithmetic on tuples; nothing touches data.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from compiler.ir.kernel import Shape4

Shape = tuple[int, ...]


def storage_order(rank: int) -> tuple[int, ...]:
    """Logical dimensions from the slowest to the fastest in memory."""
    return (0, 2, 3, 1) if rank == 4 else tuple(range(rank))


def channel_axis(rank: int) -> int:
    """The logical dimension that lies innermost."""
    return storage_order(rank)[-1]


def nhwc(shape: Shape) -> Shape4:
    """A tensor as (n, h, w, c): rank 4 NCHW, [B, T, C] as (B, 1, T, C), [M, C] as (1, 1, M, C), [C] as (1, 1, 1, C)."""
    if len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    if len(shape) == 3:
        return (shape[0], 1, shape[1], shape[2])
    padded = (1, 1, *shape)
    return (1, 1, prod(padded[:-1]), padded[-1])


@dataclass(frozen=True)
class Factor:
    """A loop of ``size`` steps, ``stride`` elements apart."""

    size: int
    stride: int


@dataclass(frozen=True)
class Walk:
    """A tensor whose logical dimensions are nests of loops over some other tensor's memory."""

    dims: tuple[tuple[Factor, ...], ...]

    @classmethod
    def stored(cls, shape: Shape) -> Walk:
        """The walk over a tensor in its own storage layout."""
        strides = storage_strides(shape)
        return cls(tuple((Factor(n, s),) for n, s in zip(shape, strides, strict=True)))

    def permuted(self, order: tuple[int, ...]) -> Walk:
        """Dimension i of the result is dimension ``order[i]``."""
        return Walk(tuple(self.dims[i] for i in order))

    def reshaped(self, shape: Shape) -> Walk | None:
        """The same elements, row-major, as ``shape``; None when a dimension would need uneven steps."""
        queue = [f for dim in self.dims for f in dim if f.size != 1]
        dims: list[tuple[Factor, ...]] = []
        for size in shape:
            dim: list[Factor] = []
            left = size
            while left > 1:
                factor = queue.pop(0)
                if left % factor.size == 0:
                    dim.append(factor)
                    left //= factor.size
                elif factor.size % left == 0:
                    inner = factor.size // left
                    dim.append(Factor(left, factor.stride * inner))
                    queue.insert(0, Factor(inner, factor.stride))
                    left = 1
                else:
                    return None
            dims.append(tuple(dim))
        return Walk(tuple(dims))

    def loops(self) -> tuple[tuple[int, int, int], ...]:
        """(size, input stride, output stride) in the storage order of the result, neighbours merged."""
        shape = tuple(prod(f.size for f in dim) for dim in self.dims)
        strides = storage_strides(shape)
        merged: list[tuple[int, int, int]] = []
        for axis in storage_order(len(shape)):
            step = shape[axis] * strides[axis]
            for factor in self.dims[axis]:
                if factor.size == 1:
                    continue
                step //= factor.size
                merged.append((factor.size, factor.stride, step))
                if len(merged) > 1 and _contiguous(merged[-2], merged[-1]):
                    outer, inner = merged[-2:]
                    merged[-2:] = [(outer[0] * inner[0], inner[1], inner[2])]
        return tuple(merged) or ((1, 1, 1),)

    @property
    def is_view(self) -> bool:
        """Whether no element moves."""
        return all(source == target for _, source, target in self.loops())


def _contiguous(outer: tuple[int, int, int], inner: tuple[int, int, int]) -> bool:
    return outer[1] == inner[0] * inner[1] and outer[2] == inner[0] * inner[2]


def storage_strides(shape: Shape) -> tuple[int, ...]:
    """Element stride of each logical dimension in the storage layout."""
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(storage_order(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)
