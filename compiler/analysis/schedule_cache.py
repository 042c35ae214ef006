"""Schedules that were searched for before: kernels of one shape share them, and one is the best of many budgets.

Networks repeat themselves (the blocks of an encoder, the steps of a recurrence), so most searches are for a kernel
that differs from an earlier one in its name and its numbers alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from compiler.analysis.cost import Residency
from compiler.analysis.tile_search import Choice, choose_schedule
from compiler.ir.kernel import Anchor, KernelSpec, MatrixAnchor, PoolAnchor, ResizeAnchor, VectorProgram
from isa.machine import Machine


@dataclass(frozen=True)
class _Known:
    """The cheapest choice of every budget from what it takes to ``budget``; None below any."""

    choice: Choice | None
    budget: int

    def holds(self, budget: int) -> bool:
        least = 0 if self.choice is None else self.choice[1].sram_bytes
        return least <= budget <= self.budget


@dataclass
class ScheduleCache:
    """``choose_schedule`` for one machine, with a memory."""

    machine: Machine
    slots: int
    _known: dict[Hashable, list[_Known]] = field(default_factory=dict[Hashable, list[_Known]])
    _works: dict[str, Hashable] = field(default_factory=dict[str, Hashable])

    def choose(
        self,
        spec: KernelSpec,
        nodes: tuple[str, ...],
        residency: Residency,
        budget: int,
        stripes: tuple[int, ...] = (),
    ) -> Choice | None:
        """What ``choose_schedule`` gives: budgets only rule candidates out, so the best of a large one that fits a
        smaller one is the best there too."""
        if spec.name not in self._works:
            self._works[spec.name] = work_of(spec)
        known = self._known.setdefault((self._works[spec.name], residency, stripes), [])
        found = next((each for each in known if each.holds(budget)), None)
        if found is None:
            found = _Known(choose_schedule(spec, nodes, residency, self.machine, budget, self.slots, stripes), budget)
            known.append(found)
        if found.choice is None:
            return None
        schedule, cost = found.choice
        return (schedule if schedule.kernel == spec.name else replace(schedule, kernel=spec.name, nodes=nodes)), cost


def work_of(spec: KernelSpec) -> Hashable:
    """What the cost of a kernel's schedules depends on: all but names, and the values of constants and scales."""
    stages = tuple((_program(s.program), s.reduce, s.in_place) for s in spec.stages)
    last = spec.pool_program and _program(spec.pool_program)
    programs = _program(spec.program), last, stages
    shapes = spec.operands, spec.dtypes, spec.output, spec.inner, spec.row_channels, spec.movement, spec.macs
    return shapes, frozenset(spec.constants), _anchor(spec.anchor), _anchor(spec.pool), programs


def _anchor(anchor: Anchor) -> Hashable:
    if isinstance(anchor, MatrixAnchor):
        return replace(anchor, zero_act=0, zero_weight=0, weight_zeros=(), codebook=()), bool(anchor.weight_zeros)
    if isinstance(anchor, PoolAnchor | ResizeAnchor):
        return replace(anchor, zero=0, scale=0.0)
    return anchor


def _program(program: VectorProgram) -> Hashable:
    streams = tuple((s.operand, s.dtype, s.row) for s in program.streams)
    ops = tuple((op.func, op.kind) for op in program.ops)
    return streams, ops, program.output, len(program.params), bool(program.thresholds)
