"""How the tables lie that tell compiled loops what to do: rows of eight int64 each. Needs no numba."""

from __future__ import annotations

import struct

from isa.instructions import DType

Shape = tuple[int, ...]
Row = tuple[int, ...]
WIDTH, ROW_BYTES = 8, 64
BLOCK = 1024
"""Elements of a block; even, so that no byte of 4-bit codes is in two."""
BLOCK_BYTES, KEPT_BYTES = 4 * BLOCK, 24
"""Of a block of binary32, and of what is kept of a row while it is reduced."""
ROOM_BYTES = BLOCK * (1 + KEPT_BYTES)
"""Of working memory, beside blocks."""

DTYPE, SPACE, ADDRESS, STRIDE0, STRIDE1, STRIDE2, ZERO, SCALE = range(8)
"""Of a stream: storage type, memory, first byte, bytes between elements along the three loops, zero point, bits of the
scale."""
ENCODED = len(DType)
"""In place of an output's storage type: 4-bit codes by thresholds."""
SRAM, ACC, TILE = range(3)
"""Memories; the third is made for the run, and stands for a windowed or interpolated stream A."""

N0, N1, N2, STREAMS, CONSTANTS, OPERATIONS, RESULT = range(7)
"""Of a vector program's first row: the iteration space, how many rows follow of each kind, the block of the result."""
REDUCTION, OUTPUT, THRESHOLDS, VARIABLE = 1, 2, 3, 5
"""Its next rows; thresholds fill two. From the last on: streams, constants, operations."""
KIND, ELEMENTS, ROWS_ADDRESS, POWER, SUM_FACTORS, SQUARE_FACTORS = 0, 1, 2, 3, 4, 6
"""Of a row reduction: its kind, whether elements are written too, where results go, then bits: of 2**fraction, of the
two factors of a sum and the two of a sum of squares."""
IS_VECTOR, VALUE, BLOCK_OF = range(3)
"""Of a constant: whether it is a parameter vector; its address, or the bits of the number; its block."""
FUNC, OUT, A, B, OLD = range(5)
"""Of an operation: blocks of the result, of both operands, and of what the result's register held before."""


def bits(value: float) -> int:
    """The bits of a binary32."""
    return struct.unpack("<i", struct.pack("<f", value))[0]


ONE = bits(1.0)
