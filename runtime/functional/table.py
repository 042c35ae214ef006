"""Vector programs as tables for the compiled loop that runs them: see :mod:`runtime.loops.layout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.access import BINARY_FUNCS
from isa.instructions import DType, Func, Operand, RowReduce, VcuOp
from runtime.functional.streams import Row, Shape
from runtime.loops.layout import BLOCK_BYTES, DTYPE, ENCODED, KIND, ROOM_BYTES, STRIDE0, WIDTH, ZERO, bits

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


def working_bytes(program: Program) -> int:
    """Of memory that the loop needs."""
    return ROOM_BYTES + program.blocks * BLOCK_BYTES


def make_table(
    shape: Shape,
    streams: Sequence[Row],
    program: Program,
    output: Row | None,
    reduction: Row,
    thresholds: Sequence[int],
) -> NDArray[np.int64]:
    """The table of one run; an ``output`` of None writes rows only."""
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
    return table


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
