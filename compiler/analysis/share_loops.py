"""Which neighbouring kernels share a loop: those between which a tensor would otherwise go to DRAM and back.

Loops also make room: a tensor that lived through kernels whose operands filled the SRAM may stay there once they need
no more than stripes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compiler.analysis.cost import aligned
from compiler.analysis.graph import KernelGraph, Storage
from compiler.analysis.loop_price import loop_cycles
from compiler.analysis.memory import residency
from compiler.analysis.overwrite import overwrites, read_beside
from compiler.analysis.schedule_cache import ScheduleCache
from compiler.analysis.stripes import Group, Shared, share, stripe_rows, with_stripes
from compiler.analysis.tile_search import TRAFFIC_PRICE, Choice, price
from compiler.ir.schedule import KernelSchedule
from isa.machine import Machine

LEAST_BUDGET = 1 << 12
"""Bytes of SRAM below which no kernel is asked to fit."""
MOST_KERNELS = 64
"""Kernels of one loop: more are not tried, so that the search stays linear in the size of the model."""

LEAST_IDLE = 0.015
"""The part of the time of kernels, between which all stays in SRAM, that a loop must be able to save to be tried."""
MOST_DEARER = 2
"""Sizes of stripes that are dearer than a larger one, after which no smaller ones are tried."""
MOST_STRIPES = 512
"""Stripes of a loop: turns of kernels cost more than smaller ones save."""
MOST_TRIED = 4
"""Larger groups that are tried where one gains nothing, and tensors beside a loop that may go to DRAM for it."""


class Found(NamedTuple):
    """How a group may run: price, schedule and cost of each kernel, and its stripes unless it is one kernel."""

    price: float
    choices: Sequence[Choice]
    shared: Shared | None


class Plan(NamedTuple):
    """Groups with the way in which each is to run; ``leaves`` is a tensor that no longer stays in SRAM."""

    loops: Sequence[tuple[Group, Found]]
    leaves: Storage | None = None


@dataclass
class LoopSearch:
    """Greedy: for each tensor that goes through DRAM, the kernels that it spans share a loop if that is cheaper."""

    graph: KernelGraph
    machine: Machine
    schedules: ScheduleCache
    capacity: int
    resident: frozenset[int]
    chosen: list[Choice]
    groups: dict[int, Group] = field(default_factory=dict[int, Group])
    """The loop of each kernel that shares one."""
    _prices: dict[Group, float] = field(default_factory=dict[Group, float])
    _known: dict[tuple[Group, frozenset[int]], Found | None] = field(
        default_factory=dict[tuple[Group, frozenset[int]], Found | None]
    )

    def __post_init__(self) -> None:
        self._old = overwrites(self.graph)
        self._alive: list[set[int]] = [set() for _ in self.graph.steps]
        for index in self.resident:
            self._live(self.graph.storages[index], present=True)

    def run(self) -> tuple[frozenset[int], list[Choice]]:
        """What stays in SRAM as a whole, and the schedule of every kernel."""
        for storage in self._candidates():
            group = self._hull(storage.first, storage.last)
            if not self._try([Plan(self._found([group]))]):
                self._try([plan for wider in (group, *self._wider(group)) for plan in self._plans(wider)])
        for storage in self._whole():
            group = self._hull(storage.first, storage.last)
            if self._idle(group) > LEAST_IDLE:
                self._try([Plan(self._found([group]))])
        for storage in self._candidates():
            if storage.bytes < self.capacity and not self._inside(storage):
                self._keep(storage)
        return self.resident, self.chosen

    def _candidates(self) -> list[Storage]:
        """Tensors between kernels that go through DRAM, those with most traffic first."""
        found = [s for s in self.graph.storages if s.region is None and s.first < s.last]
        return sorted(
            (s for s in found if s.index not in self.resident), key=lambda s: (-s.bytes * (1 + s.readers), s.index)
        )

    def _whole(self) -> list[Storage]:
        """Tensors that stay in SRAM as a whole, largest first: as stripes, what is read for them may come meanwhile."""
        found = [self.graph.storages[s] for s in self.resident]
        return sorted((s for s in found if s.first < s.last), key=lambda s: (-s.bytes, s.index))

    def _idle(self, group: Group) -> float:
        """The part of a group's time in which its busiest engine has nothing to do: more a loop cannot save."""
        costs = [self.chosen[i][1] for i in group.steps]
        busy = max(sum(c.mmu for c in costs), sum(c.vcu for c in costs), sum(c.dma for c in costs))
        return 1 - busy / max(sum(c.cycles for c in costs), 1)

    def _inside(self, storage: Storage) -> bool:
        """Whether a storage lives in one loop alone."""
        group = self.groups.get(storage.first)
        return group is not None and storage.last <= group.last

    def _live(self, storage: Storage, present: bool) -> None:
        """Record that a storage lies, or does not lie, in SRAM while it lives."""
        for i in range(storage.first, storage.last + 1):
            (self._alive[i].add if present else self._alive[i].discard)(storage.index)

    def _unit(self, step: int) -> Group:
        """The loop of a kernel: most have one for themselves."""
        return self.groups.get(step, Group(step, step))

    def _hull(self, first: int, last: int) -> Group:
        """The kernels ``first`` .. ``last``, and those that share a loop with one of them."""
        return Group(self._unit(first).first, self._unit(last).last)

    def _units(self, group: Group) -> Iterator[Group]:
        """The loops in which a group's kernels run now."""
        step = group.first
        while step <= group.last:
            yield (unit := self._unit(step))
            step = unit.last + 1

    def _now(self, group: Group) -> float:
        """The price of a group's kernels and loops as they are."""
        units = ((unit, self._prices.get(unit)) for unit in self._units(group))
        return sum(price(self.chosen[unit.first][1]) if known is None else known for unit, known in units)

    def _try(self, plans: Sequence[Plan]) -> bool:
        """Whether one of the plans was taken: the one that leaves the least part of what its kernels took."""
        shares = [self._left(plan) for plan in plans]
        if min(shares, default=1.0) >= 1:
            return False
        plan = plans[shares.index(min(shares))]
        if plan.leaves is not None:
            self._place(plan.leaves, present=False)
        for group, found in plan.loops:
            self._take(group, found)
        return True

    def _left(self, plan: Plan) -> float:
        """The price of a plan's kernels in it, as a part of what they take now."""
        now = sum(self._now(group) for group, _ in plan.loops)
        return sum(found.price for _, found in plan.loops) / now if plan.loops else 1.0

    def _found(self, groups: Sequence[Group]) -> list[tuple[Group, Found]]:
        """The cheapest way to run each group; nothing where there is none for one of them."""
        found = [(group, best) for group in groups if (best := self._best(group)) is not None]
        return found if len(found) == len(groups) else []

    def _plans(self, group: Group) -> list[Plan]:
        """A loop for a group; if it has no room, with one of the tensors that lie beside it in DRAM."""
        if self._best(group) is not None:
            return [Plan(self._found([group]))]
        beside = (self.graph.storages[s] for s in self._present(group))
        largest = sorted(beside, key=lambda s: (-s.bytes, s.index))[:MOST_TRIED]
        return [plan for storage in largest for plan in self._leaving(group, storage)]

    def _leaving(self, group: Group, storage: Storage) -> Iterator[Plan]:
        """A loop for a group without a tensor that now stays in SRAM, and the loops that it spans beside the group."""
        around = self._hull(min(storage.first, group.first), max(storage.last, group.last))
        if around == group:
            return
        outside = [unit for unit in self._units(around) if unit.last < group.first or unit.first > group.last]
        self._place(storage, present=False)
        plan = Plan(self._found([group, *outside]), storage)
        self._place(storage, present=True)
        yield plan

    def _present(self, group: Group) -> frozenset[int]:
        """Storages that lie in SRAM during some kernel of a group."""
        return frozenset[int]().union(*(self._alive[i] for i in group.steps))

    def _place(self, storage: Storage, present: bool) -> None:
        """Let a tensor lie in SRAM as a whole, or not."""
        self.resident = self.resident | {storage.index} if present else self.resident - {storage.index}
        self._live(storage, present)

    def _take(self, group: Group, found: Found) -> None:
        for unit in list(self._units(group)):
            self._prices.pop(unit, None)
        for index, choice in zip(group.steps, found.choices, strict=True):
            self.chosen[index] = choice
        if found.shared is None:
            return
        self._prices[group] = found.price
        for index, (schedule, cost) in zip(group.steps, found.choices, strict=True):
            self.groups[index] = group
            self.chosen[index] = with_stripes(schedule, found.shared, index), cost
        for index in self.resident & found.shared.held.keys():
            self._live(self.graph.storages[index], present=False)
        self.resident = self.resident.difference(found.shared.held)

    def _keep(self, storage: Storage) -> None:
        """Let a storage stay in SRAM if the kernels that it spans get cheaper together, some in larger loops."""
        self._place(storage, present=True)
        taken = self._rearranged(storage)
        if sum(gain for _, _, gain in taken) > 0:
            for group, found, _ in taken:
                self._take(group, found)
            return
        self._place(storage, present=False)

    def _rearranged(self, storage: Storage) -> list[tuple[Group, Found, float]]:
        """Loops for all kernels that a storage spans, with it in SRAM, and what each gains; nothing where one fails."""
        taken: list[tuple[Group, Found, float]] = []
        step = self._unit(storage.first).first
        while step <= storage.last:
            best: tuple[float, int, Group, Found] | None = None
            for group in self._options(self._unit(step)):
                kept = sum(other.last < group.first for other, _, _ in taken)
                found = None if taken[kept:] and taken[kept][0].first < group.first else self._best(group)
                if found is None:
                    continue
                gain = self._now(group) - found.price
                if best is None or gain - sum(g for _, _, g in taken[kept:]) > best[0]:
                    best = gain - sum(g for _, _, g in taken[kept:]), kept, group, found
            if best is None:
                return []
            _, kept, group, found = best
            taken = [*taken[:kept], (group, found, self._now(group) - found.price)]
            step = group.last + 1
        return taken

    def _options(self, unit: Group) -> Iterator[Group]:
        """A loop; if it has no room, or none for double-buffering, larger ones in which more would be stripes."""
        yield unit
        found = self._best(unit)
        if found is None or (found.shared is None and self._serial(found.choices[0][0])):
            yield from self._wider(unit)

    def _serial(self, schedule: KernelSchedule) -> bool:
        """Whether rings have one slot each where more are asked for."""
        slots = schedule.input_slots, schedule.weight_slots, schedule.stream_slots, schedule.output_slots
        return max(slots) < self.schedules.slots

    def _wider(self, group: Group) -> list[Group]:
        """Larger groups, short ones first, in which some tensor that goes in or out of this one lies within."""
        steps = [self.graph.steps[i] for i in group.steps]
        values = {v for step in steps for v in (*step.values, step.op.output) if v is not None}
        spans = [s for s in (self.graph.placed[v].storage for v in values) if s.region is None and s.last >= 0]
        firsts = {group.first, *(s.first for s in spans if s.first < group.first)}
        lasts = {group.last, *(s.last for s in spans if s.last > group.last)}
        wider = {self._hull(first, last) for first in firsts for last in lasts}.difference([group])
        return sorted(wider, key=lambda g: (g.last - g.first, g.first))[:MOST_TRIED]

    def _used(self, group: Group, stay: frozenset[int]) -> int:
        """Bytes that the storages which stay in SRAM take during a group."""
        used = sum(aligned(self.graph.storages[s].bytes) for s in stay)
        for new in stay:
            storage, old = self.graph.storages[new], self._old.get(new, -1)
            step = self.graph.steps[storage.first]
            if old in stay and not read_beside(self.graph, step, old, [group]):
                used -= aligned(storage.bytes)
        return used

    def _best(self, group: Group) -> Found | None:
        """The cheapest way to run a group in one loop; None where there is none."""
        if group.last - group.first >= MOST_KERNELS:
            return None
        key = group, self._present(group)
        if key not in self._known:
            self._known[key] = self._search(*key)
        return self._known[key]

    def _grain(self, group: Group) -> int:
        """How many rows of a group's last kernel are one of the kernel with the fewest rows, where they are so many."""
        rows = stripe_rows(self.graph, group)
        fewest = min(stripe_rows(self.graph, Group(i, i)) for i in group.steps)
        return rows // fewest if rows % fewest == 0 else 1

    def _search(self, group: Group, present: frozenset[int]) -> Found | None:
        """The cheapest way to run a group while the storages ``present`` lie in SRAM."""
        if group.first == group.last:
            choice = self._choose(group.first, present, self.capacity - self._used(group, present), ())
            return None if choice is None else Found(price(choice[1]), [choice], None)
        best: Found | None = None
        dearer = 0
        for ends in stripe_ends(stripe_rows(self.graph, group), self._grain(group)):
            shared = share(self.graph, group, ends)
            if shared is None:
                return None
            stay = present.difference(shared.held)
            choices = self._fit(shared, stay, self.capacity - shared.ring_bytes - self._used(group, stay))
            if choices is None:
                continue
            total = self._price(choices, shared, stay.union(shared.held))
            dearer = 0 if best is None or total < best.price else dearer + 1
            if not dearer:
                best = Found(total, choices, shared)
            elif dearer == MOST_DEARER:
                break
        return best

    def _price(self, choices: Sequence[Choice], shared: Shared, in_sram: frozenset[int]) -> float:
        """Of a loop."""
        cycles = loop_cycles(self.graph, shared, choices, in_sram, self.machine, self.schedules.slots > 1)
        return cycles + TRAFFIC_PRICE * sum(cost.dma for _, cost in choices)

    def _fit(self, shared: Shared, stay: frozenset[int], budget: int) -> list[Choice] | None:
        """Schedules of the group's kernels that fit ``budget`` together: no kernel may take more than a cap."""
        cap, in_sram = budget, stay.union(shared.held)
        while cap >= LEAST_BUDGET:
            choices = list[Choice]()
            for index in shared.group.steps:
                choice = self._choose(index, in_sram, cap, shared.ends[index])
                if choice is None:
                    return None
                choices.append(choice)
            if sum(cost.sram_bytes for _, cost in choices) <= budget:
                return choices
            cap //= 2
        return None

    def _choose(self, index: int, in_sram: frozenset[int], cap: int, ends: tuple[int, ...]) -> Choice | None:
        step = self.graph.steps[index]
        stays = residency(self.graph, step, in_sram)
        return self.schedules.choose(step.spec, step.nodes, stays, cap, ends)


def stripe_ends(rows: int, grain: int) -> Iterator[tuple[int, ...]]:
    """Ends of stripes: halves, quarters, ... down to ``grain`` rows."""
    pieces, previous = 2, 0
    while previous != grain and rows > grain and pieces <= MOST_STRIPES:
        size = -(-rows // (pieces * grain)) * grain
        if size != previous:
            yield (*range(size, rows, size), rows)
        previous, pieces = size, 2 * pieces
