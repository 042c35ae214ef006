"""Plan memory: which storages stay in SRAM, and the address of every storage and ring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from compiler.analysis.cost import ACC_ROLES, ChannelSize, KernelCost, Residency, aligned, channels
from compiler.analysis.graph import KernelGraph, Step, Storage
from compiler.analysis.overwrite import overwrites
from compiler.analysis.tile_search import check_schedule, choose_schedule
from compiler.backend.allocate import Allocation, AllocationError, Interval, allocate
from compiler.ir.kernel import MatrixAnchor
from compiler.ir.location import where
from compiler.ir.place import Place
from compiler.ir.schedule import KernelSchedule, Schedule
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
    """Addresses of storages (by index) and rings, and the sizes of the DRAM regions."""

    resident: frozenset[int]
    storages: Mapping[int, int]
    rings: Mapping[RingKey, int]
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    sram_peak_bytes: int

    def place(self, storage: Storage, offset: int, strides: tuple[int, int, int, int], element: int) -> Place:
        """Where a value of ``storage`` lies."""
        region = None if storage.index in self.resident else storage.region or Region.ARENA
        return Place(region, self.storages[storage.index] + offset, strides, element)


def residency(graph: KernelGraph, step: Step, resident: frozenset[int]) -> Residency:
    """Which operands and whether the result of ``step`` stay in SRAM."""
    values = [v is not None and graph.placed[v].storage.index in resident for v in step.values]
    return Residency(tuple(values), graph.placed[step.op.output].storage.index in resident)


def kept_by(graph: KernelGraph, schedule: Schedule) -> frozenset[int]:
    """Storages whose every writer says ``keep``."""
    rows = schedule.by_name()
    keep: dict[int, bool] = {}
    for step in graph.steps:
        storage = graph.placed[step.op.output].storage
        if storage.region is None:
            keep[storage.index] = keep.get(storage.index, True) and rows[step.spec.name].keep
    return frozenset(index for index, kept in keep.items() if kept)


def plan_memory(graph: KernelGraph, schedule: Schedule, machine: Machine) -> MemoryPlan:
    """Addresses for everything; raises ScheduleError (AllocationError) naming what is alive where it does not fit."""
    resident = kept_by(graph, schedule)
    rows = schedule.by_name()
    rings = [
        channels(Tiling(s.spec, rows[s.spec.name]), residency(graph, s, resident), machine) for s in graph.steps
    ]
    sram = _sram(graph, rings, resident, machine)
    addresses: dict[RingKey, int] = {}
    for i, sizes in enumerate(rings):
        acc = 0
        for r in sizes:
            key = (i, r.role, r.operand)
            addresses[key] = acc if r.role in ACC_ROLES else sram[key]
            acc += r.bytes if r.role in ACC_ROLES else 0
    storages: dict[int, int] = {s: sram[s] for s in resident}
    arena = allocate(
        (
            Interval(s.index, s.first, s.last + 1, aligned(s.bytes))
            for s in graph.storages
            if s.region is None and s.index not in resident and s.last >= 0
        ),
        align=64,
    )
    storages |= {s.index: arena[s.index] for s in graph.storages if s.index in arena}
    sizes = {region: _pack_arguments(graph, region, storages) for region in (Region.INPUT, Region.OUTPUT)}
    return MemoryPlan(
        resident,
        storages,
        addresses,
        sizes[Region.INPUT],
        sizes[Region.OUTPUT],
        arena.used_bytes,
        sram.used_bytes,
    )


def _pack_arguments(graph: KernelGraph, region: Region, storages: dict[int, int]) -> int:
    offset = 0
    for storage in sorted((s for s in graph.storages if s.region is region), key=lambda s: s.argument):
        storages[storage.index] = offset
        offset += aligned(storage.bytes)
    return offset


def _sram(
    graph: KernelGraph, rings: list[tuple[ChannelSize, ...]], resident: frozenset[int], machine: Machine
) -> Allocation:
    """SRAM addresses; weights start a kernel early where there is room, so that they arrive behind other work."""
    owner = _owners(graph, resident)
    spans: dict[int, tuple[int, int]] = {}
    for storage in (s for s in graph.storages if s.index in resident):
        first, last = spans.get(owner[storage.index], (storage.first, storage.last))
        spans[owner[storage.index]] = min(first, storage.first), max(last, storage.last)
    fixed = [Interval(i, first, last + 1, aligned(graph.storages[i].bytes)) for i, (first, last) in spans.items()]
    early = _prefetch(graph, rings, resident, machine)
    for starts in (early, [max(i - 1, s) for i, s in enumerate(early)], list(range(len(rings)))):
        requests = [*fixed]
        for i, sizes in enumerate(rings):
            for r in sizes:
                start = starts[i] if r.role in ("weight", "params") else i
                if r.role not in ACC_ROLES:
                    requests.append(Interval((i, r.role, r.operand), start, i + 1, r.bytes))
        try:
            found = allocate(requests, machine.sram.bytes, align=64)
            return replace(found, addresses={**found, **{s: found[o] for s, o in owner.items()}})
        except AllocationError:
            if starts[-1] == len(rings) - 1 and starts == list(range(len(rings))):
                raise
    raise AssertionError("the last try raises")


def _owners(graph: KernelGraph, resident: frozenset[int]) -> dict[int, int]:
    """Resident storage -> the first of those that have its bytes one after the other, by overwriting."""
    old, owner = overwrites(graph), dict[int, int]()
    for storage in sorted((s for s in graph.storages if s.index in resident), key=lambda s: s.first):
        owner[storage.index] = owner.get(old.get(storage.index, -1), storage.index)
    return owner


def _prefetch(
    graph: KernelGraph, rings: list[tuple[ChannelSize, ...]], resident: frozenset[int], machine: Machine
) -> list[int]:
    """The kernel from which on each kernel's weights may arrive: as early as there is room, without a gap."""
    limit = machine.sram.bytes * 9 // 10
    used = resident_bytes(graph, resident)
    used = [u + sum(r.bytes for r in sizes if r.role not in ACC_ROLES) for u, sizes in zip(used, rings, strict=True)]
    starts: list[int] = []
    for i, sizes in enumerate(rings):
        weights = sum(r.bytes for r in sizes if r.role in ("weight", "params"))
        start = i
        while start > max(0, i - PREFETCH_KERNELS) and used[start - 1] + weights <= limit:
            start -= 1
            used[start] += weights
        starts.append(start)
    return starts


def resident_bytes(graph: KernelGraph, resident: frozenset[int]) -> list[int]:
    """SRAM bytes that storages take during each kernel."""
    used = [0] * len(graph.steps)
    for storage in graph.storages:
        if storage.index in resident:
            for i in range(storage.first, storage.last + 1):
                used[i] += aligned(storage.bytes)
    for new, old in overwrites(graph).items():
        if {new, old} <= resident:
            used[graph.storages[new].first] -= aligned(graph.storages[new].bytes)
    return used


@dataclass
class _Search:
    """Greedy choice of what stays in SRAM: a storage stays if the kernels that it spans get cheaper together."""

    graph: KernelGraph
    machine: Machine
    slots: int
    capacity: int

    def __post_init__(self) -> None:
        self._memo: dict[object, tuple[KernelSchedule, KernelCost] | None] = {}
        self._old = overwrites(self.graph)
        self._new = {old: new for new, old in self._old.items()}

    def _added(self, storage: Storage, step: int, resident: frozenset[int]) -> int:
        """Bytes that ``storage`` takes during ``step`` beside ``resident`` ones: none where one hands its own over."""
        shared = (step == storage.first and self._old.get(storage.index) in resident) or (
            step == storage.last and self._new.get(storage.index) in resident
        )
        return 0 if shared else aligned(storage.bytes)

    def choose(self, step: Step, resident: frozenset[int], used: int) -> tuple[KernelSchedule, KernelCost] | None:
        """The best schedule of a kernel beside ``used`` bytes of resident storages."""
        budget = self.capacity - used
        stays = residency(self.graph, step, resident)
        key = (step.index, stays, budget)
        if key not in self._memo:
            self._memo[key] = choose_schedule(step.spec, step.nodes, stays, self.machine, budget, self.slots)
        return self._memo[key]

    def run(self) -> Schedule:
        """The schedule of the whole graph; raises ScheduleError when a kernel does not fit by itself."""
        resident: frozenset[int] = frozenset()
        used = [0] * len(self.graph.steps)
        chosen = [self._must(step) for step in self.graph.steps]
        for storage in self._candidates():
            trial = resident | {storage.index}
            span = range(storage.first, storage.last + 1)
            after = {
                i: self.choose(self.graph.steps[i], trial, used[i] + self._added(storage, i, resident)) for i in span
            }
            if any(choice is None for choice in after.values()):
                continue
            gain = sum(_weight(chosen[i][1]) for i in span) - sum(_weight(c[1]) for c in after.values() if c)
            if gain > 0:
                for i, choice in after.items():
                    assert choice is not None
                    used[i] += self._added(storage, i, resident)
                    chosen[i] = choice
                resident = trial
        return self._schedule(resident, chosen)

    def _candidates(self) -> list[Storage]:
        """Intermediate storages, those that save most traffic per byte and kernel first."""
        found = [s for s in self.graph.storages if s.region is None and s.last >= 0 and s.bytes < self.capacity]
        return sorted(found, key=lambda s: (-(1 + s.readers) / (s.last - s.first + 1), s.bytes, s.index))

    def _must(self, step: Step) -> tuple[KernelSchedule, KernelCost]:
        choice = self.choose(step, frozenset(), 0)
        if choice is None:
            raise ScheduleError(_too_large(step, self.machine))
        return choice

    def _schedule(self, resident: frozenset[int], chosen: list[tuple[KernelSchedule, KernelCost]]) -> Schedule:
        rows: list[KernelSchedule] = []
        for step, (schedule, _) in zip(self.graph.steps, chosen, strict=True):
            keep = self.graph.placed[step.op.output].storage.index in resident
            rows.append(replace(schedule, keep=keep))
        return Schedule(self.machine.name, tuple(rows))


def _weight(cost: KernelCost) -> float:
    """Cycles, and a little for traffic: what is free in time still costs energy."""
    return cost.cycles + 0.02 * cost.dma


def _too_large(step: Step, machine: Machine) -> str:
    return (
        f"kernel {step.spec.name!r} ({where(step.op) or step.op.name}) with output {step.spec.output} does not fit "
        f"{machine.name} ({machine.sram.bytes} bytes of SRAM, {machine.acc.bytes} of accumulators) in any tiling that "
        "was tried: use a larger machine or split the operator"
    )


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


def choose(graph: KernelGraph, machine: Machine, slots: int = 2) -> Schedule:
    """A schedule for the whole graph that is known to fit: retried with less SRAM if packing fragments it."""
    for percent in (94, 85, 75, 60, 45):
        schedule = _Search(graph, machine, slots, machine.sram.bytes * percent // 100).run()
        try:
            plan_memory(graph, schedule, machine)
        except AllocationError:
            continue
        return schedule
    raise ScheduleError(f"no packing of the SRAM of {machine.name} was found: use a larger machine")


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
    resident = kept_by(graph, schedule)
    used = resident_bytes(graph, resident)
    for step in graph.steps:
        budget = machine.sram.bytes - used[step.index]
        check_schedule(step.spec, rows[step.spec.name], residency(graph, step, resident), machine, budget)
