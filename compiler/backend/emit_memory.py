"""Where a kernel's tiles lie on chip: its rings, what stays, and the transfers between them and DRAM."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.ir import Operation

from compiler.analysis.cost import acc_pixel_bytes
from compiler.backend.emitter import Emitter
from compiler.backend.pack import ConstantPool, params_block, weight_block
from compiler.backend.slots import Slots, View
from compiler.dialects.tile import ChannelOp, KernelOp, LoadOp
from compiler.ir.channel import Ring
from compiler.ir.kernel import CopyAnchor, MatrixAnchor
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
from compiler.ir.tiling import READS, Box, Range, Tile, Tiling
from isa.instructions import (
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    Region,
    StoreCopy,
    StoreShape,
    StoreStrides,
    StoreTile,
)
from isa.machine import Machine


@dataclass
class TileMemory:
    """Addresses of a kernel's tiles; ``places`` are those of its operands and its result in the present turn."""

    kernel: KernelOp
    tiling: Tiling
    machine: Machine
    pool: ConstantPool
    out: Emitter
    places: tuple[Place, ...]
    rings: dict[tuple[str, int], Slots] = field(default_factory=dict[tuple[str, int], Slots])
    blocks: dict[object, tuple[int, int]] = field(default_factory=dict[object, tuple[int, int]])

    def __post_init__(self) -> None:
        for op in self.kernel.steps.block.ops:
            if isinstance(op, ChannelOp):
                assert op.address is not None
                slots = Slots(op.address.value.data, op.slot_bytes.value.data, Ring(op.slots.value.data))
                self.rings[op.role.data, op.operand.value.data] = slots

    def load(self, op: Operation, tile: Tile) -> None:
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

    def view(self, role: str, operand: int, tile: Tile) -> tuple[Box, View]:
        """The tile's box of an operand on chip, in its ring or where it stays."""
        box, place = self.tiling.box(role, operand, tile), self.places[operand]
        if place.resident:
            return box, View(place.address(self._stored(operand, box)), place.strides)
        if box.elements == 0:
            return box, View(0, (0, 0, 0, 0))
        address = self.rings[role, operand].find(box)
        assert address is not None, "a step uses a box that no slot holds"
        return box, View(address, self._box_strides(operand, box))

    def accumulators(self, ring: str, box: Box) -> View:
        """The tile's slot of accumulators."""
        anchor = self.tiling.spec.product if ring == "product" else self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        pixel = acc_pixel_bytes(box.c.size, self.machine, anchor.mode)
        address = self.rings[ring, -1].find(box)
        assert address is not None
        return View(address, (0, box.w.size * pixel, pixel, ELEMENT_BYTES[anchor.mode.accumulator]))

    def inner_strides(self, box: Box) -> Shape4:
        """Byte strides of what never leaves the chip between a kernel's two anchors."""
        return packed_strides(*stored(_sizes(box), self.tiling.spec.program.output))

    def output(self, box: Box) -> View:
        """Where the tile's result goes: its place in SRAM, or the next slot of the output ring."""
        place = self.places[-1]
        if place.resident:
            return View(place.address(self.made(box)), place.strides)
        return View(self.rings["output", -1].push(box), self._output_strides(box))

    def made(self, box: Box) -> Box:
        """A box of the result in stored elements."""
        return stored_box(box, self.tiling.spec.stored.output)

    def _output_strides(self, box: Box) -> Shape4:
        if isinstance(self.tiling.spec.anchor, CopyAnchor):
            return packed_strides(self.tiling.spec.output, self.places[-1].element)
        return buffer_strides(self.places[-1], self.made(box))

    def store(self, op: Operation, tile: Tile) -> None:
        place, address = self.places[-1], self.rings["output", -1].find(tile.out)
        assert place.region is not None
        assert address is not None
        for t in transfers(place, self.made(tile.out), self._output_strides(tile.out)):
            if t.contiguous:
                self.out.run(StoreCopy(region=place.region, offset=t.dram, sram=address + t.sram, bytes=t.run))
                continue
            self.out.setup(StoreShape, *t.counts, t.run)
            self.out.setup(StoreStrides, *t.dram_strides, *t.sram_strides)
            self.out.run(StoreTile(region=place.region, offset=t.dram, sram=address + t.sram))

    def row_vector(self, number: int, tile: Tile) -> tuple[int, int]:
        """Address of row result ``number`` of the tile's first row, and bytes between rows."""
        box = self.tiling.row_box(tile.out)
        rows, before = box.h.size * box.w.size, 0
        ring = self.rings["rows", -1]
        for stage in self.tiling.spec.stages:
            if number < before + stage.results:
                return ring.address + 4 * (rows * before + number - before), 4 * stage.results
            before += stage.results
        raise AssertionError(f"row result {number} of {before}")


def _sizes(box: Box) -> Shape4:
    return (box.n.size, box.h.size, box.w.size, box.c.size)
