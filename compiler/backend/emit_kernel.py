"""One tiled kernel to instructions: each step op of the tile dialect becomes a handful of words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xdsl.ir import Operation

from compiler.backend.emit_copy import CopyEmitter
from compiler.backend.emit_matrix import MatrixEmitter
from compiler.backend.emit_memory import TileMemory
from compiler.backend.emit_vector import VectorEmitter
from compiler.backend.emitter import Emitter
from compiler.backend.pack import ConstantPool
from compiler.backend.walk import walk_steps
from compiler.dialects.tile import CopyOp, EpilogueOp, KernelOp, LoadOp, MmaOp, PoolOp, ProductOp, StoreOp, VectorOp
from compiler.ir.place import Place
from compiler.ir.tiling import Tile, Tiling, Turn
from isa.machine import Machine


class KernelEmitter:
    """Emits one kernel; ``locate`` turns a step op into a location index.

    ``fixed`` holds the places of the spec's operands and of the result, before any turn.
    """

    def __init__(
        self,
        kernel: KernelOp,
        tiling: Tiling,
        fixed: tuple[Place, ...],
        machine: Machine,
        pool: ConstantPool,
        out: Emitter,
        locate: Callable[[Operation], int],
    ) -> None:
        self.kernel, self.tiling, self.fixed, self.out, self.locate = kernel, tiling, fixed, out, locate
        self.memory = memory = TileMemory(kernel, tiling, machine, pool, out, fixed)
        matrix, self.vector = MatrixEmitter(tiling, memory, out), VectorEmitter(tiling, memory, out)
        self.copies = CopyEmitter(tiling, memory, out, self.vector)
        self.actions: dict[type[Operation], Callable[[Operation, Tile], None]] = {
            LoadOp: memory.load,
            MmaOp: matrix.mma,
            VectorOp: self.vector.vector,
            PoolOp: self.vector.pool,
            ProductOp: matrix.product,
            EpilogueOp: self.vector.epilogue,
            CopyOp: self.copies.copy,
            StoreOp: memory.store,
        }

    def emit(self, turn: Turn | None) -> Iterator[None]:
        """The instructions of the kernel, in program order: all of them, or those of ``turn``; stops after each tile.

        What is emitted between tiles may leave any setup behind.
        """
        self.memory.places = tuple(place.at(turn) for place in self.fixed)
        if turn is not None and self.fixed[-1].stripes is not None:
            self.out.location = self.locate(next(op for op in self.kernel.steps.walk() if isinstance(op, VectorOp)))
            self.copies.carry(self.fixed[-1], turn)
        previous: Operation | None = None
        tile: Tile | None = None
        for op, work in walk_steps(self.kernel, self.tiling, turn):
            if tile is not None and work.out != tile.out:
                self.vector.no_resize()
                yield
                previous = None
            if op is not previous:
                self.out.location = self.locate(op)
                previous = op
            self.actions[type(op)](op, work)
            tile = work
        self.vector.no_resize()
