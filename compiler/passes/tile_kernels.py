"""Pass ``tile-kernels``: give every kernel its schedule, rings and loops (kern -> tile)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import LocationAttr, ModuleOp
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass

from compiler.analysis.cost import Residency, channels
from compiler.analysis.graph import Step, build_graph
from compiler.analysis.memory import check, check_modes, in_sram, residency
from compiler.analysis.residency import choose
from compiler.dialects.tile import (
    ChannelOp,
    CopyOp,
    EpilogueOp,
    ForOp,
    KernelOp,
    LoadOp,
    MmaOp,
    PoolOp,
    ProductOp,
    StoreOp,
    VectorOp,
)
from compiler.ir.kernel import CopyAnchor, MatrixAnchor
from compiler.ir.location import origins
from compiler.ir.schedule import KernelSchedule, Schedule
from compiler.ir.tiling import READS, Tiling
from isa.machine import Machine


@dataclass(frozen=True)
class TileKernelsPass(ModulePass):
    """Choose a schedule for ``machine`` (or take the file ``schedule``) and write it out as rings and loops.

    ``slots`` is the depth of rings: 2 double-buffers, 1 does not; ``share_loops`` lets kernels run stripe by stripe.
    """

    name = "tile-kernels"

    machine: str = "edge28"
    schedule: str = ""
    slots: int = 2
    share_loops: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = Machine.load(self.machine)
        given = Schedule.from_toml(Path(self.schedule).read_text(), self.schedule) if self.schedule else None
        tile_kernels(op, machine, given, self.slots, self.share_loops)


def tile_kernels(
    module: ModuleOp, machine: Machine, given: Schedule | None = None, slots: int = 2, share_loops: bool = True
) -> Schedule:
    """Replace every kern.kernel by a tile.kernel; returns the schedule. Raises ScheduleError."""
    graph = build_graph(module)
    check_modes(graph, machine)
    schedule = given if given is not None else choose(graph, machine, slots, share_loops)
    check(graph, schedule, machine)
    held = in_sram(graph, schedule)
    rows = schedule.by_name()
    for step in graph.steps:
        _replace(step, rows[step.spec.name], residency(graph, step, held), machine)
    return schedule


def _replace(step: Step, row: KernelSchedule, stays: Residency, machine: Machine) -> None:
    old = step.op
    steps = _Steps(step, Tiling(step.spec, row), stays, machine).build()
    new = KernelOp(old.kernel.data, old.inputs, old.detach_region(old.body), old.output.type, row, steps)
    new.location = old.location
    new.output.name_hint = old.output.name_hint
    block = old.parent
    assert block is not None
    block.insert_op_before(new, old)
    old.output.replace_all_uses_with(new.output)
    old.detach()
    old.erase()


@dataclass
class _Steps:
    """Builds the steps region of one kernel."""

    step: Step
    tiling: Tiling
    stays: Residency
    machine: Machine

    def build(self) -> Region:
        """Rings, then the loop nest in schedule order with the reduction innermost."""
        spec = self.tiling.spec
        rings = {
            (c.role, c.operand): ChannelOp(c.role, c.operand, c.slots, c.slot_bytes)
            for c in channels(self.tiling, self.stays, self.machine)
        }
        self._first, self._last = self._locations()
        outer, inner = self._bodies(rings)
        body = [*(self._reduction(inner) if inner else ()), *outer]
        sizes = dict(zip("nhwc", spec.output, strict=True))
        for dim in reversed(self.tiling.schedule.order):
            ranges = self.tiling.ranges[dim]
            if len(ranges) > 1:
                step = max(piece.size for piece in ranges)
                body = [self._at_anchor(ForOp(dim, sizes[dim], step, Region(Block(body))))]
        for (role, operand), ring in rings.items():
            ring.location = self._operand_location(operand) if role in READS else self._first
        return Region(Block([*rings.values(), *body]))

    def _bodies(self, rings: dict[tuple[str, int], ChannelOp]) -> tuple[list[Operation], list[Operation]]:
        """(steps once per output tile, steps once per reduction chunk)."""
        spec = self.tiling.spec
        matrix = isinstance(spec.anchor, MatrixAnchor)
        reduced = ("act", "rhs", "weight") if matrix else ()
        inner: list[Operation] = []
        outer: list[Operation] = []
        behind: list[Operation] = []
        for (role, operand), ring in rings.items():
            if role in (*READS, "weight", "params"):
                load = LoadOp(ring)
                load.location = self._operand_location(operand) if role in READS else self._first
                late = spec.pool is not None and role in ("second", "pooled")
                (inner if role in reduced else behind if late else outer).append(load)
        if matrix:
            inner.append(self._at_anchor(MmaOp(_of(rings, *reduced, "acc"))))
        run = CopyOp if isinstance(spec.anchor, CopyAnchor) else VectorOp
        used = ("stream", "params", "acc", "rows", "inner") if matrix else (*READS, "params", "rows", "inner")
        vector = run(_of(rings, *used, *(() if spec.pool else ("output",))))
        vector.location = self._last
        outer.append(vector)
        outer += behind
        if spec.product is not None:
            product = ProductOp(_of(rings, "second", "inner", "product"))
            epilogue = EpilogueOp(_of(rings, "pooled", "params", "product", "output"))
            product.location = self._operand_location(spec.product.weight)
            epilogue.location = self._last
            outer += [product, epilogue]
        elif spec.pool is not None:
            pool = PoolOp(_of(rings, "pooled", "params", "inner", "output"))
            pool.location = self._last
            outer.append(pool)
        if ("output", -1) in rings:
            store = StoreOp(rings["output", -1])
            store.location = self._last
            outer.append(store)
        return outer, inner

    def _reduction(self, inner: list[Operation]) -> list[Operation]:
        chunks = self.tiling.reduction
        if len(chunks) == 1:
            return inner
        return [self._at_anchor(ForOp("k", chunks[-1].stop, chunks[0].size, Region(Block(inner))))]

    def _at_anchor(self, op: Operation) -> Operation:
        op.location = self._first
        return op

    def _locations(self) -> tuple[LocationAttr, LocationAttr]:
        found = origins(self.step.op)
        if not found:
            return self.step.op.location, self.step.op.location
        return found[0].attribute, found[-1].attribute

    def _operand_location(self, operand: int) -> LocationAttr:
        """Of the first op in the body that reads the operand: a residual's load belongs to the add."""
        op, value = self.step.op, self.step.values[operand]
        argument = next((a for a, v in zip(op.body.block.args, op.inputs, strict=True) if v is value), None)
        first = next(iter(argument.uses), None) if argument is not None else None
        found = origins(first.operation) if first is not None else ()
        return found[0].attribute if found else self._first


def _of(rings: dict[tuple[str, int], ChannelOp], *roles: str) -> list[ChannelOp]:
    return [ring for (role, _), ring in rings.items() if role in roles]
