"""Where elements lie: a rank-4 tensor is stored NHWC, any other row-major; movement as loops over strides.

Strides and offsets are in elements. All is arithmetic on tuples; nothing touches data.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """A loop of ``size`` steps, ``stride`` elements apart; stride 0 repeats one element."""

    size: int
    stride: int


@dataclass(frozen=True)
class Alias:
    """A tensor as single strides over (n, h, w, c) of another's elements, from element ``offset`` on."""

    offset: int
    strides: Shape4

    def packs(self, shape: Shape4) -> bool:
        """Whether (n, h, w, c) elements lie without gaps from the first on."""
        _, h, w, c = shape
        packed = (h * w * c, w * c, c, 1)
        return self.offset == 0 and all(
            n == 1 or s == p for n, s, p in zip(shape, self.strides, packed, strict=True)
        )


@dataclass(frozen=True)
class Walk:
    """A tensor whose logical dimensions are nests of loops over another tensor's memory, from element ``offset`` on."""

    dims: tuple[tuple[Factor, ...], ...]
    offset: int = 0

    @classmethod
    def stored(cls, shape: Shape, paired: bool = False) -> Walk:
        """The walk over a tensor in its own storage; ``paired`` rounds rows of channels up to even (4-bit codes)."""
        strides = storage_strides(shape, paired)
        return cls(tuple((Factor(n, s),) for n, s in zip(shape, strides, strict=True)))

    @classmethod
    def placed(cls, shape: Shape, alias: Alias) -> Walk:
        """The walk over a tensor that lies somewhere with these strides over (n, h, w, c)."""
        rank = len(shape)
        if rank == 4:
            n, h, w, c = alias.strides
            strides = (n, c, h, w)
        elif rank == 3:
            strides = (alias.strides[0], *alias.strides[2:])
        else:
            rows = [prod(shape[i + 1 : -1]) * alias.strides[2] for i in range(rank - 1)]
            strides = (*rows, *alias.strides[3:][: min(rank, 1)])
        return cls(tuple((Factor(n, s),) for n, s in zip(shape, strides, strict=True)), alias.offset)

    @property
    def shape(self) -> Shape:
        """Size of each dimension."""
        return tuple(prod(f.size for f in dim) for dim in self.dims)

    def permuted(self, order: Shape) -> Walk:
        """Dimension i of the result is dimension ``order[i]``."""
        return Walk(tuple(self.dims[i] for i in order), self.offset)

    def reshaped(self, shape: Shape) -> Walk | None:
        """The same elements, row-major, as ``shape``; None when a dimension would need uneven steps."""
        queue = list(_merged([f for dim in self.dims for f in dim]))
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
        return Walk(tuple(dims), self.offset)

    def sliced(self, starts: Shape, sizes: Shape, steps: Shape) -> Walk | None:
        """``sizes`` indices of each dimension from ``starts`` on, ``steps`` apart; None where no loops say them."""
        offset, dims = self.offset, list[tuple[Factor, ...]]()
        for dim, start, size, step in zip(self.dims, starts, sizes, steps, strict=True):
            if (cut := _cut(_merged(dim), start, size, step)) is None:
                return None
            offset += cut[0]
            dims.append(cut[1])
        return Walk(tuple(dims), offset)

    def expanded(self, shape: Shape) -> Walk:
        """Dimensions of one index repeated to those of ``shape``, which may have more in front."""
        dims = ((),) * (len(shape) - len(self.dims)) + self.dims
        sizes = (1,) * (len(shape) - len(self.dims)) + self.shape
        repeated = (d if n == size else (Factor(size, 0),) for d, n, size in zip(dims, sizes, shape, strict=True))
        return Walk(tuple(repeated), self.offset)

    def loops(self) -> tuple[tuple[int, int, int], ...]:
        """(size, input stride, output stride) in the storage order of the result, neighbours merged."""
        shape = self.shape
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
        """Whether no element moves, starting at the first."""
        return self.offset == 0 and all(source == target for _, source, target in self.loops())

    def strides(self) -> tuple[int, ...] | None:
        """The single stride of each dimension, 0 for one index; None when a dimension needs more than one loop."""
        found = [_merged(dim) for dim in self.dims]
        if any(len(factors) > 1 for factors in found):
            return None
        return tuple(factors[0].stride if factors else 0 for factors in found)

    def factors(self, axis: int) -> tuple[Factor, ...]:
        """The loops of a dimension from the outermost on: none of one step, neighbours that are one loop joined."""
        return _merged(self.dims[axis])

    def places(self) -> Alias | None:
        """The tensor as single strides over (n, h, w, c); None when it needs more."""
        rows = self.permuted(storage_order(len(self.dims))).reshaped(nhwc(self.shape))
        strides = None if rows is None else rows.strides()
        if strides is None:
            return None
        n, h, w, c = strides
        return Alias(self.offset, (n, h, w, c if self.dims and self.shape[channel_axis(len(self.dims))] > 1 else 1))

    def alias(self) -> Alias | None:
        """The same with channels next to each other."""
        found = self.places()
        return found if found is not None and found.strides[3] == 1 else None


def _merged(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Loops without those of one step, neighbours that are one loop joined."""
    merged: list[Factor] = []
    for factor in factors:
        if factor.size == 1:
            continue
        if merged and merged[-1].stride == factor.size * factor.stride:
            merged[-1] = Factor(merged[-1].size * factor.size, factor.stride)
        else:
            merged.append(factor)
    return tuple(merged)


def _cut(factors: Sequence[Factor], start: int, size: int, step: int) -> tuple[int, tuple[Factor, ...]] | None:
    """(offset, loops) of every ``step``-th of ``size`` indices of a nest; None where they are no nest."""
    if size == 1:
        step = 1
    if not factors:
        return 0, ()
    *outer, last = factors
    if not outer:
        return start * last.stride, (Factor(size, last.stride * step),)
    first, index = divmod(start, last.size)
    if index + (size - 1) * step < last.size:  # inside one step of the outer loops
        rest = _cut(outer, first, 1, 1)
        inner: tuple[Factor, ...] = (Factor(size, last.stride * step),)
    elif step % last.size == 0:
        rest, inner = _cut(outer, first, size, step // last.size), ()
    elif step == 1 and index == 0 and size % last.size == 0:
        rest, inner = _cut(outer, first, size // last.size, 1), (last,)
    else:
        return None
    return None if rest is None else (rest[0] + index * last.stride, (*rest[1], *inner))


def _contiguous(outer: tuple[int, int, int], inner: tuple[int, int, int]) -> bool:
    return outer[1] == inner[0] * inner[1] and outer[2] == inner[0] * inner[2]


def storage_strides(shape: Shape, paired: bool = False) -> tuple[int, ...]:
    """Element stride of each logical dimension in the storage layout; ``paired`` rounds rows of channels up to even."""
    strides = [0] * len(shape)
    step = 1
    for i, axis in enumerate(reversed(storage_order(len(shape)))):
        strides[axis] = step
        step *= shape[axis]
        if paired and i == 0:
            step += step % 2
    return tuple(strides)
