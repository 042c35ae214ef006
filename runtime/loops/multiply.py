"""Exact integer matrix products: int16 operands, int32 sums, a tile of six rows and sixteen columns in registers.

Pairs of products are added by one instruction where the processor has it (``vpmaddwd`` of AVX2), which is twice as fast
as binary32 and needs no care about exactness: sums wrap at 32 bits, as the accumulators do.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir  # pyright: ignore[reportMissingTypeStubs]
import numba.core.types
from numba import extending

from runtime.loops.compiled import loop, part
from runtime.loops.memory import Address, get_i16, get_i32, put_i32

ir: Any = llvmlite.ir
types: Any = numba.core.types
intrinsic: Any = extending.intrinsic
"""Without types of their own."""

LANES = 8
ROWS, VECTORS = 6, 2
COLUMNS = LANES * VECTORS
"""Of a tile: twelve sums of a vector each, two vectors of weights and one activation fill sixteen registers."""
PAIR_BYTES = 4
EDGE_BYTES = PAIR_BYTES * ROWS * COLUMNS
"""Of a tile that is only partly wanted."""

INT16, INT32, INT64 = (ir.IntType(bits) for bits in (16, 32, 64))
SUMS, PAIRS = ir.VectorType(INT32, LANES), ir.VectorType(INT16, 2 * LANES)
PAIRS_ADDED = "llvm.x86.avx2.pmadd.wd"


def adds_pairs(context: Any) -> bool:
    """Whether the target has the instruction."""
    return "+avx2" in context.codegen().magic_tuple()[-1].split(",")


def _add_products(context: Any, builder: Any, a: Any, b: Any) -> Any:
    """int32 [8]: a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of int16 [16]."""
    if adds_pairs(context):
        kind = ir.FunctionType(SUMS, [PAIRS, PAIRS])
        return builder.call(builder.module.declare_intrinsic(PAIRS_ADDED, [], kind), [a, b])
    even, odd = (
        builder.mul(*(builder.sext(builder.shuffle_vector(x, PAIRS(ir.Undefined), places), SUMS) for x in (a, b)))
        for places in (SUMS([2 * i + half for i in range(LANES)]) for half in (0, 1))
    )
    return builder.add(even, odd)


def _spread(builder: Any, pair: Any) -> Any:
    """int16 [16]: one int32, a pair, in every place."""
    first = builder.insert_element(SUMS(ir.Undefined), pair, INT32(0))
    return builder.bitcast(builder.shuffle_vector(first, SUMS(ir.Undefined), SUMS([0] * LANES)), PAIRS)


def _tile_of(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
    a, a_stride, rows, b, pairs, out, out_stride, add = values

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def place(row: int, vector: int) -> Any:
        return at(builder.add(out, builder.add(builder.mul(INT64(row), out_stride), INT64(4 * LANES * vector))), SUMS)

    last = builder.sub(rows, INT64(1))
    lines: list[Any] = []
    for row in map(INT64, range(ROWS)):
        held = builder.select(builder.icmp_signed("<", row, last), row, last)  # rows that are not there: the last again
        lines.append(at(builder.add(a, builder.mul(held, a_stride)), INT32))
    weights, places = at(b, PAIRS), [place(row, vector) for row in range(ROWS) for vector in range(VECTORS)]
    start = [builder.select(add, builder.load(target, align=4), SUMS(None)) for target in places]
    before, body, after = builder.block, builder.append_basic_block("pairs"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    i, sums = builder.phi(INT64), [builder.phi(SUMS) for _ in places]
    w = [
        builder.load(builder.gep(weights, [builder.add(builder.mul(i, INT64(VECTORS)), INT64(vector))]), align=4)
        for vector in range(VECTORS)
    ]
    found: list[Any] = []
    for row, line in enumerate(lines):
        pair = _spread(builder, builder.load(builder.gep(line, [i]), align=2))
        found += [
            builder.add(sums[VECTORS * row + vector], _add_products(context, builder, pair, w[vector]))
            for vector in range(VECTORS)
        ]
    following = builder.add(i, INT64(1))
    for value, first, next_one in zip([i, *sums], [INT64(0), *start], [following, *found], strict=True):
        value.add_incoming(first, before)
        value.add_incoming(next_one, body)
    builder.cbranch(builder.icmp_signed("<", following, pairs), body, after)
    builder.position_at_end(after)
    for target, value in zip(places, found, strict=True):
        builder.store(value, target, align=4)


@intrinsic
def _tile(
    _typing: Any, a: Any, a_stride: Any, rows: Any, b: Any, pairs: Any, out: Any, out_stride: Any, add: Any
) -> Any:
    """out (+)= a @ b of one tile: ``rows`` rows of a at byte strides, ``pairs`` >= 1 of b as :func:`pack` lays them."""
    return types.void(*[types.int64] * 7, types.boolean), _tile_of


@loop
def multiply(
    a: Address,
    a_stride: int,
    shape: tuple[int, int, int],
    weights: Address,
    add: bool,
    out_stride: int,
    out: Address,
    edge: Address,
) -> None:
    """out (+)= a @ weights, int32 rows at a stride, of ``shape`` (m, n, k).

    ``a``: int16, rows at a stride; of an odd row the two bytes behind it are read as well, and multiplied by 0.
    ``weights``: see :func:`pack`. ``edge``: room for a tile.
    """
    m, n, k = shape
    pairs = (k + 1) // 2
    for column in range(0, n, COLUMNS):
        panel, columns = weights + column * pairs * PAIR_BYTES, min(COLUMNS, n - column)
        for row in range(0, m, ROWS):
            rows, line, target = min(ROWS, m - row), a + row * a_stride, out + row * out_stride + 4 * column
            if rows == ROWS and columns == COLUMNS:
                _tile(line, a_stride, rows, panel, pairs, target, out_stride, add)
                continue
            _tile(line, a_stride, rows, panel, pairs, edge, 4 * COLUMNS, False)
            for i in range(rows):
                for j in range(columns):
                    held = get_i32(target + i * out_stride, j) if add else 0
                    put_i32(target + i * out_stride, j, held + get_i32(edge, COLUMNS * i + j))


@part
def _packed(low: int, high: int) -> int:
    return (high << 16) | (low & 0xFFFF)


@loop
def pack(weights: Address, n: int, k: int, transposed: bool, out: Address) -> None:
    """int16 weights [n, k], or [k, n] if transposed, as panels [ceil(n / 16), ceil(k / 2), 16, 2], 0 at the edges."""
    pairs = (k + 1) // 2
    for column in range((n + COLUMNS - 1) // COLUMNS * COLUMNS):
        panel, j = out + column // COLUMNS * COLUMNS * pairs * PAIR_BYTES, column % COLUMNS
        step, row = (n, weights + 2 * column) if transposed else (1, weights + 2 * column * k)
        for p in range(pairs if column >= n else 0):
            put_i32(panel, COLUMNS * p + j, 0)
        for p in range(k // 2 if column < n else 0):
            put_i32(panel, COLUMNS * p + j, _packed(get_i16(row, 2 * p * step), get_i16(row, (2 * p + 1) * step)))
        if k % 2 and column < n:
            put_i32(panel, COLUMNS * (pairs - 1) + j, _packed(get_i16(row, (k - 1) * step), 0))
