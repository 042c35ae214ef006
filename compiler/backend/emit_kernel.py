"""One tiled kernel to instructions: each step op of the tile dialect becomes a handful of words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from xdsl.ir import Operation

from compiler.analysis.cost import acc_pixel_bytes, row_bytes
from compiler.backend.emitter import Emitter
from compiler.backend.pack import ConstantPool, params_block, weight_block
from compiler.backend.slots import Slots, View
from compiler.backend.walk import walk_steps
from compiler.backend.widths import is_codes
from compiler.dialects.tile import (
    ChannelOp,
    CopyOp,
    EpilogueOp,
    KernelOp,
    LoadOp,
    MmaOp,
    PoolOp,
    ProductOp,
    StoreOp,
    VectorOp,
)
from compiler.ir.channel import Ring
from compiler.ir.kernel import CopyAnchor, MatrixAnchor, PoolAnchor, ResizeAnchor, RowStage, Stream, VectorProgram
from compiler.ir.place import (
    ELEMENT_BYTES,
    Place,
    Shape4,
    buffer_strides,
    packed_strides,
    stored,
    stored_box,
    transfers,
)
from compiler.ir.tiling import READS, Box, Range, Tile, Tiling, Turn
from isa.instructions import (
    DType,
    Func,
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    MmuCodes,
    MmuInput,
    MmuOutput,
    MmuRun,
    MmuTable,
    MmuWeight,
    MmuWindow,
    Mode,
    Operand,
    Reduce,
    Region,
    Resize,
    RowReduce,
    Space,
    StoreCopy,
    StoreShape,
    StoreStrides,
    StoreTile,
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
from isa.machine import Machine


@dataclass
class KernelEmitter:
    """Emits one kernel; ``locate`` turns a step op into a location index.

    ``fixed`` holds the places of the spec's operands and of the result; ``places`` those of the turn.
    """

    kernel: KernelOp
    tiling: Tiling
    fixed: tuple[Place, ...]
    machine: Machine
    pool: ConstantPool
    out: Emitter
    locate: Callable[[Operation], int]
    rings: dict[tuple[str, int], Slots] = field(default_factory=dict[tuple[str, int], Slots])
    blocks: dict[object, tuple[int, int]] = field(default_factory=dict[object, tuple[int, int]])
    places: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        for op in self.kernel.steps.block.ops:
            if isinstance(op, ChannelOp):
                assert op.address is not None
                slots = Slots(op.address.value.data, op.slot_bytes.value.data, Ring(op.slots.value.data))
                self.rings[op.role.data, op.operand.value.data] = slots

    def emit(self, turn: Turn | None) -> Iterator[None]:
        """The instructions of the kernel, in program order: all of them, or those of ``turn``; stops after each tile.

        What is emitted between tiles may leave any setup behind.
        """
        self.places = tuple(place.at(turn) for place in self.fixed)
        if turn is not None:
            self._carry(turn)
        actions: dict[type[Operation], Callable[[Operation, Tile], None]] = {
            LoadOp: self._load,
            MmaOp: self._mma,
            VectorOp: self._vector,
            PoolOp: self._pool,
            ProductOp: self._product,
            EpilogueOp: self._epilogue,
            CopyOp: self._copy,
            StoreOp: self._store,
        }
        previous: Operation | None = None
        tile: Tile | None = None
        for op, work in walk_steps(self.kernel, self.tiling, turn):
            if tile is not None and work.out != tile.out:
                self._no_resize()
                yield
                previous = None
            if op is not previous:
                self.out.location = self.locate(op)
                previous = op
            actions[type(op)](op, work)
            tile = work
        self._no_resize()

    def _no_resize(self) -> None:
        """No other kernel knows of the interpolation unit."""
        if isinstance(self.tiling.spec.anchor, ResizeAnchor):
            for axis in (0, 1):
                self.out.setup(VcuResize, axis, Resize.NONE, 1, 1, 0, 1)

    def _carry(self, turn: Turn) -> None:
        """Copy the rows of the result that are read again from the last slot to the next one."""
        held, spec = self.fixed[-1].stripes, self.tiling.spec
        rows = held.carried(turn.stripe, turn.rows.start) if held is not None else Range(0, 0)
        if held is None or not rows.size:
            return
        self.out.location = self.locate(next(op for op in self.kernel.steps.walk() if isinstance(op, VectorOp)))
        box = Box(Range(turn.image, turn.image + 1), *(Range(0, size) for size in spec.output[1:]))
        box = self._made(box._replace(h=rows) if held.axis == 1 else box._replace(w=rows))
        source = self.fixed[-1].at(turn._replace(stripe=turn.stripe - 1))
        target, dtype = self.places[-1], DType.I8 if spec.stored.output is DType.I4 else spec.stored.output
        self._window(None, box, Tile(box, Range(0, 0), True, True))
        self.out.setup(VcuReduce, RowReduce.NONE, 0, 0, 0)
        self._set_stream(0, dtype, source.strides, 0, 0.0)
        self.out.setup(VcuShape, box.h.size, box.w.size, box.c.size)
        self.out.setup(VcuStream, STREAM_OUTPUT, dtype, Space.SRAM, *target.strides[1:], 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, STREAM_OUTPUT, 0, 1.0)
        self.out.run(VcuRun(streams=1, a=source.address(box), dst=target.address(box)))

    # -- loads ---------------------------------------------------------------------------------

    def _load(self, op: Operation, tile: Tile) -> None:
        assert isinstance(op, LoadOp)
        ring = op.ring.owner
        assert isinstance(ring, ChannelOp)
        role, operand = ring.role.data, ring.operand.value.data
        if role in READS:
            self._load_box(role, operand, self.tiling.box(role, operand, tile))
            return
        channels = self.tiling.anchor_box(tile.out).c
        channels = channels if role == "weight" else self.tiling.params_range(channels)
        key = (role, channels, tile.k if role == "weight" else None)
        slots = self.rings[role, operand]
        if slots.find(key) is None:
            offset, size = self._block(role, channels, tile.k, key)
            self.out.run(LoadCopy(region=Region.CONSTANTS, offset=offset, sram=slots.push(key), bytes=size))

    def _block(self, role: str, channels: Range, k: Range, key: object) -> tuple[int, int]:
        if key not in self.blocks:
            spec = self.tiling.spec
            block = weight_block(spec, channels, k) if role == "weight" else params_block(spec, channels)
            self.blocks[key] = (self.pool.add(block), len(block))
        return self.blocks[key]

    def _load_box(self, role: str, operand: int, box: Box) -> None:
        slots = self.rings[role, operand]
        if box.elements == 0 or slots.find(box) is not None:
            return
        place, address = self.places[operand], slots.push(box)
        assert place.region is not None
        for t in transfers(place, self._stored(operand, box), self._box_strides(operand, box)):
            if t.contiguous:
                self.out.run(LoadCopy(region=place.region, offset=t.dram, sram=address + t.sram, bytes=t.run))
                continue
            self.out.setup(LoadShape, *t.counts, t.run)
            self.out.setup(LoadStrides, *t.dram_strides, *t.sram_strides)
            self.out.run(LoadTile(region=place.region, offset=t.dram, sram=address + t.sram))

    def _box_strides(self, operand: int, box: Box) -> Shape4:
        """SRAM layout of a loaded box: as it lies in DRAM, but copies want their operand packed NHWC."""
        place = self.places[operand]
        if isinstance(self.tiling.spec.anchor, CopyAnchor):
            return packed_strides(*stored(self.tiling.spec.operands[operand], self.tiling.spec.dtypes[operand]))
        return buffer_strides(place, self._stored(operand, box))

    def _stored(self, operand: int, box: Box) -> Box:
        return stored_box(box, self.tiling.spec.dtypes[operand])

    def _view(self, role: str, operand: int, tile: Tile) -> tuple[Box, View]:
        """The tile's box of an operand on chip, in its ring or where it stays."""
        box, place = self.tiling.box(role, operand, tile), self.places[operand]
        if place.resident:
            return box, View(place.address(self._stored(operand, box)), place.strides)
        if box.elements == 0:
            return box, View(0, (0, 0, 0, 0))
        address = self.rings[role, operand].find(box)
        assert address is not None, "a step uses a box that no slot holds"
        return box, View(address, self._box_strides(operand, box))

    # -- matrix unit ---------------------------------------------------------------------------

    def _mma(self, op: Operation, tile: Tile) -> None:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        box = self.tiling.anchor_box(tile.out)
        slots = self.rings["acc", -1]
        acc = slots.push(box) if tile.first_k else slots.find(box)
        assert acc is not None
        if anchor.depthwise:
            self._mma_group(anchor, tile, box, box.c, box.c, acc)
            return
        per_out, per_in = self.tiling.group_outputs, self.tiling.group_inputs
        for group in range(box.c.start // per_out, (box.c.stop - 1) // per_out + 1):
            outputs = Range(max(box.c.start, group * per_out), min(box.c.stop, (group + 1) * per_out))
            inputs = Range(group * per_in + tile.k.start, group * per_in + tile.k.stop)
            self._mma_group(anchor, tile, box, outputs, inputs, acc)

    def _mma_group(
        self, anchor: MatrixAnchor, tile: Tile, box: Box, outputs: Range, inputs: Range, acc: int
    ) -> None:
        out, window = self.out, anchor.window
        shape = self.tiling.spec.operands[anchor.act]
        act_box, act = self._view("act", anchor.act, tile)
        _, _, pad_top = window.input_range(0, box.h.start, box.h.stop, shape[1])
        _, _, pad_left = window.input_range(1, box.w.start, box.w.stop, shape[2])
        height, width = act_box.h.size, act_box.w.size
        dtype = self.tiling.spec.dtypes[anchor.act]
        # One pixel's distance to none may exceed the field.
        pixel = act.strides[2] if width > 1 else row_bytes(inputs.size, dtype)
        out.setup(MmuInput, height, width, inputs.size, act.strides[1], pixel)
        out.setup(MmuWindow, *window.kernel, *window.stride, *window.dilation, max(pad_top, 0), max(pad_left, 0))
        weight, row_stride = self._weights(anchor, tile, box, outputs)
        out.setup(MmuWeight, row_stride, int(anchor.dynamic_weight and not anchor.transposed))
        self._codes(anchor, tile, box, outputs)
        pixel = acc_pixel_bytes(box.c.size, self.machine, anchor.mode)
        out.setup(MmuOutput, box.h.size, box.w.size, pixel)
        skipped = row_bytes(inputs.start - act_box.c.start, dtype) if act_box.elements else 0
        out.run(
            MmuRun(
                act=act.address + skipped if act_box.elements else 0,
                weight=weight,
                acc=acc + ELEMENT_BYTES[anchor.mode.accumulator] * (outputs.start - box.c.start),
                n=outputs.size,
                accumulate=int(not tile.first_k),
                depthwise=int(anchor.depthwise),
                mode=anchor.mode,
            )
        )

    def _weights(self, anchor: MatrixAnchor, tile: Tile, box: Box, outputs: Range) -> tuple[int, int]:
        """Address of the rows of ``outputs`` and the bytes between rows."""
        skip = outputs.start - box.c.start
        if anchor.dynamic_weight:
            view = self._factor("rhs", anchor, tile)
            skipped = skip * view.strides[2] if anchor.transposed else row_bytes(skip, self._weight_type(anchor))
            return view.address + skipped, view.strides[2]
        address = self.rings["weight", anchor.weight].find(("weight", box.c, tile.k))
        assert address is not None, "a step uses weights that no slot holds"
        row = row_bytes(
            box.c.size if anchor.depthwise else anchor.window.taps * tile.k.size, self._weight_type(anchor)
        )
        return address + (0 if anchor.depthwise else skip * row), row

    def _weight_type(self, anchor: MatrixAnchor) -> DType:
        return self.tiling.spec.dtypes[anchor.weight]

    def _codes(self, anchor: MatrixAnchor, tile: Tile, box: Box, outputs: Range) -> None:
        """Zero points, those of channels behind the rows of the tile's block of weights, and the decode table."""
        if anchor.mode is Mode.F32:
            return
        zeros = 0
        if anchor.weight_zeros:
            address = self.rings["weight", anchor.weight].find(("weight", box.c, tile.k))
            assert address is not None, "a step uses weights that no slot holds"
            depth = (anchor.window.taps, box.c.size)
            if not anchor.depthwise:
                depth = (box.c.size, anchor.window.taps * tile.k.size)
            rows = depth[0] * row_bytes(depth[1], self._weight_type(anchor))
            zeros = address + rows + rows % 2 + 2 * (outputs.start - box.c.start)
        decode = int(bool(anchor.codebook))
        self.out.setup(MmuCodes, anchor.zero_act, anchor.zero_weight, int(bool(zeros)), zeros, decode)
        for index in range(0, len(anchor.codebook), 4):
            self.out.setup(MmuTable, index, *anchor.codebook[index : index + 4])

    # -- vector unit ---------------------------------------------------------------------------

    def _vector(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        box = self.tiling.anchor_box(tile.out)
        self._window(spec.anchor if isinstance(spec.anchor, PoolAnchor) else None, box, tile)
        if isinstance(spec.anchor, ResizeAnchor):
            self._resize(spec.anchor, box, tile)
        slot = params = first = 0
        for stage in spec.stages:
            self._stage(stage, tile, slot, params, first)
            slot, params = slot + len(stage.program.ops), params + len(stage.program.params)
            first += stage.results
        views = [self._stream("stream", i, s, tile, box) for i, s in enumerate(spec.program.streams)]
        if spec.pool is None:
            self._run(spec.program, views, box, self._output(tile.out), slot, params)
            return
        inner = View(self.rings["inner", -1].push(box), self._inner_strides(box))
        self._run(spec.program, views, box, inner, slot, params)

    def _resize(self, anchor: ResizeAnchor, box: Box, tile: Tile) -> None:
        """The interpolation unit for a tile: positions count from the first input that it holds."""
        source = self.tiling.box("act", anchor.act, tile)
        for axis in (0, 1):
            out, held = box[1 + axis], source[1 + axis]
            phase = out.start * anchor.num[axis] + anchor.phase[axis] - held.start * anchor.den[axis]
            self.out.setup(VcuResize, axis, anchor.kind, anchor.num[axis], anchor.den[axis], phase, held.size)

    def _inner_strides(self, box: Box) -> Shape4:
        """Byte strides of what never leaves the chip between a kernel's two anchors."""
        return packed_strides(*stored(_sizes(box), self.tiling.spec.program.output))

    def _stage(self, stage: RowStage, tile: Tile, slot: int, params: int, first: int) -> None:
        """One pass of row stages; its results start at number ``first``."""
        box = self.tiling.row_box(tile.out)
        address, step = self._row_vector(first, tile)
        if stage.reduce is RowReduce.NONE:
            box = box._replace(c=Range(0, 1))
            out = View(address, (0, box.w.size * step, step, step))
            views = [self._stream("row", i, s, tile, box) for i, s in enumerate(stage.program.streams)]
            self._run(stage.program, views, box, out, slot, params)
            return
        role = "row" if self.tiling.spec.row_channels else "stream"
        views = [self._stream(role, i, s, tile, box) for i, s in enumerate(stage.program.streams)]
        reduce = (stage.reduce, stage.fraction, int(stage.in_place), address)
        out, space = View(0, (0, 0, 0, 0)), Space.SRAM
        if stage.in_place:
            out, space = self._accumulators("acc", box), Space.ACC
        self._run(stage.program, views, box, out, slot, params, reduce, space)

    def _row_vector(self, number: int, tile: Tile) -> tuple[int, int]:
        """Address of row result ``number`` of the tile's first row, and bytes between rows."""
        box = self.tiling.row_box(tile.out)
        rows, before = box.h.size * box.w.size, 0
        ring = self.rings["rows", -1]
        for stage in self.tiling.spec.stages:
            if number < before + stage.results:
                return ring.address + 4 * (rows * before + number - before), 4 * stage.results
            before += stage.results
        raise AssertionError(f"row result {number} of {before}")

    def _accumulators(self, ring: str, box: Box) -> View:
        """The tile's slot of accumulators."""
        anchor = self.tiling.spec.product if ring == "product" else self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        pixel = acc_pixel_bytes(box.c.size, self.machine, anchor.mode)
        address = self.rings[ring, -1].find(box)
        assert address is not None
        return View(address, (0, box.w.size * pixel, pixel, ELEMENT_BYTES[anchor.mode.accumulator]))

    # -- trailing product ----------------------------------------------------------------------

    def _product(self, op: Operation, tile: Tile) -> None:
        product, out = self.tiling.spec.product, self.out
        assert product is not None
        inner = self.tiling.anchor_box(tile.out)
        address = self.rings["inner", -1].find(inner)
        assert address is not None
        strides = self._inner_strides(inner)
        out.setup(MmuInput, inner.h.size, inner.w.size, inner.c.size, strides[1], strides[2])
        out.setup(MmuWindow, *product.window.kernel, *product.window.stride, *product.window.dilation, 0, 0)
        self._codes(product, tile, tile.out, tile.out.c)
        weight = self._factor("second", product, tile)
        out.setup(MmuWeight, weight.strides[2], int(not product.transposed))
        pixel = acc_pixel_bytes(tile.out.c.size, self.machine, product.mode)
        out.setup(MmuOutput, inner.h.size, inner.w.size, pixel)
        acc = self.rings["product", -1].push(tile.out)
        out.run(MmuRun(act=address, weight=weight.address, acc=acc, n=tile.out.c.size, mode=product.mode))

    def _factor(self, role: str, anchor: MatrixAnchor, tile: Tile) -> View:
        """An activation as the weight of a product."""
        return self._view(role, anchor.weight, tile)[1]

    def _epilogue(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        program = spec.pool_program
        assert program is not None
        self._window(None, tile.out, tile)
        slot = sum(len(p.ops) for p in spec.programs[:-1])
        views = [self._stream("pooled", i, s, tile, tile.out) for i, s in enumerate(program.streams)]
        self._run(program, views, tile.out, self._output(tile.out), slot, 0)

    def _stream(self, role: str, index: int, stream: Stream, tile: Tile, box: Box) -> int:
        """Set up input stream ``index``; returns its address."""
        anchor = self.tiling.spec.pool if role == "pooled" else self.tiling.spec.anchor
        if stream.row >= 0:
            address, step = self._row_vector(stream.row, tile)
            self.out.setup(VcuStream, index, DType.F32, Space.SRAM, box.w.size * step, step, 0, 0)
            return address
        if stream.operand is None and isinstance(anchor, MatrixAnchor):
            view = self._accumulators("product" if role == "pooled" else "acc", box)
            self.out.setup(VcuStream, index, stream.dtype, Space.ACC, *view.strides[1:], 0)
            return view.address
        if stream.operand is None:
            assert isinstance(anchor, PoolAnchor | ResizeAnchor)
            _, view = self._view("act", anchor.act, tile)
            self._set_stream(index, self.tiling.spec.dtypes[anchor.act], view.strides, anchor.zero, anchor.scale)
            return view.address
        shape = self.tiling.spec.operands[stream.operand]
        operand_box, view = self._view(role, stream.operand, tile)
        strides = tuple(0 if size == 1 else s for size, s in zip(shape, view.strides, strict=True))
        if shape[3] == 1 and self.tiling.conv_shape[3] == 1 and box.c.size == 1:  # a pass over rows has all of them
            strides = (*strides[:3], ELEMENT_BYTES[stream.dtype])
        assert operand_box.elements
        strides = (strides[0], strides[1], strides[2], strides[3])
        self._set_stream(index, stream.dtype, strides, stream.zero, stream.scale)
        return view.address

    def _set_stream(self, index: int, dtype: DType, strides: Shape4, zero: int, scale: float) -> None:
        self.out.setup(VcuStream, index, dtype, Space.SRAM, *strides[1:], 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, index, zero, scale)

    def _window(self, pool: PoolAnchor | None, box: Box, tile: Tile) -> None:
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

    def _run(
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
            address = self.rings["params", -1].find(("params", held, None))
            assert address is not None
            first_byte = 4 * (first_param * held.size + box.c.start - held.start)
            emit.setup(VcuParams, address + first_byte, 4 * held.size)
        emit.setup(VcuShape, box.h.size, box.w.size, box.c.size)
        emit.setup(VcuStream, STREAM_OUTPUT, program.output, space, *out.strides[1:], int(bool(program.thresholds)))
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

    def _pool(self, op: Operation, tile: Tile) -> None:
        spec = self.tiling.spec
        pool, program, shape = spec.pool, spec.pool_program, spec.inner
        assert isinstance(pool, PoolAnchor)
        assert program is not None
        assert shape is not None
        inner = self.tiling.anchor_box(tile.out)
        address = self.rings["inner", -1].find(inner)
        assert address is not None
        self._set_window(pool, tile.out, inner, shape)
        self._set_stream(0, spec.program.output, self._inner_strides(inner), pool.zero, pool.scale)
        slot = len(spec.program.ops)
        views = [address] + [
            self._stream("pooled", i, s, tile, tile.out) for i, s in enumerate(program.streams) if i
        ]
        self._run(program, views, tile.out, self._output(tile.out), slot, len(spec.program.params))

    def _output(self, box: Box) -> View:
        """Where the tile's result goes: its place in SRAM, or the next slot of the output ring."""
        place = self.places[-1]
        if place.resident:
            return View(place.address(self._made(box)), place.strides)
        return View(self.rings["output", -1].push(box), self._output_strides(box))

    def _made(self, box: Box) -> Box:
        """A box of the result in stored elements."""
        return stored_box(box, self.tiling.spec.stored.output)

    def _output_strides(self, box: Box) -> Shape4:
        if isinstance(self.tiling.spec.anchor, CopyAnchor):
            return packed_strides(self.tiling.spec.output, self.places[-1].element)
        return buffer_strides(self.places[-1], self._made(box))

    def _copy(self, op: Operation, tile: Tile) -> None:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, CopyAnchor)
        element, dtype = self.places[-1].element, self.tiling.spec.program.output
        _, source = self._view("act", anchor.act, tile)
        target = self._output(tile.out)
        self._window(None, tile.out, tile)
        if anchor.fill is not None:
            self._fill(anchor.fill, source, target)
        loops = list(zip(anchor.sizes, anchor.input_strides, anchor.output_strides, strict=True))
        loops = [(1, 0, 0)] * (3 - len(loops)) + loops
        outer, inner = loops[:-3], loops[-3:]
        self._set_stream(0, dtype, (0, *(s * element for _, s, _ in inner)), 0, 0.0)  # type: ignore[arg-type]
        self.out.setup(VcuShape, *(size for size, _, _ in inner))
        self.out.setup(VcuStream, STREAM_OUTPUT, dtype, Space.SRAM, *(s * element for _, _, s in inner), 0)
        if is_codes(dtype):
            self.out.setup(VcuConvert, STREAM_OUTPUT, 0, 1.0)
        for a, b in _offsets(outer):
            read = source.address + (anchor.input_offset + a) * element
            self.out.run(VcuRun(streams=1, a=read, dst=target.address + (anchor.output_offset + b) * element))

    def _fill(self, value: float, source: View, target: View) -> None:
        """Write ``value`` everywhere: the first byte of the operand, clamped to it from both sides."""
        dtype, element = self.tiling.spec.program.output, self.places[-1].element
        self._set_stream(0, DType.I8, (0, 0, 0, 0), 0, 0.0)
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

    # -- stores --------------------------------------------------------------------------------

    def _store(self, op: Operation, tile: Tile) -> None:
        place, address = self.places[-1], self.rings["output", -1].find(tile.out)
        assert place.region is not None
        assert address is not None
        for t in transfers(place, self._made(tile.out), self._output_strides(tile.out)):
            if t.contiguous:
                self.out.run(StoreCopy(region=place.region, offset=t.dram, sram=address + t.sram, bytes=t.run))
                continue
            self.out.setup(StoreShape, *t.counts, t.run)
            self.out.setup(StoreStrides, *t.dram_strides, *t.sram_strides)
            self.out.run(StoreTile(region=place.region, offset=t.dram, sram=address + t.sram))


def _sizes(box: Box) -> Shape4:
    return (box.n.size, box.h.size, box.w.size, box.c.size)


def _offsets(loops: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Element offsets (input, output) of every step of the loops that do not fit into one run."""
    offsets = [(0, 0)]
    for size, read, write in loops:
        offsets = [(a + i * read, b + i * write) for a, b in offsets for i in range(size)]
    return offsets
