"""Which neighbouring kernels share a loop: those between which a tensor would otherwise go to DRAM and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from compiler.analysis.cost import aligned
from compiler.analysis.graph import KernelGraph, Storage
from compiler.analysis.memory import residency
from compiler.analysis.stripes import Group, Shared, share, stripe_rows, with_stripes
from compiler.analysis.tile_search import Choice, choose_schedule, price
from isa.machine import Machine

STRIPE_CYCLES = 300
"""What a kernel's turn costs beside its tiles: its engines wait for the kernel before it."""
LEAST_BUDGET = 1 << 12
"""Bytes of SRAM below which no kernel is asked to fit."""


@dataclass
class LoopSearch:
    """Greedy: for each tensor that goes through DRAM, the kernels that it spans share a loop if that is cheaper."""

    graph: KernelGraph
    machine: Machine
    slots: int
    capacity: int
    resident: frozenset[int]
    chosen: list[Choice]
    groups: list[Group] = field(default_factory=list[Group])
    _memo: dict[object, Choice | None] = field(default_factory=dict[object, Choice | None])

    def run(self) -> tuple[frozenset[int], list[Choice]]:
        """What stays in SRAM as a whole, and the schedule of every kernel."""
        self._alive = self._residents()
        for storage in self._candidates():
            group = self._hull(storage)
            found = self._best(group)
            if found is None or found[0] >= sum(price(self.chosen[i][1]) for i in group.steps):
                continue
            _, shared, choices = found
            self.groups = [g for g in self.groups if g.last < group.first or group.last < g.first] + [group]
            self.resident -= shared.held.keys()
            for index, choice in zip(group.steps, choices, strict=True):
                self.chosen[index] = with_stripes(choice[0], shared, index), choice[1]
        return self.resident, self.chosen

    def _candidates(self) -> list[Storage]:
        """Tensors between kernels that go through DRAM, those with most traffic first."""
        found = [s for s in self.graph.storages if s.region is None and s.first < s.last]
        return sorted(
            (s for s in found if s.index not in self.resident), key=lambda s: (-s.bytes * (1 + s.readers), s.index)
        )

    def _residents(self) -> list[set[int]]:
        """The storages that lie in SRAM during each kernel."""
        alive: list[set[int]] = [set() for _ in self.graph.steps]
        for index in self.resident:
            storage = self.graph.storages[index]
            for i in range(storage.first, storage.last + 1):
                alive[i].add(index)
        return alive

    def _hull(self, storage: Storage) -> Group:
        """The kernels that a storage spans, and those that share a loop with one of them."""
        first, last = storage.first, storage.last
        for group in self.groups:
            if group.first <= storage.last and storage.first <= group.last:
                first, last = min(first, group.first), max(last, group.last)
        return Group(first, last)

    def _best(self, group: Group) -> tuple[float, Shared, list[Choice]] | None:
        """The cheapest stripes of a group: price, stripes, and the choice for each kernel."""
        best: tuple[float, Shared, list[Choice]] | None = None
        present = set[int]().union(*(self._alive[i] for i in group.steps)) & self.resident
        for ends in _stripes(stripe_rows(self.graph, group)):
            shared = share(self.graph, group, ends)
            if shared is None:
                return None
            stay = frozenset(present - shared.held.keys())
            budget = self.capacity - shared.ring_bytes - sum(aligned(self.graph.storages[s].bytes) for s in stay)
            choices = self._fit(shared, stay | shared.held.keys(), budget)
            if choices is None:
                continue
            total = sum(price(cost) for _, cost in choices) + self._turns(shared)
            if best is None or total < best[0]:
                best = total, shared, choices
        return best

    def _turns(self, shared: Shared) -> float:
        """Cycles of taking turns, and of carrying over the rows that the next stripe reads again."""
        carried = 0
        for index, ring in shared.held.items():
            storage = self.graph.storages[index]
            made = shared.ends[storage.first]
            rows = sum(max(end - first, 0) for end, first in zip(made, ring.first_rows[1:], strict=False))
            carried += rows * storage.bytes // made[-1]
        stripes = len(shared.ends[shared.group.last])
        return carried / self.machine.vcu.lanes + STRIPE_CYCLES * stripes * len(shared.ends)

    def _fit(self, shared: Shared, on_chip: frozenset[int], budget: int) -> list[Choice] | None:
        """Schedules of the group's kernels that fit ``budget`` together: no kernel may take more than a cap."""
        cap = budget
        while cap >= LEAST_BUDGET:
            choices = list[Choice]()
            for index in shared.group.steps:
                choice = self._choose(index, on_chip, cap, shared.ends[index])
                if choice is None:
                    return None
                choices.append(choice)
            if sum(cost.sram_bytes for _, cost in choices) <= budget:
                return choices
            cap //= 2
        return None

    def _choose(self, index: int, on_chip: frozenset[int], cap: int, ends: tuple[int, ...]) -> Choice | None:
        step = self.graph.steps[index]
        stays = residency(self.graph, step, on_chip)
        key = (index, stays, cap, ends)
        if key not in self._memo:
            self._memo[key] = choose_schedule(step.spec, step.nodes, stays, self.machine, cap, self.slots, ends)
        return self._memo[key]


def _stripes(rows: int) -> Iterator[tuple[int, ...]]:
    """Ends of stripes: halves, quarters, ... down to single rows."""
    pieces, previous = 2, 0
    while previous != 1 and rows > 1:
        size = -(-rows // pieces)
        if size != previous:
            yield (*range(size, rows, size), rows)
        previous, pieces = size, 2 * pieces
