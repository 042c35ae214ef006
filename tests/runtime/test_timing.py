"""Time: formulas, bounds, conservation, determinism and metamorphic properties on small random programs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.cost import cost
from isa.cycles import fetch_cycles
from isa.dram import Server
from isa.encoding import Engine, Instruction
from isa.errors import DeadlockError
from isa.instructions import (
    DType,
    Halt,
    LoadCopy,
    LoadShape,
    LoadSync,
    MmuInput,
    MmuOutput,
    MmuRun,
    StoreCopy,
    VcuRun,
    VcuShape,
    VcuStream,
    VcuSync,
)
from isa.machine import Machine
from isa.program import encode
from isa.state import State
from runtime.timing import DISPATCH, ENGINES, Timeline, simulate_time
from tests.runtime.plain_timing import plain_times
from tests.runtime.programs import programs
from tests.thinning import examples

TINY = Machine.load("tiny")
EDGE = Machine.load("edge28")

RESET = [LoadShape(), MmuOutput(), MmuInput(), VcuShape(), VcuStream(id=0), VcuStream(id=7)]


def costs(program: list[Instruction], machine: Machine) -> list:
    state, found = State(), []
    for inst in program:
        found.append(cost(inst, state, machine))
        state.apply(inst)
    return found


def alone(inst: Instruction, *setup: Instruction, machine: Machine = EDGE) -> Timeline:
    return simulate_time([*setup, inst], machine)


FIRST = fetch_cycles(dataclasses.replace(EDGE, dispatch=dataclasses.replace(EDGE.dispatch, fetch_block_bytes=64)))


def test_first_instruction_is_fetched_dispatched_and_run():
    # One burst of program and the latency; dispatch 1; the sync itself 1.
    assert FIRST == 5
    assert alone(LoadSync()).cycles == FIRST + 100 + 1 + 1


def test_load_takes_its_service_and_latency():
    timeline = alone(LoadCopy(bytes=64_000))
    service = -(-64_000 * 10**9 * 100 // (17_060_000_000 * 80))
    assert service == 4690
    assert timeline.cycles == FIRST + 100 + 1 + service + 100
    assert timeline.release[0] - timeline.start[0] == service
    assert timeline.end[0] - timeline.release[0] == 100


def test_mmu_run_equals_its_formula():
    timeline = alone(MmuRun(n=64), MmuInput(channels=64), MmuOutput(height=14, width=14))
    # 196 rows in 4 chunks of 49, 2 k tiles, 2 n tiles; pipeline 8, fill 16, drain 49
    assert timeline.release[-1] - timeline.start[-1] == 8 + 16 + 2 * 2 * 196 + 49


def test_vcu_run_equals_its_formula():
    timeline = alone(VcuRun(), VcuShape(n0=10, n1=10, n2=64))
    assert timeline.release[-1] - timeline.start[-1] == 12 + 100


def test_empty_program_takes_no_time():
    timeline = simulate_time([], EDGE)
    assert timeline.cycles == 0
    assert all(timeline.busy[engine] == 0 for engine in ENGINES)


def test_engines_overlap_unless_a_semaphore_orders_them():
    load, run = LoadCopy(bytes=64_000), MmuRun(n=1024)
    shape = [MmuInput(channels=1024), MmuOutput(height=8, width=8)]
    together = simulate_time([*shape, load, run], EDGE)
    ordered = simulate_time([*shape, dataclasses.replace(load, signal_a=1), dataclasses.replace(run, wait_a=1)], EDGE)
    assert together.start[3] < together.end[2]
    assert ordered.start[3] == ordered.end[2]
    assert ordered.idle[Engine.MMU]["semaphore:1:load"] == ordered.end[2] - ordered.head[3]


def test_a_load_streams_behind_another_without_paying_latency_twice():
    one, two = alone(LoadCopy(bytes=64_000)), alone(LoadCopy(bytes=64_000), LoadCopy(bytes=64_000))
    assert two.cycles - one.cycles == 4690


def test_full_queue_holds_dispatch():
    machine = dataclasses.replace(EDGE, dispatch=dataclasses.replace(EDGE.dispatch, queue_depth=1))
    timeline = simulate_time([LoadCopy(bytes=6400), LoadSync(), LoadSync(), VcuSync()], machine)
    assert timeline.idle[Engine.DISPATCH]["queue:load"] > 0
    assert timeline.idle[Engine.VCU]["queue:load"] > 0


def test_earlier_instruction_has_the_dram_first():
    program = [StoreCopy(bytes=6400), LoadCopy(bytes=6400), Halt()]
    timeline = simulate_time(program, EDGE)
    assert timeline.release[0] - timeline.start[0] == 470 - 1
    assert timeline.idle[Engine.LOAD]["dram"] > 0


def test_banks_stretch_the_later_instruction():
    streams = [VcuStream(id=i, dtype=DType.F32, stride0=4096, stride1=256, stride2=4) for i in (0, 7)]
    setup = [MmuInput(channels=64), MmuOutput(height=64, width=64), *streams, VcuShape(n0=64, n1=16, n2=64)]
    timeline = simulate_time([*setup, MmuRun(n=32), VcuRun()], EDGE)
    alone_too = simulate_time([*setup, VcuRun()], EDGE)
    assert alone_too.idle[Engine.VCU].get("bank", 0) == 0
    assert timeline.idle[Engine.VCU]["bank"] > 0


def test_wait_without_an_earlier_signal_is_a_deadlock():
    with pytest.raises(DeadlockError, match=r"instruction 1 \(vcu.sync\) waits for semaphore 3, but no earlier"):
        simulate_time([LoadSync(signal_a=2), VcuSync(wait_a=3), LoadSync(signal_a=3)], EDGE)


def test_the_first_wait_without_a_signal_is_the_one_named():
    program = [LoadSync(signal_a=1), VcuSync(wait_a=2, wait_b=3), VcuSync(wait_a=1, wait_b=1)]
    with pytest.raises(DeadlockError, match=r"instruction 1 \(vcu.sync\) waits for semaphore 2, but no earlier"):
        simulate_time(program, EDGE)


def test_an_instruction_does_not_signal_itself():
    with pytest.raises(DeadlockError, match=r"instruction 0 \(vcu.sync\) waits for semaphore 1, but no earlier"):
        simulate_time([VcuSync(wait_a=1, signal_a=1), VcuSync(wait_a=1)], EDGE)


FEW_BANKS = dataclasses.replace(TINY, sram=dataclasses.replace(TINY.sram, bytes=TINY.sram.bank_bytes))


@pytest.mark.parametrize("machine", [TINY, FEW_BANKS, EDGE], ids=["tiny", "few banks", "edge28"])
@settings(max_examples=examples(60), deadline=None)
@given(program=programs())
def test_the_walk_equals_the_plain_model(machine, program):
    timeline = simulate_time(program, machine)
    assert list(zip(timeline.start.tolist(), timeline.end.tolist(), strict=True)) == plain_times(program, machine)


def test_a_long_program_equals_the_plain_model_also_from_its_bytes():
    streams = [VcuStream(id=i, dtype=DType.F32, stride0=4096, stride1=256, stride2=4) for i in (0, 7)]
    program = [MmuInput(channels=64), MmuOutput(height=9, width=9), *streams, VcuShape(n0=9, n1=9, n2=40)]
    for turn in range(60):
        program += [LoadCopy(bytes=100 * turn, signal_a=1), MmuRun(n=8 + turn % 7, wait_a=1, signal_a=2)]
        program += [VcuRun(wait_a=2, signal_a=3), StoreCopy(bytes=70 * turn, wait_a=3), VcuShape(n0=turn, n1=9, n2=40)]
    machine = dataclasses.replace(EDGE, sram=dataclasses.replace(EDGE.sram, bytes=4 * EDGE.sram.bank_bytes))
    timeline = simulate_time(encode([*program, Halt()]), machine)
    expected = plain_times([*program, Halt()], machine)
    assert list(zip(timeline.start.tolist(), timeline.end.tolist(), strict=True)) == expected
    assert sum(timeline.idle[engine].get("bank", 0) for engine in ENGINES) > 0


def check_conservation(timeline: Timeline) -> None:
    for engine in ENGINES:
        assert timeline.busy[engine] + sum(timeline.idle[engine].values()) == timeline.cycles
        assert all(amount >= 0 for amount in timeline.idle[engine].values())
    assert timeline.critical.sum() + sum(timeline.overhead.values()) == timeline.cycles
    assert (timeline.critical >= 0).all()
    assert all(amount >= 0 for amount in timeline.overhead.values())


@settings(max_examples=examples(60), deadline=None)
@given(program=programs())
def test_cycles_are_conserved_and_bounded(program):
    timeline = simulate_time(program, TINY)
    check_conservation(timeline)
    found = costs(program, TINY)
    for e, engine in enumerate(ENGINES):
        mine = [c.cycles for i, c in enumerate(found) if timeline.engine[i] == e]
        # The dispatcher spends a cycle on every instruction, whoever runs it.
        assert timeline.busy[engine] == (len(program) if e == DISPATCH else sum(mine))
        assert timeline.cycles >= sum(mine)
    assert timeline.cycles >= sum(timeline.dram_busy.values())
    assert timeline.dram_busy["load"] + timeline.dram_busy["store"] == sum(c.dram for c in found)
    blocks = -(-16 * len(program) // TINY.dispatch.fetch_block_bytes)
    serial = sum(c.cycles for c in found) + len(program) + timeline.dram_busy["fetch"]
    latencies = sum(1 for c in found if c.dram) + blocks
    assert timeline.cycles <= serial + latencies * TINY.dram.latency_cycles


@settings(max_examples=examples(30), deadline=None)
@given(program=programs())
def test_times_of_each_instruction_are_in_order(program):
    timeline = simulate_time(program, TINY)
    assert (timeline.head <= timeline.start).all()
    assert (timeline.start < timeline.release).all()
    assert (timeline.release <= timeline.end).all()
    for e in range(DISPATCH):
        mine = timeline.engine == e
        assert (np.diff(timeline.end[mine]) >= 0).all()
        assert (timeline.start[mine][1:] >= timeline.release[mine][:-1]).all()


@settings(max_examples=examples(30), deadline=None)
@given(program=programs())
def test_same_program_same_times(program):
    first, second = simulate_time(program, TINY), simulate_time(program, TINY)
    assert np.array_equal(first.end, second.end)
    assert first.idle == second.idle
    assert np.array_equal(first.critical, second.critical)


@settings(max_examples=examples(30), deadline=None)
@given(program=programs(), order=st.permutations(range(1, 13)))
def test_names_of_semaphores_do_not_matter(program, order):
    names = [0, *order]
    renamed = [dataclasses.replace(inst, wait_a=names[inst.wait_a], signal_a=names[inst.signal_a]) for inst in program]
    assert np.array_equal(simulate_time(program, TINY).end, simulate_time(renamed, TINY).end)


@settings(max_examples=examples(30), deadline=None)
@given(first=programs(15), second=programs(15))
def test_concatenation_takes_at_most_the_sum_and_at_least_each_part(first, second):
    a, b = simulate_time(first, TINY).cycles, simulate_time([*RESET, *second], TINY).cycles
    both = simulate_time([*first[:-1], *RESET, *second], TINY).cycles
    assert both >= simulate_time(first[:-1], TINY).cycles
    assert both <= a + b + 2 * TINY.dram.latency_cycles + fetch_cycles(TINY)


@settings(max_examples=examples(60), deadline=None)
@given(time=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=30))
def test_server_gives_every_cycle_once(time):
    server, taken = Server(), set()
    for at, need in time:
        expected, cursor = at, at
        for _ in range(need):
            while cursor in taken:
                cursor += 1
            taken.add(cursor)
            expected = cursor + 1
        assert server.serve(at, need) == expected


FASTER = {
    "bandwidth": dataclasses.replace(TINY, dram=dataclasses.replace(TINY.dram, bytes_per_second=8 * 10**9)),
    "latency": dataclasses.replace(TINY, dram=dataclasses.replace(TINY.dram, latency_cycles=0)),
    "queues": dataclasses.replace(TINY, dispatch=dataclasses.replace(TINY.dispatch, queue_depth=16)),
}


@pytest.mark.parametrize("name", FASTER)
@settings(max_examples=examples(40), deadline=None)
@given(program=programs())
def test_a_better_machine_is_not_slower(name, program):
    # Not a theorem (an earlier request may now take the DRAM from a more urgent one); see docs/machines.md.
    assert simulate_time(program, FASTER[name]).cycles <= simulate_time(program, TINY).cycles
