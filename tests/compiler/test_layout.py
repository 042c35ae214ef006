"""Walks against numpy: what a chain of moves gives is what its strides read."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from compiler.ir.layout import Alias, Factor, Walk, nhwc, storage_order
from tests.thinning import examples


def stored(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(storage_order(array.ndim)))


def read(walk: Walk, memory: np.ndarray) -> np.ndarray:
    """The elements that a walk visits in ``memory``, as its shape."""
    sizes = [f.size for dim in walk.dims for f in dim]
    strides = [f.stride * memory.itemsize for dim in walk.dims for f in dim]
    return as_strided(memory[walk.offset :], sizes, strides).reshape(walk.shape)


def aliased(alias: Alias, shape: tuple[int, ...], memory: np.ndarray) -> np.ndarray:
    strides = [s * memory.itemsize for s in alias.strides]
    return as_strided(memory[alias.offset :], nhwc(shape), strides)


@st.composite
def _reshape(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    left, sizes = prod(shape), list[int]()
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        sizes.append(size)
        left //= size
    return (*sizes, left)


@st.composite
def chains(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Walk | None]:
    """A tensor, a chain of moves of it by numpy, and by walks."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    source = np.arange(prod(shape), dtype=np.int32).reshape(shape)
    result, walk = source, Walk.stored(shape)
    for kind in draw(st.lists(st.sampled_from(["reshape", "permute", "slice", "expand"]), max_size=5)):
        if kind == "reshape":
            target = draw(_reshape(result.shape))
            result, walk = result.reshape(target), walk.reshaped(target)
        elif kind == "permute":
            order = tuple(draw(st.permutations(range(result.ndim))))
            result, walk = result.transpose(order), walk.permuted(order)
        elif kind == "slice":
            starts = tuple(draw(st.integers(0, n - 1)) for n in result.shape)
            steps = tuple(draw(st.integers(1, 3)) for _ in result.shape)
            sizes = tuple(
                draw(st.integers(1, 1 + (n - 1 - a) // s)) for n, a, s in zip(result.shape, starts, steps, strict=True)
            )
            index = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, sizes, steps, strict=True))
            result, walk = result[index], walk.sliced(starts, sizes, steps)
        elif result.ndim < 5:
            extra = tuple(draw(st.lists(st.integers(1, 2), max_size=1)))
            target = (*extra, *(draw(st.integers(1, 3)) if n == 1 else n for n in result.shape))
            result, walk = np.broadcast_to(result, target), walk.expanded(target)
        if walk is None:
            return source, result, None
    return source, result, walk


@settings(max_examples=examples(400), deadline=None)
@given(chains())
def test_a_chain_of_moves_is_one_walk(chain):
    source, result, walk = chain
    if walk is None:
        return
    memory = stored(source).ravel()
    assert np.array_equal(read(walk, memory), result)
    lies = stored(result).ravel()
    loops = walk.loops()
    sizes, reads, writes = ([x[i] for x in loops] for i in range(3))
    moved = as_strided(memory[walk.offset :], sizes, [s * 4 for s in reads])
    written = np.full(lies.size, -1, np.int32)
    as_strided(written, sizes, [s * 4 for s in writes])[...] = moved
    assert np.array_equal(written, lies)
    if walk.is_view:
        assert np.array_equal(lies, memory[: lies.size])


@settings(max_examples=examples(400), deadline=None)
@given(chains())
def test_an_alias_reads_the_result_where_the_operand_lies(chain):
    source, result, walk = chain
    alias = walk and walk.alias()
    if alias is None:
        return
    lies = stored(result).reshape(nhwc(result.shape))
    assert np.array_equal(aliased(alias, result.shape, stored(source).ravel()), lies)


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 9))
def test_a_packed_tensor_is_placed_as_it_is_stored(sizes, offset):
    shape = tuple(sizes)
    _, h, w, c = nhwc(shape)
    placed = Walk.placed(shape, Alias(offset, (h * w * c, w * c, c, 1)))
    stored_walk = Walk.stored(shape)
    assert placed.offset == offset
    assert [f.stride for d in placed.dims for f in d if f.size > 1] == [
        f.stride for d in stored_walk.dims for f in d if f.size > 1
    ]


def test_loops_of_a_dimension():
    walk = Walk.stored((2, 3, 4)).permuted((2, 0, 1)).reshaped((1, 24))
    assert walk is not None
    assert walk.factors(0) == ()
    assert walk.factors(1) == (Factor(4, 1), Factor(6, 4))
