"""Plans: what is alive together lies apart, inside of the machine's memories."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest

from compiler.analysis.cost import ChannelSize, channels
from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.memory import accumulator_addresses, check, kept_by, plan_memory, residency
from compiler.analysis.overwrite import overwrites
from compiler.analysis.residency import choose
from compiler.analysis.stripes import Group, widened
from compiler.backend.allocate import AllocationError
from compiler.ir.schedule import Schedule
from compiler.ir.tiling import Tiling
from compiler.passes.fuse_kernels import fuse_kernels
from compiler.passes.materialize_copies import materialize_copies
from isa.machine import Machine
from tests.compiler.alias_graphs import CASES
from tests.compiler.kern_graphs import GRAPHS, graph

TINY = Machine.load("tiny")
ALL = {**GRAPHS, **{n: c for n, c in CASES.items() if not n.endswith("_batch")}}


@cache
def planned(name: str, slots: int = 2) -> tuple[KernelGraph, Schedule]:
    module = graph(*ALL[name])
    fuse_kernels(module)
    materialize_copies(module)
    found = build_graph(module)
    return found, choose(found, TINY, slots)


def tenants(found: KernelGraph, schedule: Schedule) -> list[tuple[range, range, object]]:
    """(kernels, SRAM bytes, what) of each storage and ring; rings at least while their kernel runs."""
    plan = plan_memory(found, schedule, TINY)
    rows = schedule.by_name()
    result: list[tuple[range, range, object]] = []

    def alive(first: int, last: int) -> range:
        first, last = widened(first, last, [loop.group for loop in plan.loops])
        return range(first, last + 1)

    for storage in found.storages:
        start, held = plan.storages.get(storage.index, 0), plan.stripes.get(storage.index)
        if held or storage.index in plan.resident:
            size = held.slots * held.slot_bytes if held else storage.bytes
            result.append((alive(storage.first, storage.last), range(start, start + size), storage.index))
    for step in found.steps:
        tiling = Tiling(step.spec, rows[step.spec.name])
        for ring in channels(tiling, residency(found, step, plan.resident | plan.stripes.keys()), TINY):
            start = plan.rings[step.index, ring.role, ring.operand]
            if ring.role == "acc":
                assert start + ring.bytes <= TINY.acc.bytes
            else:
                result.append((alive(step.index, step.index), range(start, start + ring.bytes), ring))
    return result


def handed_over(found: KernelGraph, old: object, new: object) -> bool:
    """Whether the two storages meet only in the kernel that writes one over the other."""
    pairs = overwrites(found)
    return any(pairs.get(a) == b for a, b in ((old, new), (new, old)) if isinstance(a, int))


def meet(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)


@pytest.mark.parametrize("name", ALL)
def test_what_is_alive_together_lies_apart(name):
    found, schedule = planned(name)
    everything = tenants(found, schedule)
    assert all(place.stop <= TINY.sram.bytes for _, place, _ in everything)
    for (when, where, what), (when_too, where_too, what_too) in combinations(everything, 2):
        apart = not (meet(when, when_too) and meet(where, where_too))
        assert apart or handed_over(found, what, what_too), f"{what} and {what_too} overlap"


def accumulators(*sizes: int, shared: bool = False, capacity: int = 100) -> list[int]:
    """Where kernels with accumulators of ``sizes`` bytes have them, in one shared loop or in none."""
    rings = [(ChannelSize("acc", -1, 1, size),) if size else () for size in sizes]
    found = accumulator_addresses(rings, [Group(0, len(sizes) - 1)] if shared else [], capacity)
    return [found.get((i, "acc", -1), -1) for i in range(len(sizes))]


def test_accumulators_of_neighbours_lie_apart():
    assert accumulators(40, 60, 30) == [0, 40, 0]


def test_kernels_without_accumulators_do_not_count_as_neighbours():
    assert accumulators(40, 0, 60, 70) == [0, -1, 40, 0]


def test_accumulators_in_a_shared_loop_lie_side_by_side():
    assert accumulators(40, 30, 30, shared=True) == [0, 40, 70]


def test_accumulators_that_are_too_many_for_a_shared_loop_lie_over_each_other():
    assert accumulators(40, 30, 31, shared=True) == [0, 0, 0]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("name", ["zoo", "attention", "deep", "uneven_pool", "rows_wider_than_sram"])
def test_a_chosen_schedule_is_legal(name, slots):
    found, schedule = planned(name, slots)
    check(found, schedule, TINY)
    assert plan_memory(found, schedule, TINY).sram_peak_bytes <= TINY.sram.bytes


def test_small_networks_stay_on_chip():
    found, schedule = planned("zoo")
    plan = plan_memory(found, schedule, TINY)
    assert plan.arena_bytes == 0
    assert {s.index for s in found.storages if s.region is None and s.last >= 0} == plan.resident


def test_what_is_not_kept_goes_to_the_arena():
    found, schedule = planned("zoo")
    rows = tuple(replace(k, keep=False, shares=False, stripes=()) for k in schedule.kernels)
    plan = plan_memory(found, replace(schedule, kernels=rows), TINY)
    assert not plan.resident
    places = [
        (range(s.first, s.last + 1), range(plan.storages[s.index], plan.storages[s.index] + s.bytes))
        for s in found.storages
        if s.region is None and s.last >= 0
    ]
    assert all(stop.stop <= plan.arena_bytes for _, stop in places)
    for (when, where), (when_too, where_too) in combinations(places, 2):
        assert not (meet(when, when_too) and meet(where, where_too))


def test_a_join_stays_only_if_every_writer_keeps_it():
    found, schedule = planned("nested_concat")
    storages = [found.placed[s.op.output].storage for s in found.steps]
    shared = next(s for s in storages if storages.count(s) > 1)
    writers = [s.spec.name for s in found.steps if found.placed[s.op.output].storage is shared]
    assert len(writers) == 3

    def keep(*names: str) -> Schedule:
        return replace(schedule, kernels=tuple(replace(k, keep=k.kernel in names) for k in schedule.kernels))

    assert kept_by(found, keep(*writers)) == {shared.index}
    assert kept_by(found, keep(*writers[:2])) == frozenset()


@pytest.mark.slow
def test_inputs_and_outputs_are_packed_in_order():
    found, schedule = planned("broadcast_slices")
    plan = plan_memory(found, schedule, TINY)
    inputs = [plan.storages[found.placed[v].storage.index] for v in found.inputs]
    assert inputs == [0, 2 * 6 * 5 * 4 * 4]
    assert plan.input_bytes == sum(-(-n // 64) * 64 for n in (2 * 6 * 5 * 4 * 4, 6 * 5 * 4 * 4))


def test_too_much_kept_is_refused():
    found, schedule = planned("rows_of_three_taps")
    rows = tuple(replace(k, keep=True) for k in schedule.kernels)
    with pytest.raises(AllocationError):
        plan_memory(found, replace(schedule, kernels=rows), TINY)
