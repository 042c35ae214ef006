"""Builders of operators that only move values: each is a chain of reshape, permute, slice and expand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from compiler.dialects import qnn
from compiler.dialects.qnn_base import shape_of
from compiler.frontend.build import Graph, describe
from compiler.frontend.qdq import Codes, Constant, Float, Mask, Quantized, Refusal, Value, Weight
from compiler.ir import shapes

Pair = int | Sequence[int]


def pair(value: Pair) -> tuple[int, int]:
    """An int or a list of one or two, as two numbers."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) not in (1, 2):
        raise Refusal(f"expected one or two numbers, got {values}", "use the 2-D form of the layer")
    return values[0], values[-1]


def _move(g: Graph, x: Value, op: Callable[[Any], Any], constant: Callable[[Any], Any]) -> Value:
    """Apply a movement to the codes of a quantized tensor, to floats otherwise; to constants at once."""
    match x:
        case Constant(array):
            return Constant(np.asarray(constant(array), order="C"))
        case Weight() if x.axis is None:
            return Weight(np.asarray(constant(x.codes), order="C"), x.scale, x.zero, None, x.width)
        case Weight():
            return Constant(np.asarray(constant(x.dequantized()), order="C"))
        case Quantized(ssa):
            return Quantized(g.add(op(ssa)))
        case Codes(ssa, unsigned):
            return Codes(g.add(op(ssa)), unsigned)
        case Mask(ssa):
            return Mask(g.add(op(ssa)))
        case Float(ssa):
            return Float(g.add(op(ssa)))
        case _:
            raise Refusal(f"cannot move {describe(x)}", "move the tensor before, or behind its dequantize")


def size(x: Any) -> tuple[int, ...]:
    """Shape of a frontend value."""
    match x:
        case Constant(array):
            return array.shape
        case Weight():
            return x.codes.shape
        case _:
            return shape_of(x.ssa)


def reshape(g: Graph, x: Value, shape: Sequence[int]) -> Value:
    """``aten.reshape``, ``view`` and ``_unsafe_view``."""
    target = shapes.resolve(shape, prod(size(x)))
    if target == size(x):
        return x
    return _move(g, x, lambda value: qnn.ReshapeOp(value, target), lambda array: array.reshape(target))


def flatten(g: Graph, x: Value, start: int = 0, end: int = -1) -> Value:
    """``aten.flatten``: dimensions ``start`` to ``end`` become one."""
    shape = size(x)
    if not shape:
        return reshape(g, x, (1,))
    start, end = start % len(shape), end % len(shape)
    return reshape(g, x, (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :]))


def unsqueeze(g: Graph, x: Value, dim: int) -> Value:
    """Insert a dimension of size 1."""
    shape = list(size(x))
    shape.insert(dim % (len(shape) + 1), 1)
    return reshape(g, x, shape)


def squeeze(g: Graph, x: Value, dims: Pair | None = None) -> Value:
    """Drop dimensions of size 1: all, or those named."""
    shape = size(x)
    named = range(len(shape)) if dims is None else (dims,) if isinstance(dims, int) else dims
    drop = {dim % len(shape) for dim in named}
    return reshape(g, x, [s for i, s in enumerate(shape) if s != 1 or i not in drop])


def permute(g: Graph, x: Value, dims: Sequence[int]) -> Value:
    """``aten.permute``."""
    order = [dim % len(size(x)) for dim in dims]
    if order == list(range(len(order))):
        return x
    if isinstance(x, Weight):
        return x.permute(order)
    return _move(g, x, lambda value: qnn.PermuteOp(value, order), lambda array: array.transpose(order))


def transpose(g: Graph, x: Value, a: int, b: int) -> Value:
    """Exchange two dimensions."""
    order = list(range(len(size(x))))
    order[a], order[b] = order[b], order[a]
    return permute(g, x, order)


def matrix_transpose(g: Graph, x: Value) -> Value:
    """``aten.t``."""
    return permute(g, x, range(len(size(x)))[::-1])


def reshape_as(g: Graph, x: Value, other: Value) -> Value:
    """``aten.reshape_as`` and ``view_as``."""
    return reshape(g, x, size(other))


def unflatten(g: Graph, x: Value, dim: int, sizes: Sequence[int]) -> Value:
    """``aten.unflatten``: one dimension becomes several."""
    shape = size(x)
    dim %= len(shape)
    return reshape(g, x, (*shape[:dim], *shapes.resolve(sizes, shape[dim]), *shape[dim + 1 :]))


def movedim(g: Graph, x: Value, source: Pair, target: Pair) -> Value:
    """``aten.movedim``: dimensions go to new positions, the others keep their order."""
    rank = len(size(x))
    sources, targets = ([d % rank for d in ((v,) if isinstance(v, int) else v)] for v in (source, target))
    rest = iter(d for d in range(rank) if d not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return permute(g, x, [placed[i] if i in placed else next(rest) for i in range(rank)])


def cut(g: Graph, x: Value, dim: int, start: int, count: int, step: int = 1) -> Value:
    """``count`` indices of ``dim`` from ``start`` on, ``step`` apart."""
    shape = size(x)
    dim %= len(shape)
    if count < 1:
        raise Refusal(f"dimension {dim} of {list(shape)} would be empty", "leave the empty tensor out of the model")
    if (start, count) == (0, shape[dim]):
        return x
    starts, sizes, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[dim], sizes[dim], steps[dim] = start, count, step
    index = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, steps, strict=True))
    if isinstance(x, Weight) and x.axis is not None:
        own = index[x.axis]
        return Weight(np.ascontiguousarray(x.codes[index]), x.scale[own], x.zero[own], x.axis, x.width)
    return _move(g, x, lambda value: qnn.SliceOp(value, starts, sizes, steps), lambda array: array[index])


def slice_tensor(
    g: Graph, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    """``aten.slice``."""
    indices = range(size(x)[dim])[slice(start, end, step)]
    return cut(g, x, dim, indices.start, len(indices), step)


def narrow(g: Graph, x: Value, dim: int, start: int, length: int) -> Value:
    """``aten.narrow``."""
    return cut(g, x, dim, start % max(size(x)[dim], 1) if length else 0, length)


def select(g: Graph, x: Value, dim: int, index: int) -> Value:
    """``aten.select``: one index of a dimension, which goes."""
    shape = size(x)
    dim %= len(shape)
    one = cut(g, x, dim, index % shape[dim], 1)
    return reshape(g, one, (*shape[:dim], *shape[dim + 1 :]))


def split_with_sizes(g: Graph, x: Value, sizes: Sequence[int], dim: int = 0) -> tuple[Value, ...]:
    """``aten.split_with_sizes``."""
    starts = accumulate(sizes, initial=0)
    return tuple(cut(g, x, dim, start, count) for start, count in zip(starts, sizes, strict=False))


def split(g: Graph, x: Value, step: int, dim: int = 0) -> tuple[Value, ...]:
    """``aten.split``: pieces of ``step``, the last may be shorter."""
    count = size(x)[dim]
    return split_with_sizes(g, x, [min(step, count - start) for start in range(0, count, step)], dim)


def chunk(g: Graph, x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    """``aten.chunk``: at most ``chunks`` pieces."""
    return split(g, x, -(-size(x)[dim] // chunks), dim)


def unbind(g: Graph, x: Value, dim: int = 0) -> tuple[Value, ...]:
    """``aten.unbind``: every index of a dimension."""
    return tuple(select(g, x, dim, i) for i in range(size(x)[dim]))


def expand(g: Graph, x: Value, sizes: Sequence[int], *, implicit: bool = False) -> Value:
    """``aten.expand``; -1 keeps a size."""
    shape = size(x)
    given = (1,) * (len(sizes) - len(shape)) + shape
    target = tuple(own if n == -1 else n for own, n in zip(given, sizes, strict=True))
    if target == shape:
        return x
    return _move(g, x, lambda value: qnn.ExpandOp(value, target), lambda array: np.broadcast_to(array, target))


def expand_as(g: Graph, x: Value, other: Value) -> Value:
    """``aten.expand_as``."""
    return expand(g, x, size(other))


def repeat(g: Graph, x: Value, repeats: Sequence[int]) -> Value:
    """``aten.repeat`` and ``tile``: the whole tensor again and again along each dimension."""
    shape = (1,) * (len(repeats) - len(size(x))) + size(x)
    repeats = (1,) * (len(shape) - len(repeats)) + tuple(repeats)
    pairs = list(zip(repeats, shape, strict=True))
    apart = reshape(g, x, [n for _, own in pairs for n in (1, own)])
    again = expand(g, apart, [n for count, own in pairs for n in (count, own)])
    return reshape(g, again, [count * own for count, own in pairs])


def repeat_interleave(
    g: Graph, x: Value, repeats: int, dim: int | None = None, output_size: int | None = None
) -> Value:
    """``aten.repeat_interleave``: every index several times."""
    if dim is None:
        x, dim = reshape(g, x, (prod(size(x)),)), 0
    shape = size(x)
    dim %= len(shape)
    apart = reshape(g, x, (*shape[: dim + 1], 1, *shape[dim + 1 :]))
    again = expand(g, apart, (*shape[: dim + 1], repeats, *shape[dim + 1 :]))
    return reshape(g, again, (*shape[:dim], shape[dim] * repeats, *shape[dim + 1 :]))


def flip(g: Graph, x: Value, dims: Sequence[int]) -> Value:
    """``aten.flip`` of a constant."""
    if isinstance(x, Constant):
        return Constant(np.ascontiguousarray(np.flip(x.array, tuple(dims))))
    raise Refusal("a tensor cannot be reversed: memory is walked forwards", "reverse the weights that read it instead")


def index(g: Graph, x: Value, indices: Sequence[Value | None]) -> Value:
    """``aten.index`` of a constant by constants."""
    found = [i.array if isinstance(i, Constant) else slice(None) if i is None else None for i in indices]
    if isinstance(x, Constant) and not any(i is None for i in found):
        return Constant(np.ascontiguousarray(x.array[tuple(found)]))
    raise Refusal(f"only constants can be indexed by tensors, got {describe(x)}", "use slices of a fixed position")


def pixel_shuffle(g: Graph, x: Value, factor: int) -> Value:
    """``aten.pixel_shuffle``: channels (C, i, j) become pixels."""
    *lead, c, h, w = size(x)
    k = len(lead)
    apart = reshape(g, x, (*lead, c // factor**2, factor, factor, h, w))
    order = [*range(k), *(k + d for d in (0, 3, 1, 4, 2))]
    return reshape(g, permute(g, apart, order), (*lead, c // factor**2, h * factor, w * factor))


def pixel_unshuffle(g: Graph, x: Value, factor: int) -> Value:
    """``aten.pixel_unshuffle``: pixels become channels (C, i, j)."""
    *lead, c, h, w = size(x)
    k = len(lead)
    apart = reshape(g, x, (*lead, c, h // factor, factor, w // factor, factor))
    order = [*range(k), *(k + d for d in (0, 2, 4, 1, 3))]
    return reshape(g, permute(g, apart, order), (*lead, c * factor**2, h // factor, w // factor))


def channel_shuffle(g: Graph, x: Value, groups: int) -> Value:
    """``aten.channel_shuffle``."""
    n, c, *rest = size(x)
    apart = reshape(g, x, (n, groups, c // groups, *rest))
    return reshape(g, transpose(g, apart, 1, 2), (n, c, *rest))


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten.reshape.default": reshape,
    "aten.view.default": reshape,
    "aten._unsafe_view.default": reshape,
    "aten.reshape_as.default": reshape_as,
    "aten.view_as.default": reshape_as,
    "aten.flatten.using_ints": flatten,
    "aten.unflatten.int": unflatten,
    "aten.unsqueeze.default": unsqueeze,
    "aten.squeeze.default": squeeze,
    "aten.squeeze.dim": squeeze,
    "aten.squeeze.dims": squeeze,
    "aten.permute.default": permute,
    "aten.transpose.int": transpose,
    "aten.t.default": matrix_transpose,
    "aten.movedim.int": movedim,
    "aten.movedim.intlist": movedim,
    "aten.slice.Tensor": slice_tensor,
    "aten.narrow.default": narrow,
    "aten.select.int": select,
    "aten.split.Tensor": split,
    "aten.split.sizes": split_with_sizes,
    "aten.split_with_sizes.default": split_with_sizes,
    "aten.chunk.default": chunk,
    "aten.unbind.int": unbind,
    "aten.expand.default": expand,
    "aten.expand_as.default": expand_as,
    "aten.repeat.default": repeat,
    "aten.tile.default": repeat,
    "aten.repeat_interleave.self_int": repeat_interleave,
    "aten.flip.default": flip,
    "aten.index.Tensor": index,
    "aten.pixel_shuffle.default": pixel_shuffle,
    "aten.pixel_unshuffle.default": pixel_unshuffle,
    "aten.channel_shuffle.default": channel_shuffle,
}
"""Builders by operator."""
