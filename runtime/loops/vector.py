"""Vector programs: every block of elements is read, computed with and written while it lies in the first cache.

A program is a table, so that one compiled function runs them all: a small register machine whose registers are blocks.
"""

from __future__ import annotations

from isa.instructions import RowReduce
from runtime.loops import layout
from runtime.loops.compiled import loop, part
from runtime.loops.elements import number
from runtime.loops.memory import Address, get_f32, get_i64, put_f32
from runtime.loops.operations import operate
from runtime.loops.reductions import begin, finish, gather
from runtime.loops.streams import Row, place, read, write


@part
def _memory(space: int, sram: Address, acc: Address, tile: Address) -> Address:
    return sram if space == layout.SRAM else acc if space == layout.ACC else tile


@part
def _block(blocks: Address, row: Row, field: int) -> Address:
    """The block whose number a field of a row holds."""
    return blocks + get_i64(row, field) * layout.BLOCK_BYTES


@part
def _numbers(constants: Row, count: int, blocks: Address) -> None:
    for k in range(count):
        row = constants + k * layout.ROW_BYTES
        out, value = _block(blocks, row, layout.BLOCK_OF), number(get_i64(row, layout.VALUE))
        for i in range(0 if get_i64(row, layout.IS_VECTOR) else layout.BLOCK):
            put_f32(out, i, value)


@part
def _vectors(constants: Row, count: int, sram: Address, start: int, rows: int, width: int, blocks: Address) -> None:
    """Parameter vectors from element ``start`` on, once for every row."""
    for k in range(count):
        row = constants + k * layout.ROW_BYTES
        out, vector = _block(blocks, row, layout.BLOCK_OF), sram + get_i64(row, layout.VALUE) + 4 * start
        for r in range(rows if get_i64(row, layout.IS_VECTOR) else 0):
            for i in range(width):
                put_f32(out + 4 * r * width, i, get_f32(vector, i))


@part
def _piece(n2: int) -> int:
    """Elements of a row that a block takes: all, or an even share in multiples of 16."""
    pieces = (n2 + layout.BLOCK - 1) // layout.BLOCK
    return n2 if pieces == 1 else ((n2 + pieces - 1) // pieces + 15) // 16 * 16


@loop
def run_program(table: Row, sram: Address, acc: Address, tile: Address, room: Address) -> None:
    """Run a vector program over its iteration space.

    ``room`` has ``ROOM_BYTES`` of working memory and ``BLOCK_BYTES`` for every block that the table names.
    """
    n0, n1, n2 = get_i64(table, layout.N0), get_i64(table, layout.N1), get_i64(table, layout.N2)
    numbers = get_i64(table, layout.STREAMS), get_i64(table, layout.CONSTANTS), get_i64(table, layout.OPERATIONS)
    reduction, output = table + layout.REDUCTION * layout.ROW_BYTES, table + layout.OUTPUT * layout.ROW_BYTES
    thresholds, streams = table + layout.THRESHOLDS * layout.ROW_BYTES, table + layout.VARIABLE * layout.ROW_BYTES
    constants = streams + numbers[0] * layout.ROW_BYTES
    operations = constants + numbers[1] * layout.ROW_BYTES
    kind, writes = get_i64(reduction, layout.KIND), get_i64(reduction, layout.ELEMENTS)
    reduces, result_bytes = kind != RowReduce.NONE, 8 if kind == RowReduce.MOMENTS else 4
    kept, codes, blocks = room, room + layout.BLOCK * layout.KEPT_BYTES, room + layout.ROOM_BYTES
    target = _memory(get_i64(output, layout.SPACE), sram, acc, tile)
    piece = _piece(n2)
    many = min(layout.BLOCK // piece, n1)
    _numbers(constants, numbers[1], blocks)
    if piece == n2:
        _vectors(constants, numbers[1], sram, 0, many, n2, blocks)
    for i0 in range(n0):
        for i1 in range(0, n1, many):
            rows = min(many, n1 - i1)
            begin(reduction, kept, rows if reduces else 0)
            for start in range(0, n2, piece):
                width = min(piece, n2 - start)
                if piece < n2:
                    _vectors(constants, numbers[1], sram, start, 1, width, blocks)
                for k in range(numbers[0]):
                    stream = streams + k * layout.ROW_BYTES
                    memory = _memory(get_i64(stream, layout.SPACE), sram, acc, tile)
                    at = memory + place(stream, i0, i1, start)
                    read(stream, at, rows, width, blocks + k * layout.BLOCK_BYTES)
                for k in range(numbers[2]):
                    op = operations + k * layout.ROW_BYTES
                    a, b = _block(blocks, op, layout.A), _block(blocks, op, layout.B)
                    old, out = _block(blocks, op, layout.OLD), _block(blocks, op, layout.OUT)
                    operate(get_i64(op, layout.FUNC), a, b, old, out, rows * width)
                value = _block(blocks, table, layout.RESULT)
                for r in range(rows if reduces else 0):
                    gather(reduction, value + 4 * r * width, width, start, kept + r * layout.KEPT_BYTES)
                if writes:
                    write(output, value, target + place(output, i0, i1, start), rows, width, thresholds, codes)
            for r in range(rows if reduces else 0):
                at = get_i64(reduction, layout.ROWS_ADDRESS) + result_bytes * (i0 * n1 + i1 + r)
                finish(reduction, kept + r * layout.KEPT_BYTES, n2, sram + at)
