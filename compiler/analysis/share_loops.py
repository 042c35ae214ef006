"""Which neighbouring kernels share a loop: those between which a tensor would otherwise go to DRAM and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from compiler.analysis.cost import KernelCost, aligned
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
    _prices: dict[Group, float] = field(default_factory=dict[Group, float])
    _memo: dict[object, Choice | None] = field(default_factory=dict[object, Choice | None])

    def run(self) -> tuple[frozenset[int], list[Choice]]:
        """What stays in SRAM as a whole, and the schedule of every kernel."""
        self._alive = self._residents()
        for storage in self._candidates():
            group = self._hull(storage.first, storage.last)
            if not self._try(group) and (wider := self._wider(group)) != group:
                self._try(wider)
        return self.resident, self.chosen

    def _try(self, group: Group) -> bool:
        """Whether the kernels of a group have become a shared loop, since that is cheaper."""
        found = self._best(group)
        if found is None or found[0] >= self._now(group):
            return False
        total, shared, choices = found
        self.groups = [g for g in self.groups if g.last < group.first or group.last < g.first] + [group]
        self._prices[group] = total
        self.resident -= shared.held.keys()
        for index, choice in zip(group.steps, choices, strict=True):
            self.chosen[index] = with_stripes(choice[0], shared, index), choice[1]
        return True

    def _now(self, group: Group) -> float:
        """The price of a group's kernels and loops as they are."""
        inside = [g for g in self.groups if group.first <= g.first and g.last <= group.last]
        alone = set(group.steps).difference(*(g.steps for g in inside))
        return sum(self._prices[g] for g in inside) + sum(price(self.chosen[i][1]) for i in alone)

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

    def _hull(self, first: int, last: int) -> Group:
        """The kernels ``first`` .. ``last``, and those that share a loop with one of them."""
        met = [g for g in self.groups if g.first <= last and first <= g.last]
        return Group(min([first, *(g.first for g in met)]), max([last, *(g.last for g in met)]))

    def _wider(self, group: Group) -> Group:
        """A group with the kernels that read what it makes: stripes may do where the whole took up the SRAM."""
        made = [self.graph.placed[self.graph.steps[i].op.output].storage for i in group.steps]
        return self._hull(group.first, max(group.last, *(s.last for s in made)))

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
            total = self._price([cost for _, cost in choices], shared)
            if best is None or total < best[0]:
                best = total, shared, choices
        return best

    def _price(self, costs: Sequence[KernelCost], shared: Shared) -> float:
        """Of a loop: the engines work side by side, so the busiest counts, and what each kernel and turn adds."""
        busy = sum(c.mmu for c in costs), sum(c.vcu for c in costs) + self._carried(shared), sum(c.dma for c in costs)
        added = sum(cost.cycles - (max if self.slots > 1 else sum)((cost.mmu, cost.vcu, cost.dma)) for cost in costs)
        turns = STRIPE_CYCLES * len(costs) * len(shared.ends[shared.group.last])
        return max(busy) + added + turns + 0.02 * busy[2]

    def _carried(self, shared: Shared) -> int:
        """Cycles of the vector unit for copying the rows that the next stripe reads again."""
        carried = 0
        for index, ring in shared.held.items():
            storage = self.graph.storages[index]
            made = shared.ends[storage.first]
            rows = sum(max(end - first, 0) for end, first in zip(made, ring.first_rows[1:], strict=False))
            carried += rows * storage.bytes // made[-1]
        return carried // self.machine.vcu.lanes

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
