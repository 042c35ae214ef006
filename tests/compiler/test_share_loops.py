"""Which kernels share a loop: where that saves traffic; and no bit depends on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from compiler.analysis import share_loops
from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.memory import check, in_sram
from compiler.analysis.residency import choose
from compiler.analysis.schedule_cache import ScheduleCache
from compiler.analysis.share_loops import LoopSearch
from compiler.analysis.stripes import Group, groups_of, share, shared_loops, stripe_rows
from compiler.dialects import qnn
from compiler.dialects.attrs import IntType
from compiler.interpreter.qnn import run_qnn
from compiler.ir.schedule import Schedule
from compiler.pipeline import Compiled, Options, compile_module
from isa.errors import ScheduleError
from isa.instructions import DType
from isa.machine import Machine
from runtime.session import run
from tests.bits import assert_same
from tests.compiler.kern_graphs import add, conv, dq, graph, inputs, q
from tests.compiler.loop_graphs import binary, groups, kernel_graph, lowered, modules, resized, sharing, stripes
from tests.thinning import examples

TINY = Machine.load("tiny")
COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
CODES4 = IntType(4, 0.4, 0)
SIDE = 48
"""Of maps of 16 channels: 36 KiB each, of which the machine's SRAM does not hold two."""


def conv3(x: SSAValue, out: int = 16) -> SSAValue:
    return q(conv(x, out, 3))


def chain(x: SSAValue) -> SSAValue:
    return conv3(conv3(conv3(q(x))), 4)


def residual(x: SSAValue) -> SSAValue:
    a = q(conv(q(x), 16))
    return q(conv(q(add(dq(q(conv(q(conv(a, 16, 3, groups=16)), 16))), dq(a))), 4))


def decoder(x: SSAValue) -> SSAValue:
    a = resized(conv3(q(x)), "bilinear", (SIDE, SIDE))
    return conv3(conv3(a), 4)


def join(x: SSAValue) -> SSAValue:
    a = conv3(q(x))
    return conv3(qnn.ConcatOp([a, conv3(a)], 1).output, 4)


def two_widths(x: SSAValue) -> SSAValue:
    """A sum in binary32 that a skip connection takes in 8 bits and a convolution in 4, as ResNets have in W4A4."""
    value = conv(conv3(q(x)), 16, 3)
    return q(conv(q(add(dq(conv3(q(value, CODES4))), dq(q(value)))), 4))


def block(x: SSAValue) -> SSAValue:
    """As ``two_widths``, with skip connections on both sides of the sum."""
    a = conv3(q(x))
    value = add(conv(conv3(q(conv(a, 16, 3), CODES4)), 16, 3), dq(a))
    return q(conv(q(add(conv(q(value, CODES4), 16, 3), dq(q(value)))), 4))


GRAPHS = {
    "chain": (chain, (1, 4, SIDE, SIDE)),
    "chain of two images": (chain, (2, 4, SIDE, SIDE)),
    "residual": (residual, (1, 4, 72, 72)),
    "decoder": (decoder, (1, 16, SIDE // 2, SIDE // 2)),
    "join": (join, (1, 4, SIDE, SIDE)),
    "two widths": (two_widths, (1, 4, 32, 32)),
    "block": (block, (1, 4, 40, 40)),
}


def compiled(name: str, **options) -> Compiled:
    body, shape = GRAPHS[name]
    return compile_module(graph([shape], body), TINY, Options(**options))


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_what_would_go_to_dram_stays_in_a_loop(name):
    shared, alone = compiled(name), compiled(name, share_loops=False)
    assert groups_of(shared.schedule.kernels)
    assert not groups_of(alone.schedule.kernels)
    assert not any(row.stripes for row in alone.schedule.kernels)
    assert shared.memory.arena_bytes < alone.memory.arena_bytes
    assert shared.memory.sram_peak_bytes <= TINY.sram.bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_bits_do_not_depend_on_loops(name):
    body, shape = GRAPHS[name]
    module = graph([shape], body)
    values = inputs(module, 3.0)
    expected = run_qnn(module, values)
    for shared in (True, False):
        program = compile_module(module.clone(), TINY, Options(share_loops=shared)).binary
        assert_same(run(program, [torch.from_numpy(v) for v in values]).outputs, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_a_schedule_with_loops_reads_back_to_the_same_binary(name):
    body, shape = GRAPHS[name]
    module = graph([shape], body)
    first = compile_module(module.clone(), TINY, Options())
    text = first.schedule.to_toml()
    assert "shares = true\n" in text
    again = Schedule.from_toml(text)
    assert again == first.schedule
    assert compile_module(module.clone(), TINY, Options(schedule=again)).binary.to_bytes() == first.binary.to_bytes()


@pytest.mark.slow
@given(st.data(), modules())
@settings(max_examples=examples(40), **COMMON)
def test_any_loop_with_any_stripes_computes_the_same_bits(data: st.DataObject, module: ModuleOp) -> None:
    values = inputs(module, 3.0)
    expected = run_qnn(module, values)
    low = lowered(module.clone())
    found = build_graph(low)
    group = data.draw(groups(found))
    assume(group is not None)
    assert group is not None
    ends = data.draw(stripes(stripe_rows(found, group)))
    between = [s.index for s in found.storages if s.region is None and s.last >= 0]
    keep = data.draw(st.frozensets(st.sampled_from(between))) if between and data.draw(st.booleans()) else frozenset()
    program = binary(low, TINY, sharing(found, TINY, {group: ends}, keep, data.draw(st.integers(1, 2))))
    assert_same(run(program, [torch.from_numpy(v) for v in values]).outputs, expected)


def searched(name: str) -> tuple[KernelGraph, Schedule]:
    body, shape = GRAPHS[name]
    found = kernel_graph(graph([shape], body))
    return found, choose(found, TINY)


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_search_finds_is_legal(name):
    found, schedule = searched(name)
    check(found, schedule, TINY)
    loops = shared_loops(found, schedule)
    assert loops
    for loop in loops:
        assert loop == share(found, loop.group, loop.ends[loop.group.last])
        held = [i for i in loop.group.steps if found.placed[found.steps[i].op.output].storage.index in loop.held]
        assert held
        assert not any(schedule.kernels[i].keep for i in held)


def test_a_sum_of_two_widths_is_never_whole():
    found, schedule = searched("two widths")
    loop = next(loop for loop in shared_loops(found, schedule) if 2 in loop.group.steps)
    value = found.steps[2]
    assert value.spec.stored.output is DType.F32
    assert loop.group == Group(2, 4)  # the product and both quantizers, of which one makes the skip connection
    assert list(loop.held) == [found.placed[value.op.output].storage.index]
    assert in_sram(found, schedule) == {s.index for s in found.storages if s.region is None and s.last >= 0}


def test_a_tensor_leaves_the_sram_for_a_loop_that_saves_more(monkeypatch: pytest.MonkeyPatch):
    def stored(found: KernelGraph, schedule: Schedule) -> list[tuple[int, int]]:
        outside = (s for s in found.storages if s.region is None and s.last >= 0)
        return [(s.first, s.bytes) for s in outside if s.index not in in_sram(found, schedule)]

    found, schedule = searched("block")
    assert groups_of(schedule.kernels)[-1] == Group(4, 9)
    assert stored(found, schedule) == [(1, 25600)]
    assert found.steps[4].spec.stored.output is DType.F32
    monkeypatch.setattr(LoopSearch, "_leaving", lambda *_: [])
    worse = [size for _, size in stored(*searched("block"))]
    assert sum(worse) > 25600


def test_no_loop_has_more_kernels_than_are_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(share_loops, "MOST_KERNELS", 2)
    for name in ("chain", "residual", "join"):
        _, schedule = searched(name)
        assert all(group.last - group.first < 2 for group in groups_of(schedule.kernels))


def test_too_much_beside_a_loop_is_refused():
    found, schedule = searched("chain")
    rows = tuple(replace(row, weight_slots=row.weight_slots * 64) for row in schedule.kernels)
    with pytest.raises(ScheduleError, match=r"kernel 'n0': its rings need \d+ bytes of SRAM and -?\d+ are left"):
        check(found, replace(schedule, kernels=rows), TINY)


def test_below_the_least_idle_time_tensors_that_fit_stay_whole(monkeypatch: pytest.MonkeyPatch):
    found = kernel_graph(graph([(1, 4, 12, 12)], chain))
    assert groups_of(choose(found, TINY).kernels) == (Group(0, 1),)
    monkeypatch.setattr(share_loops, "LEAST_IDLE", 1.0)
    assert groups_of(choose(found, TINY).kernels) == ()


def test_larger_loops_are_tried_where_a_kernel_has_no_room_for_double_buffering():
    found = kernel_graph(graph([(1, 12, 12, 16)], chain))
    cache = ScheduleCache(TINY, 2)
    tried: dict[tuple[int, ...], int] = {}
    for capacity in range(TINY.sram.bytes // 8, 256, -64):
        search = LoopSearch(found, TINY, cache, capacity, frozenset(), [])
        best = search._best(Group(1, 1))
        if best is None:
            break
        schedule = best.choices[0][0]
        slots = schedule.input_slots, schedule.weight_slots, schedule.stream_slots, schedule.output_slots
        tried[slots] = len(list(search._options(Group(1, 1))))
    assert tried.pop((1, 1, 1, 1)) > 1
    assert tried
    assert set(tried.values()) == {1}
