"""Estimated cycles of kernels that share a loop: the engines work side by side, so in each step the busiest counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from compiler.analysis.cost import FACTOR_ROLES, FIRST_ROLES, TILE_OVERHEAD_CYCLES, ChannelSize, channels
from compiler.analysis.graph import KernelGraph, Step
from compiler.analysis.memory import residency
from compiler.analysis.stripes import Shared, on_matrix_unit
from compiler.analysis.tile_search import Choice
from compiler.ir.tiling import Tiling
from isa.cycles import dma_cycles
from isa.machine import Machine

STRIPE_CYCLES = 200
"""What a kernel's turn costs beside its tiles: its engines wait for the kernel before it."""
MMU, VCU, DMA = range(3)


def loop_cycles(
    graph: KernelGraph,
    shared: Shared,
    choices: Sequence[Choice],
    in_sram: frozenset[int],
    machine: Machine,
    overlap: bool = True,
) -> float:
    """Cycles of a loop whose kernels run so; without ``overlap`` one engine works at a time.

    The loop takes as many steps as it has turns, and one for every stripe that its last kernel is behind. In the
    first and the last, some kernels have nothing to do.
    """
    steps = [graph.steps[i] for i in shared.group.steps]
    carried = _carried(graph, shared, machine)
    images, turns = steps[0].spec.output[0], len(shared.ends[shared.group.last])
    work = np.zeros((3, images * turns + max(shared.delays.values())))
    added = 0
    for step, (schedule, cost) in zip(steps, choices, strict=True):
        tiling, delay = Tiling(step.spec, schedule), shared.delays[step.index]
        rings = channels(tiling, residency(graph, step, in_sram), machine)
        tiles, chunks = prod(tiling.counts[d] for d in "nhwc"), tiling.counts["k"]
        share = np.tile(_shares(shared.ends[step.index]), images) / images
        mine = work[:, delay : delay + images * turns]
        whole = min(_whole(rings, tiling, machine), cost.dma)
        mine[MMU] += cost.mmu * share
        mine[VCU] += (cost.vcu + carried.get(step.index, 0)) * share
        mine[DMA] += (cost.dma - whole) * share
        mine[DMA, 0] += whole
        mine[MMU if on_matrix_unit(step) else VCU] += TILE_OVERHEAD_CYCLES * tiles * chunks * share + STRIPE_CYCLES
        if _awaited(graph, step, steps, shared):
            mine[MMU] += cost.vcu // tiles
        added = max(added, _first(rings, machine))
    return float((work.max(axis=0) if overlap else work.sum(axis=0)).sum()) + added


def _shares(ends: Sequence[int]) -> NDArray[np.float64]:
    """The part of a kernel's rows that it makes in each turn."""
    return np.diff(ends, prepend=0) / ends[-1]


def _whole(rings: Sequence[ChannelSize], tiling: Tiling, machine: Machine) -> int:
    """Cycles of DRAM for the factors that rings hold whole: they come in the first turn."""
    blocks = tiling.counts["c"] * tiling.counts["k"]
    held = [r.slot_bytes for r in rings if r.role in FACTOR_ROLES and r.slots >= blocks]
    return dma_cycles(1, blocks * sum(held), machine)


def _first(rings: Sequence[ChannelSize], machine: Machine) -> int:
    """Cycles until the first tile has come from DRAM."""
    return dma_cycles(1, sum(r.slot_bytes for r in rings if r.role in FIRST_ROLES), machine)


def _awaited(graph: KernelGraph, step: Step, steps: Sequence[Step], shared: Shared) -> bool:
    """Whether the matrix unit stands still in a turn until the vector unit is done with this kernel's last tile."""
    made = graph.placed[step.op.output].storage
    beside = (other for other in steps if shared.delays[other.index] == shared.delays[step.index])
    return on_matrix_unit(step) and any(
        value is not None and graph.placed[value].storage is made
        for other in beside
        if on_matrix_unit(other)
        for value in other.values
    )


def _carried(graph: KernelGraph, shared: Shared, machine: Machine) -> Mapping[int, int]:
    """Cycles of the vector unit for copying the rows that the next stripe reads again, by kernel that made them."""
    carried: dict[int, int] = {}
    for index, ring in shared.held.items():
        storage = graph.storages[index]
        made = shared.ends[storage.first]
        rows = sum(max(end - first, 0) for end, first in zip(made, ring.first_rows[1:], strict=False))
        carried[storage.first] = rows * storage.bytes // made[-1] // machine.vcu.lanes
    return carried
