"""Where a tensor lies: an SRAM address or a DRAM region with an offset, and byte strides over (n, h, w, c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from compiler.ir.kernel import Shape4
from compiler.ir.tiling import Box, Range, Turn
from isa.instructions import DType, Region

MAX_COUNT = (1 << 16) - 1
MAX_BYTES = (1 << 24) - 1
ELEMENT_BYTES = {DType.I4: 1, DType.I8: 1, DType.I16: 2, DType.I32: 4, DType.F32: 4, DType.I64: 8}
"""Bytes between neighbouring stored elements; of 4-bit tensors an element is a byte with two codes."""


def stored(shape: Shape4, dtype: DType) -> tuple[Shape4, int]:
    """(n, h, w, c) of a tensor as it is stored, and the bytes of a stored element: two 4-bit codes share one byte."""
    n, h, w, c = shape
    return (n, h, w, -(-c // 2) if dtype is DType.I4 else c), ELEMENT_BYTES[dtype]


def stored_box(box: Box, dtype: DType) -> Box:
    """``box`` in stored elements; of 4-bit tensors its channels start at an even one."""
    return box if dtype is not DType.I4 else box._replace(c=Range(box.c.start // 2, -(-box.c.stop // 2)))


def packed_strides(shape: Shape4, element: int) -> Shape4:
    """Byte strides of a tensor that lies NHWC without gaps."""
    _, h, w, c = shape
    return (h * w * c * element, w * c * element, c * element, element)


def planar_strides(shape: Shape4, element: int) -> Shape4:
    """Byte strides, over (n, h, w, c), of a tensor that lies NCHW as PyTorch keeps it."""
    _, h, w, c = shape
    return (c * h * w * element, w * element, element, h * w * element)


@dataclass(frozen=True)
class Stripes:
    """A ring of SRAM slots that hold, stripe by stripe, the rows that are made and those that are still read."""

    axis: int
    """1 where stripes are rows, 2 where they are columns of a single row."""
    slots: int
    slot_bytes: int
    row_bytes: int
    """Of one row as the kernel makes it; one that reads it may see the same bytes in other rows, or as columns."""
    first_rows: tuple[int, ...]
    """The first row that is held during each stripe."""
    fills: tuple[int, ...]
    """How many slots of an image have been filled when each stripe is made: a stripe without new rows fills none."""

    def slot(self, image: int, stripe: int) -> int:
        """The slot that holds a stripe."""
        return (image * self.fills[-1] + self.fills[stripe] - 1) % self.slots

    def carried(self, stripe: int, made: int) -> Range:
        """Of the first ``made`` rows, those that a stripe copies from the slot before its own, if it has one."""
        if not stripe or self.fills[stripe] == self.fills[stripe - 1]:
            return Range(made, made)
        return Range(min(self.first_rows[stripe], made), made)


@dataclass(frozen=True)
class Place:
    """``region`` None is SRAM; ``offset`` in bytes; ``strides`` in bytes over (n, h, w, c)."""

    region: Region | None
    offset: int
    strides: Shape4
    element: int
    stripes: Stripes | None = None
    """Where only the stripes of a shared loop are held; ``offset`` is that of the first row in the first slot."""

    def at(self, turn: Turn | None) -> Place:
        """Where the rows lie that are held in ``turn``, as if the whole tensor lay there."""
        if turn is None or self.stripes is None:
            return self
        held = self.stripes
        before = held.first_rows[turn.stripe] * held.row_bytes + turn.image * self.strides[0]
        slot = held.slot(turn.image, turn.stripe)
        return replace(self, offset=self.offset + slot * held.slot_bytes - before, stripes=None)

    @property
    def resident(self) -> bool:
        """Whether the tensor lies in SRAM."""
        return self.region is None

    def address(self, box: Box) -> int:
        """Byte offset of the first element of ``box``."""
        return self.offset + sum(r.start * s for r, s in zip(box, self.strides, strict=True))


@dataclass(frozen=True)
class Transfer:
    """One DMA box: ``counts`` x runs of ``run`` bytes; offsets are relative to the box's ends."""

    dram: int
    sram: int
    run: int
    counts: tuple[int, int] = (1, 1)
    dram_strides: tuple[int, int] = (0, 0)
    sram_strides: tuple[int, int] = (0, 0)

    @property
    def bytes(self) -> int:
        """Bytes moved."""
        return self.run * self.counts[0] * self.counts[1]

    @property
    def contiguous(self) -> bool:
        """Whether one run is all."""
        return self.counts == (1, 1)


def _depth(place: Place, axis: int) -> tuple[bool, int, int]:
    """Sorts dimensions from the fastest in memory to the slowest; one that is repeated (stride 0) is the slowest."""
    return place.strides[axis] == 0, place.strides[axis], -axis


def buffer_strides(place: Place, box: Box) -> Shape4:
    """Strides of ``box`` packed in SRAM in the order in which it lies in DRAM, so that runs stay long."""
    order = sorted(range(1, 4), key=lambda axis: _depth(place, axis))
    strides = [0, 0, 0, 0]
    step = place.element
    for axis in order:
        strides[axis] = step
        step *= max(box[axis].size, 1)
    strides[0] = step
    return (strides[0], strides[1], strides[2], strides[3])


def transfers(place: Place, box: Box, sram_strides: Shape4) -> Iterator[Transfer]:
    """The DMA boxes that move ``box`` between DRAM and SRAM, longest runs first, within the ISA's field ranges."""
    if box.elements == 0:
        return
    run = place.element
    loops: list[tuple[int, int, int]] = []
    for axis in sorted(range(4), key=lambda axis: _depth(place, axis)):
        count, dram, sram = box[axis].size, place.strides[axis], sram_strides[axis]
        if count == 1:
            continue
        if not loops and dram == run == sram and run * count <= MAX_BYTES:
            run *= count
        else:
            loops.append((count, dram, sram))
    base = place.address(box)
    inner, outer = _hardware_loops(loops)
    for steps in product(*(range(count) for count, _, _ in outer)):
        dram = base + sum(i * d for i, (_, d, _) in zip(steps, outer, strict=True))
        sram = sum(i * s for i, (_, _, s) in zip(steps, outer, strict=True))
        (n0, d0, s0), (n1, d1, s1) = inner
        yield Transfer(dram, sram, run, (n0, n1), (d0, d1), (s0, s1))


Loop = tuple[int, int, int]


def _hardware_loops(loops: list[Loop]) -> tuple[tuple[Loop, Loop], list[Loop]]:
    """At most two loops whose fields fit go into the instruction; the rest is unrolled."""
    chosen = [x for x in loops if x[0] <= MAX_COUNT and max(x[1], x[2]) <= MAX_BYTES][:2]
    outer = [x for x in loops if x not in chosen]
    if len(set(loops)) != len(loops):
        chosen, outer = loops[:2], loops[2:]
    padded = [*chosen, (1, 0, 0), (1, 0, 0)]
    return (padded[0], padded[1]), outer
