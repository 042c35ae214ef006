"""Instructions of the vector unit for a tile: vector programs, row stages, pools and interpolation."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Operation

from compiler.backend.emit_memory import TileMemory
from compiler.backend.emitter import Emitter
from compiler.backend.slots import View
from compiler.backend.widths import is_codes
from compiler.ir.kernel import MatrixAnchor, PoolAnchor, ResizeAnchor, RowStage, Stream, VectorProgram
from compiler.ir.place import ELEMENT_BYTES, Shape4
from compiler.ir.tiling import Box, Range, Tile, Tiling
from isa.instructions import (
    DType,
    Reduce,
    Resize,
    RowReduce,
    Space,
    VcuBase,
    VcuConvert,
    VcuOp,
    VcuParams,
    VcuReduce,
    VcuResize,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuThreshold,
    VcuWindow,
)
from isa.instructions.vcu import STREAM_OUTPUT


@dataclass
class VectorEmitter:
    """Emits the vector steps of one kernel."""

    tiling: Tiling
    memory: TileMemory
    out: Emitter

    def vector(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        box = self.tiling.anchor_box(tile.out)
        self.window(spec.anchor if isinstance(spec.anchor, PoolAnchor) else None, box, tile)
        if isinstance(spec.anchor, ResizeAnchor):
            self._resize(spec.anchor, box, tile)
        slot = params = first = 0
        for stage in spec.stages:
            self._stage(stage, tile, slot, params, first)
            slot, params = slot + len(stage.program.ops), params + len(stage.program.params)
            first += stage.results
        views = [self._stream("stream", i, s, tile, box) for i, s in enumerate(spec.program.streams)]
        if spec.pool is None:
            self.run(spec.program, views, box, self.memory.output(tile.out), slot, params)
            return
        inner = View(self.memory.rings["inner", -1].push(box), self.memory.inner_strides(box))
        self.run(spec.program, views, box, inner, slot, params)

    def _resize(self, anchor: ResizeAnchor, box: Box, tile: Tile) -> None:
        """The interpolation unit for a tile: positions count from the first input that it holds."""
        source = self.tiling.box("act", anchor.act, tile)
        for axis in (0, 1):
            out, held = box[1 + axis], source[1 + axis]
            phase = out.start * anchor.num[axis] + anchor.phase[axis] - held.start * anchor.den[axis]
            self.out.setup(VcuResize, axis, anchor.kind, anchor.num[axis], anchor.den[axis], phase, held.size)

    def _stage(self, stage: RowStage, tile: Tile, slot: int, params: int, first: int) -> None:
        """One pass of row stages; its results start at number ``first``."""
        box = self.tiling.row_box(tile.out)
        address, step = self.memory.row_vector(first, tile)
        if stage.reduce is RowReduce.NONE:
            box = box._replace(c=Range(0, 1))
            out = View(address, (0, box.w.size * step, step, step))
            views = [self._stream("row", i, s, tile, box) for i, s in enumerate(stage.program.streams)]
            self.run(stage.program, views, box, out, slot, params)
            return
        role = "row" if self.tiling.spec.row_channels else "stream"
        views = [self._stream(role, i, s, tile, box) for i, s in enumerate(stage.program.streams)]
        reduce = (stage.reduce, stage.fraction, int(stage.in_place), address)
        out, space = View(0, (0, 0, 0, 0)), Space.SRAM
        if stage.in_place:
            out, space = self.memory.accumulators("acc", box), Space.ACC
        self.run(stage.program, views, box, out, slot, params, reduce, space)

    def epilogue(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        program = spec.pool_program
        assert program is not None
        self.window(None, tile.out, tile)
        slot = sum(len(p.ops) for p in spec.programs[:-1])
        views = [self._stream("pooled", i, s, tile, tile.out) for i, s in enumerate(program.streams)]
        self.run(program, views, tile.out, self.memory.output(tile.out), slot, 0)

    def _stream(self, role: str, index: int, stream: Stream, tile: Tile, box: Box) -> int:
        """Set up input stream ``index``; returns its address."""
        anchor = self.tiling.spec.pool if role == "pooled" else self.tiling.spec.anchor
        if stream.row >= 0:
            address, step = self.memory.row_vector(stream.row, tile)
            self.out.setup(VcuStream, index, DType.F32, Space.SRAM, box.w.size * step, step, 0, 0)
            return address
        if stream.operand is None and isinstance(anchor, MatrixAnchor):
            view = self.memory.accumulators("product" if role == "pooled" else "acc", box)
            self.out.setup(VcuStream, index, stream.dtype, Space.ACC, *view.strides[1:], 0)
            return view.address
        if stream.operand is None:
            assert isinstance(anchor, PoolAnchor | ResizeAnchor)
            source, view = self.memory.view("act", anchor.act, tile)
            self.set_stream(index, self.tiling.spec.dtypes[anchor.act], view.steps(source), anchor.zero, anchor.scale)
            return view.address
        shape = self.tiling.spec.operands[stream.operand]
        operand_box, view = self.memory.view(role, stream.operand, tile)
        strides = tuple(0 if size == 1 else s for size, s in zip(shape, view.steps(operand_box), strict=True))
        if shape[3] == 1 and self.tiling.conv_shape[3] == 1 and box.c.size == 1:  # a pass over rows has all of them
            strides = (*strides[:3], ELEMENT_BYTES[stream.dtype])
        assert operand_box.elements
        strides = (strides[0], strides[1], strides[2], strides[3])
        self.set_stream(index, stream.dtype, strides, stream.zero, stream.scale)
        return view.address

    def set_stream(self, index: int, dtype: DType, strides: Shape4, zero: int, scale: float) -> None:
        self.out.setup(VcuStream, index, dtype, Space.SRAM, *strides[1:], 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, index, zero, scale)

    def window(self, pool: PoolAnchor | None, box: Box, tile: Tile) -> None:
        if pool is None:
            self.out.setup(VcuWindow, Reduce.NONE, *(1, 1, 1, 1, 1, 1, 0, 0, 1, 1))
            return
        act_box = self.tiling.box("act", pool.act, tile)
        self._set_window(pool, box, act_box, self.tiling.spec.operands[pool.act])

    def _set_window(self, pool: PoolAnchor, out: Box, source: Box, shape: Shape4) -> None:
        window = pool.window
        _, _, top = window.input_range(0, out.h.start, out.h.stop, shape[1])
        _, _, left = window.input_range(1, out.w.start, out.w.stop, shape[2])
        self.out.setup(
            VcuWindow,
            pool.reduce,
            *window.kernel,
            *window.stride,
            *window.dilation,
            max(top, 0),
            max(left, 0),
            source.h.size,
            source.w.size,
        )

    def run(
        self,
        program: VectorProgram,
        views: list[int],
        box: Box,
        out: View,
        slot: int,
        first_param: int,
        reduce: tuple[RowReduce, int, int, int] = (RowReduce.NONE, 0, 0, 0),
        space: Space = Space.SRAM,
    ) -> None:
        emit = self.out
        emit.setup(VcuReduce, *reduce)
        for i, op in enumerate(program.ops):
            emit.setup(VcuOp, slot + i, op.func, op.dst, op.a, op.kind, op.b, op.immediate)
        if program.params:
            held = self.tiling.params_range(box.c)
            address = self.memory.rings["params", -1].find(("params", held, None))
            assert address is not None
            first_byte = 4 * (first_param * held.size + box.c.start - held.start)
            emit.setup(VcuParams, address + first_byte, 4 * held.size)
        emit.setup(VcuShape, box.h.size, box.w.size, box.c.size)
        encode = int(bool(program.thresholds))
        emit.setup(VcuStream, STREAM_OUTPUT, program.output, space, *out.steps(box)[1:], encode)
        for index, threshold in enumerate(program.thresholds):
            emit.setup(VcuThreshold, index, threshold)
        if is_codes(program.output):
            emit.setup(VcuConvert, STREAM_OUTPUT, program.zero, program.inverse_scale)
        addresses = [*views, 0, 0, 0, 0][:4]
        if len(views) > 2:
            emit.setup(VcuBase, addresses[2], addresses[3])
        emit.run(
            VcuRun(
                first=slot if program.ops else 0,
                count=len(program.ops),
                streams=len(views),
                a=addresses[0],
                b=addresses[1],
                dst=out.address,
            )
        )

    def pool(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        pool, program, shape = spec.pool, spec.pool_program, spec.inner
        assert isinstance(pool, PoolAnchor)
        assert program is not None
        assert shape is not None
        inner = self.tiling.anchor_box(tile.out)
        address = self.memory.rings["inner", -1].find(inner)
        assert address is not None
        self._set_window(pool, tile.out, inner, shape)
        self.set_stream(0, spec.program.output, self.memory.inner_strides(inner), pool.zero, pool.scale)
        before = spec.programs[:-1]
        slot, params = sum(len(p.ops) for p in before), sum(len(p.params) for p in before)
        views = [address] + [
            self._stream("pooled", i, s, tile, tile.out) for i, s in enumerate(program.streams) if i
        ]
        self.run(program, views, tile.out, self.memory.output(tile.out), slot, params)

    def no_resize(self) -> None:
        """No other kernel knows of the interpolation unit."""
        if isinstance(self.tiling.spec.anchor, ResizeAnchor):
            for axis in (0, 1):
                self.out.setup(VcuResize, axis, Resize.NONE, 1, 1, 0, 1)
