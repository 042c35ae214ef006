"""Plan memory: which storages stay in SRAM, and the address of every storage and ring."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compiler.analysis.cost import ACC_ROLES, ChannelSize, Residency, aligned, channels
from compiler.analysis.graph import KernelGraph, Step, Storage
from compiler.analysis.overwrite import overwrites
from compiler.analysis.stripes import Group, Shared, kept_by, shared_loops, widened
from compiler.analysis.tile_search import check_schedule
from compiler.backend.allocate import Allocation, AllocationError, Interval, allocate
from compiler.ir.kernel import MatrixAnchor
from compiler.ir.location import where
from compiler.ir.place import Place, Stripes
from compiler.ir.schedule import Schedule
from compiler.ir.tiling import Tiling
from isa.errors import ScheduleError, UnsupportedError
from isa.instructions import Region
from isa.machine import Machine

PREFETCH_KERNELS = 4
"""How many kernels ahead weights may arrive; the queues of the engines reach no further."""

RingKey = tuple[int, str, int]
"""(step, role, operand)"""


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Addresses of storages (by index) and rings, and the sizes of the DRAM regions.

    Of storages between kernels that share a loop (``loops``) only a ring lies in SRAM.
    """

    resident: frozenset[int]
    loops: tuple[Shared, ...]
    storages: Mapping[int, int]
    rings: Mapping[RingKey, int]
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    sram_peak_bytes: int

    @cached_property
    def stripes(self) -> Mapping[int, Stripes]:
        """The rings, by index of the storage."""
        return {s: ring for loop in self.loops for s, ring in loop.held.items()}

    def place(self, storage: Storage, offset: int, strides: tuple[int, int, int, int], element: int) -> Place:
        """Where a value of ``storage`` lies."""
        held = self.stripes.get(storage.index)
        region = None if storage.index in self.resident or held else storage.region or Region.ARENA
        return Place(region, self.storages[storage.index] + offset, strides, element, held)


def residency(graph: KernelGraph, step: Step, resident: Collection[int]) -> Residency:
    """Which operands and whether the result of ``step`` are among the storages that lie in SRAM, and how others lie."""
    values = [v is not None and graph.placed[v].storage.index in resident for v in step.values]
    output = graph.placed[step.op.output].storage.index in resident
    gaps = (None if on else strides for on, strides in zip((*values, output), graph.gaps[step.index], strict=True))
    return Residency(tuple(values), output, tuple(gaps))


def in_sram(graph: KernelGraph, schedule: Schedule) -> frozenset[int]:
    """Storages that lie in SRAM, whole or stripe by stripe."""
    return kept_by(graph, schedule).union(*(loop.held for loop in shared_loops(graph, schedule)))


def plan_memory(graph: KernelGraph, schedule: Schedule, machine: Machine) -> MemoryPlan:
    """Addresses for everything; raises ScheduleError (AllocationError) naming what is alive where it does not fit."""
    loops = shared_loops(graph, schedule)
    groups = [loop.group for loop in loops]
    resident = kept_by(graph, schedule)
    rows = schedule.by_name()
    on_chip = resident.union(*(loop.held for loop in loops))
    rings = [channels(Tiling(s.spec, rows[s.spec.name]), residency(graph, s, on_chip), machine) for s in graph.steps]
    sram = _sram(graph, rings, resident, loops, machine)
    addresses = accumulator_addresses(rings, groups, machine.acc.bytes)
    for i, sizes in enumerate(rings):
        keys = [(i, r.role, r.operand) for r in sizes]
        addresses |= {key: sram[key] for key in keys if key not in addresses}
    storages: dict[int, int] = {s: sram[s] for s in on_chip}
    arena = allocate(
        (
            Interval(s.index, first, last + 1, aligned(s.bytes))
            for s in graph.storages
            for first, last in [widened(s.first, s.last, groups)]
            if s.region is None and s.index not in on_chip and s.last >= 0
        ),
        align=64,
    )
    storages |= {s.index: arena[s.index] for s in graph.storages if s.index in arena}
    sizes = {region: _pack_arguments(graph, region, storages) for region in (Region.INPUT, Region.OUTPUT)}
    return MemoryPlan(
        resident,
        loops,
        storages,
        addresses,
        sizes[Region.INPUT],
        sizes[Region.OUTPUT],
        arena.used_bytes,
        sram.used_bytes,
    )


def accumulator_addresses(
    rings: Sequence[tuple[ChannelSize, ...]], groups: Sequence[Group], capacity: int
) -> dict[RingKey, int]:
    """Addresses in the accumulators: beside those of the kernel before where both fit, so that no product waits for it.

    Kernels that share a loop lie side by side, or where that is too much, one over the other; each loop or kernel
    starts at the bottom or ends at the top in turn.
    """
    addresses: dict[RingKey, int] = {}
    top = False
    for first, last in sorted({widened(i, i, groups) for i in range(len(rings))}):
        sizes = [sum(r.bytes for r in rings[i] if r.role in ACC_ROLES) for i in range(first, last + 1)]
        beside = sum(sizes) <= capacity
        at = capacity - (sum(sizes) if beside else max(sizes)) if top else 0
        for i, size in zip(range(first, last + 1), sizes, strict=True):
            start = at
            for r in (r for r in rings[i] if r.role in ACC_ROLES):
                addresses[i, r.role, r.operand] = start
                start += r.bytes
            at += size if beside else 0
        top ^= any(sizes)
    return addresses


def _pack_arguments(graph: KernelGraph, region: Region, storages: dict[int, int]) -> int:
    offset = 0
    for storage in sorted((s for s in graph.storages if s.region is region), key=lambda s: s.argument):
        storages[storage.index] = offset
        offset += aligned(storage.bytes)
    return offset


def _sram(
    graph: KernelGraph,
    rings: list[tuple[ChannelSize, ...]],
    resident: frozenset[int],
    loops: Sequence[Shared],
    machine: Machine,
) -> Allocation:
    """SRAM addresses; weights start a kernel early where there is room, so that they arrive behind other work."""
    groups = [loop.group for loop in loops]
    owner = _owners(graph, resident, groups)
    spans: dict[int, tuple[int, int]] = {}
    for storage in (s for s in graph.storages if s.index in resident):
        first, last = spans.get(owner[storage.index], (storage.first, storage.last))
        spans[owner[storage.index]] = widened(min(first, storage.first), max(last, storage.last), groups)
    fixed = [Interval(i, first, last + 1, aligned(graph.storages[i].bytes)) for i, (first, last) in spans.items()]
    for loop in loops:
        for s, ring in loop.held.items():
            fixed.append(Interval(s, loop.group.first, loop.group.last + 1, ring.slots * ring.slot_bytes))
    alive = [widened(i, i, groups) for i in range(len(rings))]
    latest = [first for first, _ in alive]
    early = _prefetch(graph, rings, resident, loops, machine)
    for starts in (early, [max(i - 1, s) for i, s in zip(latest, early, strict=True)], latest):
        requests = [*fixed]
        for i, sizes in enumerate(rings):
            for r in sizes:
                start = starts[i] if r.role in ("weight", "params") else latest[i]
                if r.role not in ACC_ROLES:
                    requests.append(Interval((i, r.role, r.operand), max(start, 0), alive[i][1] + 1, r.bytes))
        try:
            found = allocate(requests, machine.sram.bytes, align=64)
            return replace(found, addresses={**found, **{s: found[o] for s, o in owner.items()}})
        except AllocationError:
            if starts is latest:
                raise
    raise AssertionError("the last try raises")


def _owners(graph: KernelGraph, resident: frozenset[int], groups: Sequence[Group]) -> dict[int, int]:
    """Resident storage -> the first of those that have its bytes one after the other, by overwriting."""
    old, owner = overwrites(graph, groups), dict[int, int]()
    for storage in sorted((s for s in graph.storages if s.index in resident), key=lambda s: s.first):
        owner[storage.index] = owner.get(old.get(storage.index, -1), storage.index)
    return owner


def _prefetch(
    graph: KernelGraph,
    rings: list[tuple[ChannelSize, ...]],
    resident: frozenset[int],
    loops: Sequence[Shared],
    machine: Machine,
) -> list[int]:
    """The kernel from which on each kernel's weights may arrive: as early as there is room, without a gap."""
    limit = machine.sram.bytes * 9 // 10
    groups = [loop.group for loop in loops]
    sizes = [sum(r.bytes for r in each if r.role not in ACC_ROLES) for each in rings]
    used = [u + size for u, size in zip(resident_bytes(graph, resident, groups), sizes, strict=True)]
    for loop in loops:
        for i in loop.group.steps:
            used[i] += loop.ring_bytes + sum(sizes[j] for j in loop.group.steps if j != i)
    starts: list[int] = []
    for i, each in enumerate(rings):
        weights = sum(r.bytes for r in each if r.role in ("weight", "params"))
        first, _ = widened(i, i, groups)
        start = first
        while start > max(0, first - PREFETCH_KERNELS) and used[start - 1] + weights <= limit:
            start -= 1
            used[start] += weights
        starts.append(start)
    return starts


def resident_bytes(graph: KernelGraph, resident: Collection[int], groups: Sequence[Group] = ()) -> list[int]:
    """SRAM bytes that storages take during each kernel."""
    used = [0] * len(graph.steps)
    spans = {s.index: widened(s.first, s.last, groups) for s in graph.storages if s.index in resident}
    for index, (first, last) in spans.items():
        for i in range(first, last + 1):
            used[i] += aligned(graph.storages[index].bytes)
    for new, old in overwrites(graph, groups).items():
        if new in spans and old in spans:
            for i in range(spans[new][0], spans[old][1] + 1):
                used[i] -= aligned(graph.storages[new].bytes)
    return used


def check_modes(graph: KernelGraph, machine: Machine) -> None:
    """UnsupportedError, located, for a kernel whose matrix products need a mode that the machine was not built with."""
    for step in graph.steps:
        for anchor in (step.spec.anchor, step.spec.pool):
            if isinstance(anchor, MatrixAnchor) and not machine.mmu.has(anchor.mode):
                built = ", ".join(mode.name for mode in machine.mmu.modes)
                raise UnsupportedError(
                    f"kernel {step.spec.name!r} ({where(step.op) or step.op.name}) needs mode {anchor.mode.name} of "
                    f"the matrix unit, which {machine.name} lacks (it has {built}): quantize with other widths, or "
                    "compile for another machine"
                )


def check(graph: KernelGraph, schedule: Schedule, machine: Machine) -> None:
    """Raise ScheduleError unless ``schedule`` covers exactly the graph's kernels and each is legal."""
    if schedule.machine != machine.name:
        raise ScheduleError(f"the schedule is for machine {schedule.machine!r}, not {machine.name!r}")
    rows = schedule.by_name()
    names = {s.spec.name for s in graph.steps}
    if missing := sorted(names - set(rows)):
        raise ScheduleError(f"the schedule lacks kernel {missing[0]!r}")
    if extra := sorted(set(rows) - names):
        raise ScheduleError(f"the schedule has kernel {extra[0]!r}, which the model does not")
    loops = shared_loops(graph, schedule)
    resident = kept_by(graph, schedule)
    on_chip = resident.union(*(loop.held for loop in loops))
    used = resident_bytes(graph, resident, [loop.group for loop in loops])
    for loop in loops:
        own: dict[int, int] = {}
        for step in (graph.steps[i] for i in loop.group.steps):
            tiling = Tiling(step.spec, rows[step.spec.name])
            rings = channels(tiling, residency(graph, step, on_chip), machine)
            own[step.index] = sum(ring.bytes for ring in rings if ring.role not in ACC_ROLES)
        beside = loop.ring_bytes + sum(own.values())
        for index, taken in own.items():
            used[index] += beside - taken
    for step in graph.steps:
        budget = machine.sram.bytes - used[step.index]
        check_schedule(step.spec, rows[step.spec.name], residency(graph, step, on_chip), machine, budget)
