"""Instructions of the matrix unit for a tile: products, trailing products, zero points and decode tables."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Operation

from compiler.analysis.cost import acc_pixel_bytes, row_bytes
from compiler.backend.emit_memory import TileMemory
from compiler.backend.emitter import Emitter
from compiler.backend.slots import View
from compiler.ir.kernel import MatrixAnchor
from compiler.ir.place import ELEMENT_BYTES
from compiler.ir.tiling import Box, Range, Tile, Tiling
from isa.instructions import DType, MmuCodes, MmuInput, MmuOutput, MmuRun, MmuTable, MmuWeight, MmuWindow, Mode


@dataclass
class MatrixEmitter:
    """Emits the matrix steps of one kernel."""

    tiling: Tiling
    memory: TileMemory
    out: Emitter

    def mma(self, op: Operation, tile: Tile) -> None:
        anchor = self.tiling.spec.anchor
        assert isinstance(anchor, MatrixAnchor)
        box = self.tiling.anchor_box(tile.out)
        slots = self.memory.rings["acc", -1]
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
        act_box, act = self.memory.view("act", anchor.act, tile)
        _, _, pad_top = window.input_range(0, box.h.start, box.h.stop, shape[1])
        _, _, pad_left = window.input_range(1, box.w.start, box.w.stop, shape[2])
        height, width = act_box.h.size, act_box.w.size
        dtype = self.tiling.spec.dtypes[anchor.act]
        # The distance of one row or pixel to none may exceed the field.
        row = act.strides[1] if height > 1 else 0
        pixel = act.strides[2] if width > 1 else row_bytes(inputs.size, dtype)
        out.setup(MmuInput, height, width, inputs.size, row, pixel)
        out.setup(MmuWindow, *window.kernel, *window.stride, *window.dilation, max(pad_top, 0), max(pad_left, 0))
        weight, row_stride = self._weights(anchor, tile, box, outputs)
        out.setup(MmuWeight, row_stride, int(anchor.dynamic_weight and not anchor.transposed))
        self._codes(anchor, tile, box, outputs)
        pixel = acc_pixel_bytes(box.c.size, self.memory.machine, anchor.mode)
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
        address = self.memory.rings["weight", anchor.weight].find(("weight", box.c, tile.k))
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
            address = self.memory.rings["weight", anchor.weight].find(("weight", box.c, tile.k))
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

    def product(self, op: Operation, tile: Tile) -> None:
        product, out = self.tiling.spec.product, self.out
        assert product is not None
        inner = self.tiling.anchor_box(tile.out)
        address = self.memory.rings["inner", -1].find(inner)
        assert address is not None
        strides = self.memory.inner_strides(inner)
        out.setup(MmuInput, inner.h.size, inner.w.size, inner.c.size, strides[1], strides[2])
        out.setup(MmuWindow, *product.window.kernel, *product.window.stride, *product.window.dilation, 0, 0)
        self._codes(product, tile, tile.out, tile.out.c)
        weight = self._factor("second", product, tile)
        out.setup(MmuWeight, weight.strides[2], int(not product.transposed))
        pixel = acc_pixel_bytes(tile.out.c.size, self.memory.machine, product.mode)
        out.setup(MmuOutput, inner.h.size, inner.w.size, pixel)
        acc = self.memory.rings["product", -1].push(tile.out)
        out.run(MmuRun(act=address, weight=weight.address, acc=acc, n=tile.out.c.size, mode=product.mode))

    def _factor(self, role: str, anchor: MatrixAnchor, tile: Tile) -> View:
        """An activation as the weight of a product."""
        return self.memory.view(role, anchor.weight, tile)[1]
