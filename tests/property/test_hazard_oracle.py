"""The race detector against every interleaving of small programs, one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from isa.access import Accesses, Box, Memory
from isa.encoding import Instruction
from isa.errors import DeadlockError, RaceError, SemaphoreError
from isa.instructions import LoadSync, MmuSync, StoreSync, VcuSync
from isa.machine import Machine
from runtime.hazards import check_hazards
from tests.thinning import examples

TINY = Machine.load("tiny")
LIMIT = 2
MACHINE = replace(TINY, sync=replace(TINY.sync, semaphore_max=LIMIT))
QUEUES = (LoadSync, StoreSync, MmuSync, VcuSync)
DMA = 2
"""Queues before this one start an instruction while the one before it is not complete; completions keep order."""
BOX = st.tuples(st.integers(0, 3), st.integers(1, 2)).map(lambda pair: Box(Memory.SRAM, *pair))
BOXES = st.lists(BOX, max_size=1).map(tuple)
State = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Instructions started and completed per engine, count per semaphore."""


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Instruction], list[Accesses]]:
    """Up to eight synchronizations that pretend to touch some of four bytes; most wait only for what was signalled."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4, unique=True))
    careless = draw(st.integers(0, 5)) == 0
    counts = [0, *(0 for _ in pairs)]
    program: list[Instruction] = []
    for engine in draw(st.lists(st.integers(0, 3), min_size=2, max_size=8)):
        waits: list[int] = []
        for _ in range(2):
            ready = [i for i, (_, target) in enumerate(pairs, 1) if target == engine and (careless or counts[i] > 0)]
            waits.append(draw(st.sampled_from([*ready, 0])))
            counts[waits[-1]] -= 1
        own = st.sampled_from([*(i for i, (source, _) in enumerate(pairs, 1) if source == engine), 0])
        signals = draw(own), draw(own)
        for signal in signals:
            counts[signal] += 1
        program.append(QUEUES[engine](waits[0], waits[1], signals[0], signals[1]))
    return program, [Accesses(draw(BOXES), draw(BOXES)) for _ in program]


def conflict(a: Accesses, b: Accesses) -> bool:
    pairs = [(x, y) for x in a.writes for y in (*b.reads, *b.writes)] + [(x, y) for x in a.reads for y in b.writes]
    return any(x.start < y.stop and y.start < x.stop for x, y in pairs)


def moved(row: tuple[int, ...], at: int, by: int) -> tuple[int, ...]:
    return (*row[:at], row[at] + by, *row[at + 1 :])


def outcomes(program: Sequence[Instruction], touched: Sequence[Accesses]) -> set[str]:
    """What can go wrong in some interleaving of starts and completions."""
    engine = [QUEUES.index(type(instruction)) for instruction in program]
    queues = [[i for i, e in enumerate(engine) if e == own] for own in range(4)]
    found: set[str] = set()

    def races(i: int, started: tuple[int, ...], complete: tuple[int, ...]) -> bool:
        for j, e in enumerate(engine):
            place = queues[e].index(j)
            wrong = place >= complete[e] if j < i else place < started[e]
            if e != engine[i] and wrong and conflict(touched[i], touched[j]):
                return True
        return False

    def steps(started: tuple[int, ...], complete: tuple[int, ...], counts: tuple[int, ...]) -> Iterator[State]:
        for e, queue in enumerate(queues):
            if started[e] < len(queue) and (e < DMA or complete[e] == started[e]):
                i, left = queue[started[e]], counts
                for wait in (program[i].wait_a, program[i].wait_b):
                    left = moved(left, wait, -1) if wait else left
                if min(left) >= 0:
                    found.update(["race"] if races(i, started, complete) else [])
                    yield moved(started, e, 1), complete, left
            if complete[e] < started[e]:
                i, more = queue[complete[e]], counts
                for signal in (program[i].signal_a, program[i].signal_b):
                    more = moved(more, signal, 1) if signal else more
                found.update(["overflow"] if max(more) > LIMIT else [])
                yield started, moved(complete, e, 1), more

    first: State = ((0,) * 4, (0,) * 4, (0,) * 5)
    seen, todo = {first}, [first]
    while todo:
        state = todo.pop()
        after = set(steps(*state))
        if not after and any(done < len(queue) for done, queue in zip(state[1], queues, strict=True)):
            found.add("deadlock")
        todo.extend(after - seen)
        seen |= after
    return found


def verdict(program: Sequence[Instruction], touched: Sequence[Accesses]) -> str:
    try:
        check_hazards(program, touched, MACHINE, str)
    except RaceError:
        return "race"
    except SemaphoreError:
        return "overflow"
    except DeadlockError as error:
        return "order" if "program order must be a legal schedule" in str(error) else "deadlock"
    return ""


@settings(max_examples=examples(400))
@given(programs())
def test_what_the_detector_says_is_what_some_interleaving_does(case: tuple[list[Instruction], list[Accesses]]) -> None:
    said, possible = verdict(*case), outcomes(*case)
    assert said in possible or said == "order" or (said == "" and possible == set())
