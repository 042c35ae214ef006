"""Vector programs as tables for the compiled loop that runs them: see :mod:`runtime.loops.layout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.access import BINARY_FUNCS
from isa.instructions import DType, Func, Operand, RowReduce, VcuOp
from runtime.loops.layout import (
    ADDRESS,
    BLOCK_BYTES,
    DTYPE,
    ENCODED,
    KIND,
    OUTPUT,
    POWER,
    REDUCTION,
    ROOM_BYTES,
    ROWS_ADDRESS,
    STRIDE0,
    VARIABLE,
    WIDTH,
    ZERO,
    Row,
    Shape,
    bits,
)

NOWHERE: Row = (DType.I8, 0, 0, 0, 0, 0, 0, 0)
PACKED = (DType.I4, ENCODED)


class Program(NamedTuple):
    """Operations on blocks, the constants that they read, the block of the result, and how many blocks there are."""

    operations: list[Row]
    constants: list[Row]
    result: int
    blocks: int


def assemble(program: Sequence[VcuOp], streams: int, vector: Callable[[int], int]) -> Program:
    """Blocks for the registers of ``program``, of which streams fill the first; ``vector`` gives a parameter's address.

    A result never lies on an operand of its operation: one block is spare, and becomes what the register held before.
    A register that nothing wrote is a constant, 0.
    """
    blocks = {number: number for number in range(streams)}
    spare, count = streams, streams + 1
    constants: dict[tuple[bool, int], int] = {}

    def constant(is_vector: bool, value: int) -> int:
        return ~constants.setdefault((is_vector, value), len(constants))  # negative until registers are counted

    def register(number: int) -> int:
        return blocks[number] if number in blocks else constant(False, 0)

    def operand(op: VcuOp) -> int:
        if op.b_kind == Operand.REGISTER:
            return register(op.b)
        return constant(True, vector(op.b)) if op.b_kind == Operand.PARAMETER else constant(False, bits(op.immediate))

    operations: list[Row] = []
    for op in program:
        a = register(op.a)
        b = operand(op) if op.func in BINARY_FUNCS else a
        operations.append((op.func, spare, a, b, register(op.dst) if op.func is Func.SELECT else a))
        held = blocks.get(op.dst)
        blocks[op.dst] = spare
        spare, count = (held, count) if held is not None else (count, count + 1)
    result = register(program[-1].dst if program else 0)

    def place(block: int) -> int:
        return block if block >= 0 else count + ~block

    placed = [(func, *map(place, others)) for func, *others in operations]
    held_constants = [(*key, count + number) for key, number in constants.items()]
    return Program(placed, held_constants, place(result), count + len(constants))


class Table(NamedTuple):
    """A table for the loop, and the bytes of working memory that it needs."""

    rows: NDArray[np.int64]
    room: int


def make_table(
    shape: Shape,
    streams: Sequence[Row],
    program: Program,
    output: Row | None,
    reduction: Row,
    thresholds: Sequence[int],
) -> Table:
    """The table of a run; an ``output`` of None writes rows only."""
    moving = [*streams, *([] if output is None else [output])]
    vectors = any(is_vector for is_vector, *_ in program.constants)
    whole = vectors or reduction[KIND] != RowReduce.NONE or any(row[DTYPE] in PACKED for row in moving)
    size, strides = collapse(shape, [row[STRIDE0:ZERO] for row in moving], whole)
    moved = [(*row[:STRIDE0], *s, *row[ZERO:]) for row, s in zip(moving, strides, strict=True)]
    counts = (len(streams), len(program.constants), len(program.operations), program.result)
    rows = [
        (*size, *counts),
        reduction,
        NOWHERE if output is None else moved[-1],
        thresholds[:WIDTH],
        thresholds[WIDTH:],
        *moved[: len(streams)],
        *program.constants,
        *program.operations,
    ]
    table = np.zeros((len(rows), WIDTH), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return Table(table, ROOM_BYTES + program.blocks * BLOCK_BYTES)


class Tables:
    """Tables that were made: a run that differs from one in addresses alone gets a copy with its own."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[object, Table]] = {}

    def table(
        self,
        shape: Shape,
        streams: Sequence[Row],
        ops: tuple[VcuOp, ...],
        vectors: tuple[int, int],
        output: Row | None,
        reduction: Row,
        thresholds: tuple[int, ...],
        vector: Callable[[int], int],
    ) -> Table:
        """See :func:`make_table` and :func:`assemble`. ``vectors``: where parameters lie, which decides ``vector``."""
        placed = [row[:ADDRESS] + row[STRIDE0:] for row in (*streams, NOWHERE if output is None else output)]
        # Equal operations are one object, whose identity is known sooner than its words.
        key = (shape, *placed, output is None, reduction[:ROWS_ADDRESS], reduction[POWER:], thresholds, vectors)
        key = (*key, *map(id, ops))
        if (known := self._known.get(key)) is None:
            made = make_table(shape, streams, assemble(ops, len(streams), vector), output, reduction, thresholds)
            known = self._known[key] = (ops, made)
        table = known[1].rows.copy()
        table[REDUCTION, ROWS_ADDRESS] = reduction[ROWS_ADDRESS]
        table[OUTPUT, ADDRESS] = 0 if output is None else output[ADDRESS]
        for i, row in enumerate(streams, VARIABLE):
            table[i, ADDRESS] = row[ADDRESS]
        return Table(table, known[1].room)


def collapse(shape: Shape, strides: Sequence[Row], whole: bool) -> tuple[Shape, list[Row]]:
    """The same elements in the same order by loops as long as every one of ``strides`` allows, in three again.

    ``whole``: what is a row stays one.
    """
    loops: list[tuple[int, Row]] = []
    axes = list(zip(shape, zip(*strides, strict=True), strict=True)) if strides else [(n, ()) for n in shape]
    for n, along in axes[:2] if whole else axes:
        if loops and all(outer == n * inner for outer, inner in zip(loops[-1][1], along, strict=True)):
            loops[-1] = (loops[-1][0] * n, along)
        elif n > 1:
            loops.append((n, along))
    loops += axes[2:] if whole else []
    still: list[tuple[int, Row]] = [(1, (0,) * len(strides))] * (3 - len(loops))
    sizes, turned = zip(*still, *loops, strict=True)
    return sizes, [tuple(s) for s in zip(*turned, strict=True)] if strides else []
