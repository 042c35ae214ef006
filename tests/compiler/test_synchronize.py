"""Semaphores from accesses: every conflict ordered, in any timing, and little else."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.backend.dependences import NUMBER, _rows, dependences
from compiler.backend.synchronize import SYNCS, Synchronized, semaphore, synchronize
from isa.access import Box, Memory, accesses
from isa.encoding import Engine, Instruction
from isa.errors import UnsupportedError
from isa.instructions import (
    DType,
    LoadCopy,
    LoadShape,
    LoadStrides,
    LoadTile,
    MmuInput,
    MmuRun,
    Region,
    Space,
    StoreCopy,
    VcuRun,
    VcuStream,
    VcuSync,
)
from isa.machine import Machine
from isa.state import State
from tests.synchronized import synchronized
from tests.thinning import examples

MACHINE = Machine.load("tiny")


def limited(semaphore_max: int) -> Machine:
    return replace(MACHINE, sync=replace(MACHINE.sync, semaphore_max=semaphore_max))


def load(sram: int, size: int) -> Instruction:
    return LoadCopy(sram=sram, bytes=size)


def store(sram: int, size: int, offset: int = 0) -> Instruction:
    return StoreCopy(region=Region.OUTPUT, offset=offset, sram=sram, bytes=size)


def vcu(a: int, dst: int) -> Instruction:
    return VcuRun(a=a, dst=dst)


def waits(instruction: Instruction) -> list[int]:
    return [s for s in (instruction.wait_a, instruction.wait_b) if s]


def signals(instruction: Instruction) -> list[int]:
    return [s for s in (instruction.signal_a, instruction.signal_b) if s]


def orders(program: list[Instruction]) -> list[set[int]]:
    """Per instruction: those that complete before it starts, from queues and k-th wait after k-th signal."""
    signalled: dict[int, list[int]] = defaultdict(list)
    for i, instruction in enumerate(program):
        for s in signals(instruction):
            signalled[s].append(i)
    before: list[set[int]] = []
    last: dict[Engine, int] = {}
    used: dict[int, int] = defaultdict(int)
    for i, instruction in enumerate(program):
        direct = [last[instruction.engine]] if instruction.engine in last else []
        for s in waits(instruction):
            source = signalled[s][used[s]]
            assert source < i, "program order must be a legal schedule"
            direct.append(source)
            used[s] += 1
        before.append(set(direct).union(*(before[d] for d in direct)))
        last[instruction.engine] = i
    assert {s: len(found) for s, found in signalled.items()} == dict(used)
    return before


def check_ordered(program: list[Instruction]) -> None:
    before = orders(program)
    state = State()
    touched = [state.apply(i) or accesses(i, state) for i in program]
    for a, b in combinations([i for i, t in enumerate(touched) if t is not True], 2):
        first, second = touched[a], touched[b]
        pairs = [(x, y) for x in first.writes for y in (*second.reads, *second.writes)]
        pairs += [(x, y) for x in first.reads for y in second.writes]
        if any(x.overlaps(y) for x, y in pairs):
            assert a in before[b], (a, b)


def check_counts(program: list[Instruction], limit: int) -> None:
    before = orders(program)
    signalled: dict[int, list[int]] = defaultdict(list)
    waited: dict[int, list[int]] = defaultdict(list)
    for i, instruction in enumerate(program):
        for s in signals(instruction):
            signalled[s].append(i)
        for s in waits(instruction):
            waited[s].append(i)
    for s, found in signalled.items():
        for k in range(limit, len(found)):
            # A wait is over when its own instruction starts, or an instruction before the signaller follows it.
            assert waited[s][k - limit] in before[found[k]], (s, k)


ADDRESSES = st.integers(0, 7).map(lambda i: 4 * i)
ACTIONS = st.one_of(
    st.builds(load, ADDRESSES, st.integers(1, 12)),
    st.builds(store, ADDRESSES, st.integers(1, 12), ADDRESSES),
    st.builds(vcu, ADDRESSES, ADDRESSES),
    st.builds(lambda a, w, c: MmuRun(act=a, weight=w, acc=c), ADDRESSES, ADDRESSES, ADDRESSES),
    st.builds(lambda a: LoadTile(sram=a), st.integers(0, 31)),
    st.builds(lambda n, run: LoadShape(n0=n, run=run), st.integers(1, 3), st.integers(1, 8)),
    st.builds(lambda stride: LoadStrides(sram0=stride), st.sampled_from([4, 8, 16])),
    st.builds(
        lambda dtype, space: VcuStream(id=0, dtype=dtype, space=space),
        st.just(DType.I32),
        st.sampled_from(Space),
    ),
)


@settings(max_examples=examples(150))
@given(st.lists(ACTIONS, max_size=40), st.sampled_from([1, 2, 3, 255]))
def test_random_programs_are_ordered_within_the_semaphores_limit(program, limit):
    found = synchronized(program, limited(limit)).instructions
    check_ordered(found)
    check_counts(found, limit)


@settings(max_examples=examples(150))
@given(st.lists(ACTIONS, max_size=40), st.sampled_from([1, 2, 3, 255]), st.data())
def test_any_merge_of_the_queues_is_ordered_within_the_limit(program, limit, data):
    waits = dependences(program)
    queues = [[i for i, instruction in enumerate(program) if instruction.engine is engine] for engine in NUMBER]
    order: list[int] = []
    while any(queues):
        ready = [queue for queue in queues if queue and set(waits.get(queue[0], ())) <= set(order)]
        order.append(data.draw(st.sampled_from(ready)).pop(0))
    found = synchronize(program, order, waits, limited(limit))
    assert list(dict.fromkeys(found.origin)) == order
    check_ordered(found.instructions)
    check_counts(found.instructions, limit)


@given(st.lists(ACTIONS, max_size=30))
def test_instructions_stay_in_order_and_keep_their_origin(program):
    found = synchronized(program, MACHINE)
    bare = [
        (i.with_sync(wait_a=0, wait_b=0, signal_a=0, signal_b=0), o)
        for i, o in zip(found.instructions, found.origin, strict=True)
        if not i.mnemonic.endswith(".sync")
    ]
    assert bare == [(instruction, i) for i, instruction in enumerate(program)]
    assert found.origin == sorted(found.origin)


def test_a_consumer_waits_for_its_producer():
    found = synchronized([load(0, 16), vcu(0, 64), store(64, 1)], MACHINE).instructions
    to_vcu, to_store = semaphore(Engine.LOAD, Engine.VCU), semaphore(Engine.VCU, Engine.STORE)
    assert [(waits(i), signals(i)) for i in found] == [
        ([], [to_vcu]),
        ([to_vcu], [to_store]),
        ([to_store], []),
    ]


def test_reuse_of_a_buffer_waits_for_its_readers():
    found = synchronized([load(0, 16), vcu(0, 64), load(0, 16)], MACHINE).instructions
    assert waits(found[2]) == [semaphore(Engine.VCU, Engine.LOAD)]


def test_a_wait_that_is_implied_is_left_out():
    # The store follows the vcu.run, which followed the load; it needs no wait of its own for the load.
    found = synchronized([load(0, 16), vcu(0, 0), store(0, 16)], MACHINE).instructions
    assert waits(found[2]) == [semaphore(Engine.VCU, Engine.STORE)]


def test_independent_instructions_get_no_semaphores():
    program = [load(0, 16), store(16, 16), vcu(32, 48)]
    assert synchronized(program, MACHINE) == Synchronized(program, [0, 1, 2])


def test_interleaved_slices_do_not_wait_for_each_other():
    def tile(sram: int) -> list[Instruction]:
        return [LoadShape(n0=4, run=8), LoadStrides(sram0=32), LoadTile(sram=sram)]

    program = [*tile(0), VcuStream(id=0, stride0=32), vcu(9, 512)]
    assert not waits(synchronized(program, MACHINE).instructions[-1])


def test_setup_instructions_do_not_wait():
    found = synchronized([load(0, 16), MmuInput(), MmuRun(act=0, weight=64)], MACHINE).instructions
    assert not waits(found[1])
    assert waits(found[2])


def test_a_third_wait_goes_on_a_sync_instruction_before():
    program = [load(0, 1), store(64, 1), MmuRun(weight=128, act=132), VcuStream(id=0, space=Space.ACC)]
    program += [VcuStream(id=1), VcuRun(a=0, b=0, streams=2, dst=64)]
    found = synchronized(program, MACHINE)
    assert isinstance(found.instructions[-2], VcuSync)
    assert len(waits(found.instructions[-2]) + waits(found.instructions[-1])) == 3
    assert found.origin[-2:] == [5, 5]


def test_unconsumed_signals_stay_below_the_limit_by_waiting_for_a_later_one():
    program = [*(load(4 * i, 4) for i in range(20)), *(vcu(4 * i, 200 + i) for i in range(20))]
    found = synchronized(program, limited(4)).instructions
    check_ordered(found)
    check_counts(found, 4)
    assert sum(len(signals(i)) for i in found) <= 4


def test_a_machine_with_too_few_semaphores_is_an_error():
    machine = replace(MACHINE, sync=replace(MACHINE.sync, semaphores=8))
    with pytest.raises(UnsupportedError, match=r"semaphores = 8: must be at least 12"):
        synchronized([], machine)


@pytest.mark.slow
def test_a_long_steady_program_needs_two_waits_a_step_at_most():
    def step(i: int) -> list[Instruction]:
        slot = i % 3 * 4096
        return [
            load(slot, 4096),
            MmuRun(act=slot, weight=slot + 64, acc=i % 2 * 64),
            vcu(slot, 65536 + i % 5 * 64),
        ]

    program = [instruction for i in range(3000) for instruction in (*step(i), store(65536 + i % 5 * 64, 64, 64 * i))]
    ordered = synchronized(program, MACHINE).instructions
    assert sum((i.wait_a > 0) + (i.wait_b > 0) for i in ordered) <= 2 * len(program)
    bare = [i.with_sync(wait_a=0, wait_b=0, signal_a=0, signal_b=0) for i in ordered]
    assert [i for i in bare if not isinstance(i, tuple(SYNCS.values()))] == program


@pytest.mark.parametrize("box", [
    Box(Memory.SRAM, 7, 5, 4, 100), Box(Memory.SRAM, 7, 5), Box(Memory.SRAM, 0, 2, 3, 50, 4, 6),
    Box(Memory.SRAM, 0, 2, 90, 9),
])  # fmt: skip
def test_rows_are_the_bytes_of_their_box(box):
    rows = list(_rows(box))
    assert sum(row.bytes for row in rows) == box.bytes
    assert [row.start for row in rows] == [box.start + i * box.stride0 for i in range(len(rows))]
    assert all(row.dense for row in rows) or rows == [box]
    assert (len(rows) > 1) == (box == Box(Memory.SRAM, 7, 5, 4, 100))
