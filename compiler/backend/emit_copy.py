"""Instructions of the vector unit for moves by strides: copies, fills, and rows that the next stripe reads again."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Operation

from compiler.backend.emit_memory import TileMemory
from compiler.backend.emit_vector import VectorEmitter
from compiler.backend.emitter import Emitter
from compiler.backend.slots import View
from compiler.backend.widths import is_codes
from compiler.ir.kernel import CopyAnchor
from compiler.ir.place import Place
from compiler.ir.tiling import Box, Range, Tile, Tiling, Turn
from isa.instructions import (
    DType,
    Func,
    Operand,
    RowReduce,
    Space,
    VcuConvert,
    VcuOp,
    VcuReduce,
    VcuRun,
    VcuShape,
    VcuStream,
)
from isa.instructions.vcu import STREAM_OUTPUT


@dataclass
class CopyEmitter:
    """Emits the moves of one kernel."""

    tiling: Tiling
    memory: TileMemory
    out: Emitter
    vector: VectorEmitter

    def copy(self, op: Operation, tile: Tile) -> None:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, CopyAnchor)
        element, dtype = self.memory.places[-1].element, self.tiling.spec.program.output
        _, source = self.memory.view("act", anchor.act, tile)
        target = self.memory.output(tile.out)
        self.vector.window(None, tile.out, tile)
        if anchor.fill is not None:
            self._fill(anchor.fill, source, target)
        loops = list(zip(anchor.sizes, anchor.input_strides, anchor.output_strides, strict=True))
        loops = [(1, 0, 0)] * (3 - len(loops)) + loops
        outer, inner = loops[:-3], loops[-3:]
        self.vector.set_stream(0, dtype, (0, *(s * element for _, s, _ in inner)), 0, 0.0)  # type: ignore[arg-type]
        self.out.setup(VcuShape, *(size for size, _, _ in inner))
        self.out.setup(VcuStream, STREAM_OUTPUT, dtype, Space.SRAM, *(s * element for _, _, s in inner), 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, STREAM_OUTPUT, 0, 1.0)
        for a, b in _offsets(outer):
            read = source.address + (anchor.input_offset + a) * element
            self.out.run(VcuRun(streams=1, a=read, dst=target.address + (anchor.output_offset + b) * element))

    def _fill(self, value: float, source: View, target: View) -> None:
        """Write ``value`` everywhere: the first byte of the operand, clamped to it from both sides."""
        dtype, element = self.tiling.spec.program.output, self.memory.places[-1].element
        self.vector.set_stream(0, DType.I8, (0, 0, 0, 0), 0, 0.0)
        for slot, func in enumerate((Func.MAX, Func.MIN)):
            self.out.setup(VcuOp, slot, func, 0, 0, Operand.IMMEDIATE, 0, value)
        _, h, w, c = self.tiling.spec.output
        self.out.setup(VcuShape, h, w, c)
        self.out.setup(VcuStream, STREAM_OUTPUT, dtype, Space.SRAM, w * c * element, c * element, element, 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, STREAM_OUTPUT, 0, 1.0)
        for n in range(self.tiling.spec.output[0]):
            dst = target.address + n * h * w * c * element
            self.out.run(VcuRun(count=2, streams=1, a=source.address, dst=dst))

    def carry(self, ring: Place, turn: Turn) -> None:
        """Copy the rows of the result that are read again from the last slot of ``ring`` to the next one."""
        held, spec = ring.stripes, self.tiling.spec
        rows = held.carried(turn.stripe, turn.rows.start) if held is not None else Range(0, 0)
        if held is None or not rows.size:
            return
        box = Box(Range(turn.image, turn.image + 1), *(Range(0, size) for size in spec.output[1:]))
        box = self.memory.made(box._replace(h=rows) if held.axis == 1 else box._replace(w=rows))
        dtype = DType.I8 if spec.stored.output is DType.I4 else spec.stored.output
        places = ring.at(turn._replace(stripe=turn.stripe - 1)), self.memory.places[-1]
        source, target = (View(place.address(box), place.strides) for place in places)
        self.vector.window(None, box, Tile(box, Range(0, 0), True, True))
        self.out.setup(VcuReduce, RowReduce.NONE, 0, 0, 0)
        self.vector.set_stream(0, dtype, source.steps(box), 0, 0.0)
        self.out.setup(VcuShape, box.h.size, box.w.size, box.c.size)
        self.out.setup(VcuStream, STREAM_OUTPUT, dtype, Space.SRAM, *target.steps(box)[1:], 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, STREAM_OUTPUT, 0, 1.0)
        self.out.run(VcuRun(streams=1, a=source.address, dst=target.address))


def _offsets(loops: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Element offsets (input, output) of every step of the loops that do not fit into one run."""
    offsets = [(0, 0)]
    for size, read, write in loops:
        offsets = [(a + i * read, b + i * write) for a, b in offsets for i in range(size)]
    return offsets
