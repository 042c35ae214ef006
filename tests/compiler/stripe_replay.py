"""Shared loops played on rings of bytes: every row must lie where it is read, and engines must not meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from compiler.analysis.graph import KernelGraph, Step
from compiler.analysis.stripes import Group, Shared, on_matrix_unit, share
from compiler.ir.place import Place
from compiler.ir.schedule import KernelSchedule
from compiler.ir.tiling import Box, Range, Tile, Tiling, Turn


@dataclass
class Replay:
    """A shared loop on rings whose bytes say which row of which image they are of."""

    found: KernelGraph
    shared: Shared
    bytes_: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])
    read: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    written: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """(storage, byte) of what the kernels of one engine did in this turn of the loop."""

    def run(self) -> None:
        """All turns in the order of the program; the two engines' kernels of a turn must not meet in a byte."""
        for index, ring in self.shared.held.items():
            self.bytes_[index] = np.full(ring.slots * ring.slot_bytes, -1)
        steps = [self.found.steps[i] for i in self.shared.group.steps]
        images, count = steps[-1].spec.output[0], len(self.shared.ends[self.shared.group.last])
        turns = [(n, j) for n in range(images) for j in range(count)]
        for time in range(len(turns) + max(self.shared.delays.values())):
            done = [self._engine(steps, turns, time, kind) for kind in (True, False)]
            for (read, written), (_, other) in (done, done[::-1]):
                assert not (read | written) & other

    def _engine(self, steps: list[Step], turns: list[tuple[int, int]], time: int, matrix: bool):
        self.read, self.written = set(), set()
        for step in steps:
            at = time - self.shared.delays[step.index]
            if on_matrix_unit(step) == matrix and 0 <= at < len(turns):
                self._turn(step, *turns[at])
        return self.read, self.written

    def _turn(self, step: Step, image: int, j: int) -> None:
        ends = (0, *self.shared.ends[step.index])
        rows = Range(ends[j], ends[j + 1])
        storage = self.found.placed[step.op.output].storage.index
        if (ring := self.shared.held.get(storage)) is not None:
            for row in range(*ring.carried(j, rows.start)):
                self._read(step, None, image, row, j - 1)
                self._write(step, image, row, j)
        for row in range(*rows):
            for operand, needed in operand_rows(step, row):
                for one in needed:
                    self._read(step, operand, image, one, j)
            self._write(step, image, row, j)

    def _cells(self, step: Step, operand: int | None, image: int, row: int, j: int) -> tuple[int, np.ndarray]:
        """Storage, and the addresses of the bytes of a row of an operand (None: of the result) in stripe ``j``."""
        value = step.op.output if operand is None else step.values[operand]
        assert value is not None
        placed = self.found.placed[value]
        ring = self.shared.held.get(placed.storage.index)
        if ring is None:
            return -1, np.arange(0)
        place = Place(None, placed.offset, placed.strides, placed.element, ring)
        base = place.at(Turn(image, j, Range(0, 0))).offset
        base += image * placed.strides[0] + row * placed.strides[ring.axis]
        cells = np.arange(placed.element) + base
        for axis in range(ring.axis + 1, 4):
            cells = (cells[:, None] + np.arange(placed.shape[axis]) * placed.strides[axis]).reshape(-1)
        slot = ring.slot(image, j) * ring.slot_bytes
        assert slot <= cells.min()
        assert cells.max() < slot + ring.slot_bytes
        return placed.storage.index, cells

    def _read(self, step: Step, operand: int | None, image: int, row: int, j: int) -> None:
        storage, cells = self._cells(step, operand, image, row, j)
        if storage >= 0:
            assert (self.bytes_[storage][cells] == 1000 * image + row).all(), f"{step.spec.name} reads row {row} in {j}"
            self.read |= {(storage, int(cell)) for cell in cells}

    def _write(self, step: Step, image: int, row: int, j: int) -> None:
        storage, cells = self._cells(step, None, image, row, j)
        if storage >= 0:
            self.bytes_[storage][cells] = 1000 * image + row
            self.written |= {(storage, int(cell)) for cell in cells}


def operand_rows(step: Step, row: int) -> Iterator[tuple[int, range]]:
    """The rows of each operand that a row of the result needs."""
    spec = step.spec
    axis = 1 if spec.output[1] > 1 else 2
    tiling = Tiling(spec, KernelSchedule(spec.name, (), *spec.output[1:], 1))
    box = Box(Range(0, 1), *(Range(0, size) for size in spec.output[1:]))
    box = box._replace(h=Range(row, row + 1)) if axis == 1 else box._replace(w=Range(row, row + 1))
    for role, operand in spec.reads:
        if operand not in spec.constants:
            yield operand, range(*tiling.box(role, operand, Tile(box, Range(0, 0), True, True))[axis])


def replay(found: KernelGraph, group: Group, ends: tuple[int, ...]) -> Shared:
    """The group as a loop whose replay found everything where it was read."""
    shared = share(found, group, ends)
    assert shared is not None
    Replay(found, shared).run()
    return shared
