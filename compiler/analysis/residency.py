"""Choose what stays in SRAM, kernel schedules with it, and which neighbours share a loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler.analysis.cost import KernelCost, aligned
from compiler.analysis.graph import KernelGraph, Step, Storage
from compiler.analysis.memory import plan_memory, residency
from compiler.analysis.overwrite import overwrites
from compiler.analysis.schedule_cache import ScheduleCache
from compiler.analysis.share_loops import LoopSearch
from compiler.analysis.tile_search import price
from compiler.backend.allocate import AllocationError
from compiler.ir.location import where
from compiler.ir.schedule import KernelSchedule, Schedule
from isa.errors import ScheduleError
from isa.machine import Machine


@dataclass
class _Search:
    """Greedy choice of what stays in SRAM: a storage stays if the kernels that it spans get cheaper together."""

    graph: KernelGraph
    machine: Machine
    slots: int
    capacity: int
    share_loops: bool

    def __post_init__(self) -> None:
        self._schedules = ScheduleCache(self.machine, self.slots)
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
        stays = residency(self.graph, step, resident)
        return self._schedules.choose(step.spec, step.nodes, stays, self.capacity - used)

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
            gain = sum(price(chosen[i][1]) for i in span) - sum(price(c[1]) for c in after.values() if c)
            if gain > 0:
                for i, choice in after.items():
                    assert choice is not None
                    used[i] += self._added(storage, i, resident)
                    chosen[i] = choice
                resident = trial
        if not self.share_loops:
            return self._schedule(resident, chosen)
        loops = LoopSearch(self.graph, self.machine, self._schedules, self.capacity, resident, chosen)
        return self._schedule(*loops.run())

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


def _too_large(step: Step, machine: Machine) -> str:
    return (
        f"kernel {step.spec.name!r} ({where(step.op) or step.op.name}) with output {step.spec.output} does not fit "
        f"{machine.name} ({machine.sram.bytes} bytes of SRAM, {machine.acc.bytes} of accumulators) in any tiling that "
        "was tried: use a larger machine or split the operator"
    )


def choose(graph: KernelGraph, machine: Machine, slots: int = 2, share_loops: bool = True) -> Schedule:
    """A schedule for the whole graph that is known to fit: retried with less SRAM if packing fragments it."""
    for percent in (94, 85, 75, 60, 45):
        schedule = _Search(graph, machine, slots, machine.sram.bytes * percent // 100, share_loops).run()
        try:
            plan_memory(graph, schedule, machine)
        except AllocationError:
            continue
        return schedule
    raise ScheduleError(f"no packing of the SRAM of {machine.name} was found: use a larger machine")
