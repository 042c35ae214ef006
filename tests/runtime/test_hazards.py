"""Races, deadlocks and overflows are found for every timing, and legal programs pass."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import Box, Memory
from isa.encoding import Instruction
from isa.errors import DeadlockError, RaceError, SemaphoreError, SimulationError
from isa.instructions import (
    Halt,
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadSync,
    LoadTile,
    MmuRun,
    MmuSync,
    Region,
    StoreCopy,
    StoreSync,
    VcuRun,
    VcuSync,
)
from isa.machine import Machine
from runtime.checks import trace
from runtime.functional import describe
from runtime.hazards import check_hazards, common_bytes
from tests.synchronized import synchronized
from tests.thinning import examples

TINY = Machine.load("tiny")


def check(program: list[Instruction], machine: Machine = TINY) -> None:
    check_hazards(program, trace(program), machine, lambda i: describe(i, program[i], f"layer{i}"))


def load(sram: int = 0, size: int = 16, **sync: int) -> Instruction:
    return LoadCopy(sram=sram, bytes=size, **sync)


def store(sram: int = 0, size: int = 16, **sync: int) -> Instruction:
    return StoreCopy(region=Region.OUTPUT, sram=sram, bytes=size, **sync)


def test_a_missing_semaphore_is_a_race_that_names_both_sides():
    with pytest.raises(RaceError) as error:
        check([load(0, 16), store(8, 16), Halt()])
    assert str(error.value) == (
        "instruction 1 (store.copy) of layer1 reads SRAM bytes 0x8..0xf, which instruction 0 (load.copy) of layer0 "
        "writes, and no semaphore makes STORE wait for LOAD; signal after instruction 0 and wait before instruction 1"
    )


def test_an_ordered_pair_is_no_race():
    check([load(signal_a=1), store(wait_a=1)])


def test_order_is_transitive():
    check([load(0, signal_a=1), VcuSync(wait_a=1, signal_a=2), store(0, wait_b=2)])


def test_a_queue_orders_its_own_engine():
    check([load(), LoadSync(signal_a=1), store(wait_a=1)])
    check([load(), load(), load()])


def test_a_signal_sent_too_early_is_a_race():
    with pytest.raises(RaceError, match=r"instruction 2 \(store.copy\) .* instruction 1 \(load.copy\)"):
        check([LoadSync(signal_a=1), load(), store(wait_a=1)])


def test_the_kth_wait_takes_the_kth_signal():
    program = [load(0, signal_a=1), load(16, signal_a=1), StoreSync(wait_a=1)]
    check([*program, store(0)])
    with pytest.raises(RaceError, match="instruction 1"):
        check([*program, store(16)])
    check([*program, store(16, wait_a=1)])


def test_a_write_after_a_read_needs_order_too():
    with pytest.raises(
        RaceError, match=r"instruction 2 \(load.copy\) .* writes .* instruction 1 \(store.copy\) .* reads"
    ):
        check([load(signal_a=1), store(wait_a=1), load()])


def test_reads_and_other_bytes_do_not_race():
    check([store(0), VcuRun(a=0, dst=64)])
    check([load(0), store(16)])


def test_interleaved_bytes_do_not_race_but_common_ones_do():
    tile = [LoadShape(n0=4, run=8), LoadStrides(sram0=16), LoadTile(sram=0)]
    check([*tile, VcuRun(a=8, dst=64)])
    with pytest.raises(RaceError, match=r"SRAM bytes 0x10\.\.0x10"):
        check([*tile, VcuRun(a=16, dst=64)])


def test_common_bytes_are_exact():
    a = Box(Memory.SRAM, 0, 1, 3, 6)
    assert common_bytes(a, Box(Memory.SRAM, 2, 1, 3, 5)) == (12, 12)
    assert common_bytes(a, Box(Memory.SRAM, 2, 1, 2, 5)) is None
    assert common_bytes(Box(Memory.SRAM, 0, 8), Box(Memory.SRAM, 4, 8)) == (4, 7)


def test_many_accesses_in_flight_are_searched_as_well():
    program = [load(16 * i) for i in range(60)]
    check([*program, store(16 * 60)])
    with pytest.raises(RaceError, match=r"instruction 60 .* instruction 7 "):
        check([*program, store(16 * 7)])


def test_a_wait_that_nothing_signals_is_a_deadlock():
    with pytest.raises(DeadlockError) as error:
        check([MmuSync(wait_a=3), Halt()])
    assert str(error.value) == (
        "no engine can go on: MMU is blocked at instruction 0 (mmu.sync) of layer0, waiting for semaphore 3, "
        "which no instruction signals any more"
    )


def test_a_cyclic_wait_is_a_deadlock_that_names_every_engine():
    with pytest.raises(
        DeadlockError, match=r"MMU .* semaphore 1, which instruction 1 .* would signal; VCU .* semaphore 2"
    ):
        check([MmuSync(wait_a=1, signal_a=2), VcuSync(wait_a=2, signal_a=1)])


def test_a_full_queue_can_be_the_reason_of_a_deadlock():
    # The signal stands behind more waiting instructions than the queue holds.
    program = [*(MmuSync(wait_a=1) for _ in range(6)), VcuSync(signal_a=1)]
    with pytest.raises(DeadlockError, match=r"MMU is blocked at instruction 0 .* which instruction 6 .* would signal"):
        check(program)


def test_a_signal_that_comes_later_in_the_program_is_a_deadlock():
    with pytest.raises(DeadlockError, match=r"only later instructions signal it: program order must be a legal"):
        check([MmuSync(wait_a=1), VcuSync(signal_a=1)])


def test_two_waits_on_one_semaphore_take_two_signals():
    check([VcuSync(signal_a=1, signal_b=1), MmuSync(wait_a=1, wait_b=1)])
    with pytest.raises(DeadlockError, match="semaphore 1"):
        check([VcuSync(signal_a=1), MmuSync(wait_a=1, wait_b=1)])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([VcuSync(signal_a=1), LoadSync(signal_a=1)], r"semaphore 1 is signalled by two engines"),
        (
            [VcuSync(signal_a=1), VcuSync(signal_a=1), LoadSync(wait_a=1), MmuSync(wait_a=1)],
            r"semaphore 1 is waited for by two engines, in instruction 2 \(load.sync\)",
        ),
    ],
)
def test_a_semaphore_belongs_to_one_pair(program, message):
    with pytest.raises(SemaphoreError, match=message):
        check(program)


def test_a_count_beyond_the_limit_is_an_error_even_if_program_order_stays_below():
    machine = replace(TINY, sync=replace(TINY.sync, semaphore_max=2))
    pair = [VcuSync(signal_a=1), MmuSync(wait_a=1)]
    check(pair * 2, machine)
    with pytest.raises(SemaphoreError, match=r"can signal semaphore 1 while it counts 2: .* semaphore_max = 2"):
        check(pair * 3, machine)


def test_a_signaller_that_waits_for_the_waiter_does_not_overflow():
    machine = replace(TINY, sync=replace(TINY.sync, semaphore_max=1))
    check([VcuSync(signal_a=1), MmuSync(wait_a=1, signal_a=2), VcuSync(wait_a=2, signal_a=1)], machine)


def test_an_engine_that_waits_for_itself_has_taken_its_own_count():
    machine = replace(TINY, sync=replace(TINY.sync, semaphore_max=1))
    check([LoadSync(signal_a=1), LoadSync(wait_a=1, signal_a=1), LoadSync(wait_a=1)], machine)


def test_a_semaphore_that_the_machine_lacks_is_an_error():
    machine = replace(TINY, sync=replace(TINY.sync, semaphores=5))
    with pytest.raises(SemaphoreError, match=r"uses semaphore 6: the machine has 1 .. 5"):
        check([VcuSync(signal_a=6)], machine)


PIPELINE = [
    instruction
    for i in range(4)
    for instruction in (
        load(i % 2 * 64, 64),
        MmuRun(act=i % 2 * 64, weight=i % 2 * 64 + 32, acc=0),
        VcuRun(a=i % 2 * 64, dst=512),
        store(512, 1),
    )
]


def without_wait(program: list[Instruction], index: int, name: str) -> list[Instruction]:
    """``program`` with one wait left out, and the signal that it consumed, so that later pairs still match."""
    number = getattr(program[index], name)
    k = sum((i.wait_a == number) + (i.wait_b == number) for i in program[:index])
    found = list(program)
    found[index] = program[index].with_sync(**{name: 0})
    for j, instruction in enumerate(found):
        for field in ("signal_a", "signal_b"):
            if getattr(instruction, field) == number:
                if k == 0:
                    found[j] = found[j].with_sync(**{field: 0})
                    return found
                k -= 1
    raise AssertionError("the wait has no signal")


def test_every_wait_of_a_synchronized_program_is_needed_and_missed():
    program = synchronized(PIPELINE, TINY).instructions
    check(program)
    waits = [(i, name) for i, inst in enumerate(program) for name in ("wait_a", "wait_b") if getattr(inst, name)]
    assert len(waits) > 8
    for index, name in waits:
        with pytest.raises(RaceError):
            check(without_wait(program, index, name))


def test_a_wait_dropped_alone_shifts_later_waits_and_is_missed():
    program = synchronized(PIPELINE, TINY).instructions
    first = next(i for i, inst in enumerate(program) if inst.wait_a)
    broken = [*program[:first], program[first].with_sync(wait_a=0), *program[first + 1 :]]
    with pytest.raises(SimulationError):
        check(broken)


ADDRESSES = st.integers(0, 7).map(lambda i: 4 * i)
ACTIONS = st.one_of(
    st.builds(load, ADDRESSES, st.integers(1, 12)),
    st.builds(store, ADDRESSES, st.integers(1, 12)),
    st.builds(lambda a, dst: VcuRun(a=a, dst=dst), ADDRESSES, ADDRESSES),
    st.builds(lambda a, w, c: MmuRun(act=a, weight=w, acc=c), ADDRESSES, ADDRESSES, ADDRESSES),
)


@settings(max_examples=examples(100))
@given(st.lists(ACTIONS, max_size=30), st.sampled_from([1, 3, 255]))
def test_what_the_compiler_synchronizes_has_no_hazard(program, limit):
    machine = replace(TINY, sync=replace(TINY.sync, semaphore_max=limit))
    check(synchronized(program, machine).instructions, machine)
