"""Races, deadlocks and semaphore overflows of a program, found for every timing without simulating any.

Happens-before has three sources: a queue runs in order, the k-th wait on a semaphore starts after the
k-th signal's instruction completed, and both are transitive. A vector clock per instruction says which
instructions of each engine are certain to have completed before it starts. Two accesses to one byte of which
one writes, on two engines, must be ordered that way, earlier in the program first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isa.access import Accesses, Box, Memory
from isa.encoding import Engine, Instruction
from isa.errors import DeadlockError, RaceError, SemaphoreError
from isa.machine import Machine

ENGINES = tuple(Engine)
NUMBER = {engine: i for i, engine in enumerate(ENGINES)}
Clock = tuple[int, ...]
"""Per engine: index of its last instruction that is certain to have completed."""
Describe = Callable[[int], str]
READ, WRITE = 0, 1
VERBS = ("reads", "writes")
FEW = 24
"""Candidates up to which a loop is faster than arrays."""
EXACT_RUNS = 1 << 22


def check_hazards(
    program: Sequence[Instruction], touched: Sequence[Accesses], machine: Machine, describe: Describe
) -> None:
    """Raise SemaphoreError, DeadlockError or RaceError if some timing of ``program`` breaks a rule.

    ``touched[i]`` is what instruction i reads and writes; ``describe(i)`` names it in messages.
    """
    clocks = happens_before(program, machine, describe)
    _check_races(program, touched, clocks, describe)


def happens_before(program: Sequence[Instruction], machine: Machine, describe: Describe) -> list[Clock]:
    """The vector clock at the start of every instruction. Raises SemaphoreError or DeadlockError."""
    semaphores = _Semaphores(machine, describe)
    current: list[Clock] = [(-1,) * len(ENGINES)] * len(ENGINES)
    clocks: list[Clock] = []
    for index, instruction in enumerate(program):
        engine = NUMBER[instruction.engine]
        clock = current[engine]
        for number in (instruction.wait_a, instruction.wait_b):
            if not number:
                continue
            if (signal := semaphores.wait(number, index, instruction)) is None:
                raise DeadlockError(_deadlock(program, machine, describe, index, number))
            clock = tuple(map(max, clock, _after(clocks[signal], NUMBER[program[signal].engine], signal)))
        clocks.append(clock)
        for number in (instruction.signal_a, instruction.signal_b):
            if number:
                semaphores.signal(number, index, instruction, clock)
        current[engine] = _after(clock, engine, index)
    return clocks


def _after(clock: Clock, engine: int, index: int) -> Clock:
    return (*clock[:engine], index, *clock[engine + 1 :])


@dataclass
class _Users:
    """One semaphore's instructions so far."""

    signaller: Engine | None = None
    waiter: Engine | None = None
    signals: list[int] = field(default_factory=list[int])
    waits: list[int] = field(default_factory=list[int])


class _Semaphores:
    """Matches waits with signals and checks the rules on each semaphore."""

    def __init__(self, machine: Machine, describe: Describe) -> None:
        self.sync, self.describe = machine.sync, describe
        self.users: dict[int, _Users] = {}

    def wait(self, number: int, index: int, instruction: Instruction) -> int | None:
        """The instruction whose signal this wait consumes; None if none comes before it in the program."""
        users = self._users(number, index)
        if users.waiter not in (None, instruction.engine):
            raise SemaphoreError(self._shared(number, "waited for", index, users.waits[0]))
        users.waiter = instruction.engine
        users.waits.append(index)
        k = len(users.waits)
        return users.signals[k - 1] if k <= len(users.signals) else None

    def signal(self, number: int, index: int, instruction: Instruction, clock: Clock) -> None:
        """Count a signal of an instruction that starts at ``clock``."""
        users = self._users(number, index)
        if users.signaller not in (None, instruction.engine):
            raise SemaphoreError(self._shared(number, "signalled", index, users.signals[0]))
        users.signaller = instruction.engine
        users.signals.append(index)
        known = clock[NUMBER[users.waiter]] if users.waiter is not None else -1
        waits = users.waits
        # A wait by the signaller itself has started by now.
        consumed = bisect_right(waits, index if users.waiter is instruction.engine else known)
        if (count := len(users.signals) - consumed) > self.sync.semaphore_max:
            raise SemaphoreError(
                f"{self.describe(index)} can signal semaphore {number} while it counts {count - 1}: "
                f"counts end at semaphore_max = {self.sync.semaphore_max}; "
                "let the signalling engine wait for the waiting one"
            )

    def _users(self, number: int, index: int) -> _Users:
        if number > self.sync.semaphores:
            raise SemaphoreError(
                f"{self.describe(index)} uses semaphore {number}: the machine has 1 .. {self.sync.semaphores}"
            )
        return self.users.setdefault(number, _Users())

    def _shared(self, number: int, verb: str, index: int, first: int) -> str:
        return (
            f"semaphore {number} is {verb} by two engines, in {self.describe(first)} and in "
            f"{self.describe(index)}: it must belong to one pair of engines"
        )


def _deadlock(program: Sequence[Instruction], machine: Machine, describe: Describe, index: int, number: int) -> str:
    """Which engines stay blocked when everything that can run has run."""
    blocked = _run_to_standstill(program, machine.dispatch.queue_depth)
    if not blocked:
        return (
            f"{describe(index)} waits for semaphore {number}, but only later instructions signal it: "
            "program order must be a legal schedule; signal before the wait"
        )
    lines = [
        f"{program[i].engine.name} is blocked at {describe(i)}, waiting for semaphore {s}, "
        + _signaller(program, i, s, describe)
        for i, s in blocked
    ]
    return "no engine can go on: " + "; ".join(lines)


def _signaller(program: Sequence[Instruction], index: int, number: int, describe: Describe) -> str:
    """What could still signal ``number`` for the wait at ``index``."""
    needed = sum((i.wait_a == number) + (i.wait_b == number) for i in program[: index + 1])
    for j, instruction in enumerate(program):
        needed -= (instruction.signal_a == number) + (instruction.signal_b == number)
        if needed <= 0:
            return f"which {describe(j)} would signal"
    return "which no instruction signals any more"


def _run_to_standstill(program: Sequence[Instruction], depth: int) -> list[tuple[int, int]]:
    """Blocked instructions and semaphores after in-order dispatch to queues of ``depth`` entries."""
    queues: dict[Engine, deque[int]] = {engine: deque() for engine in ENGINES}
    counts: dict[int, int] = {}
    sent = 0
    moved = True
    while moved:
        moved = False
        while sent < len(program) and len(queues[program[sent].engine]) < depth:
            queues[program[sent].engine].append(sent)
            sent, moved = sent + 1, True
        for queue in queues.values():
            while queue and _missing(program[queue[0]], counts) is None:
                instruction, moved = program[queue.popleft()], True
                for number in (instruction.wait_a, instruction.wait_b):
                    counts[number] = counts.get(number, 0) - 1
                for number in (instruction.signal_a, instruction.signal_b):
                    counts[number] = counts.get(number, 0) + 1
    heads = [queue[0] for queue in queues.values() if queue]
    return [(i, number) for i in heads if (number := _missing(program[i], counts)) is not None]


def _missing(instruction: Instruction, counts: dict[int, int]) -> int | None:
    """A semaphore that keeps ``instruction`` from starting."""
    a, b = instruction.wait_a, instruction.wait_b
    if a and counts.get(a, 0) < 1:
        return a
    return b if b and counts.get(b, 0) < 1 + (a == b) else None


@dataclass
class _Log:
    """The accesses of one engine to one space, of one kind, in program order."""

    indices: list[int] = field(default_factory=list[int])
    boxes: list[Box] = field(default_factory=list[Box])
    _starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    _stops: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))

    def append(self, index: int, box: Box) -> None:
        n = len(self.indices)
        if n == len(self._starts):
            self._starts, self._stops = np.resize(self._starts, 2 * n), np.resize(self._stops, 2 * n)
        self._starts[n], self._stops[n] = box.start, box.stop
        self.indices.append(index)
        self.boxes.append(box)

    def meeting(self, box: Box, known: int) -> Iterator[tuple[int, Box]]:
        """Accesses after instruction ``known`` whose hull meets that of ``box``."""
        low, high = bisect_right(self.indices, known), len(self.indices)
        start, stop = box.start, box.stop
        if high - low <= FEW:
            found = [i for i in range(low, high) if self.boxes[i].start < stop and start < self.boxes[i].stop]
        else:
            hit = (self._starts[low:high] < stop) & (start < self._stops[low:high])
            found = (low + np.flatnonzero(hit)).tolist()
        for i in found:
            yield self.indices[i], self.boxes[i]


def _check_races(
    program: Sequence[Instruction],
    touched: Sequence[Accesses],
    clocks: Sequence[Clock],
    describe: Describe,
) -> None:
    shared = _shared_spaces(program, touched)
    logs = {(s, e, kind): _Log() for s in shared for e in range(len(ENGINES)) for kind in (READ, WRITE)}
    for index, (reads, writes) in enumerate(touched):
        if not reads and not writes:
            continue
        engine, clock = NUMBER[program[index].engine], clocks[index]
        mine = [(READ, box) for box in reads if box.space in shared]
        mine += [(WRITE, box) for box in writes if box.space in shared]
        for kind, box in mine:
            for other in range(len(ENGINES)):
                if other == engine:
                    continue
                for earlier in (WRITE,) if kind == READ else (WRITE, READ):
                    for first, theirs in logs[box.space, other, earlier].meeting(box, clock[other]):
                        if (common := common_bytes(theirs, box)) is not None:
                            raise RaceError(
                                _race(program, (first, earlier), (index, kind), box.space, common, describe)
                            )
        for kind, box in mine:
            logs[box.space, engine, kind].append(index, box)


def _shared_spaces(program: Sequence[Instruction], touched: Sequence[Accesses]) -> set[Memory]:
    """Spaces that some engine writes and another one touches."""
    users: dict[Memory, set[Engine]] = {}
    written: set[Memory] = set()
    for instruction, (reads, writes) in zip(program, touched, strict=True):
        for box in (*reads, *writes):
            users.setdefault(box.space, set()).add(instruction.engine)
        written.update(box.space for box in writes)
    return {space for space in written if len(users[space]) > 1}


def _race(
    program: Sequence[Instruction],
    first: tuple[int, int],
    second: tuple[int, int],
    space: Memory,
    common: tuple[int, int],
    describe: Describe,
) -> str:
    i, j = first[0], second[0]
    return (
        f"{describe(j)} {VERBS[second[1]]} {space.name} bytes {common[0]:#x}..{common[1]:#x}, which "
        f"{describe(i)} {VERBS[first[1]]}, and no semaphore makes {program[j].engine.name} wait for "
        f"{program[i].engine.name}; signal after instruction {i} and wait before instruction {j}"
    )


def common_bytes(a: Box, b: Box) -> tuple[int, int] | None:
    """First and last byte that lie in both boxes, exactly; None if no byte does."""
    low, high = max(a.start, b.start), min(a.stop, b.stop)
    if not a.overlaps(b):
        return None
    if (a.dense and b.dense) or max(a.n0 * a.n1 * a.n2, b.n0 * b.n1 * b.n2) > EXACT_RUNS:
        return low, high - 1
    both = np.flatnonzero(_mask(a, low, high) & _mask(b, low, high))
    return (low + int(both[0]), low + int(both[-1])) if both.size else None


def _mask(box: Box, low: int, high: int) -> NDArray[np.bool_]:
    """Which bytes of [low, high) lie in ``box``."""
    i, j, k = np.ogrid[: box.n0, : box.n1, : box.n2]
    starts = (box.start + i * box.stride0 + j * box.stride1 + k * box.stride2).ravel()
    edges = np.zeros(high - low + 1, np.int64)
    np.add.at(edges, np.clip(starts - low, 0, high - low), 1)
    np.add.at(edges, np.clip(starts + box.run - low, 0, high - low), -1)
    return np.cumsum(edges[:-1]) > 0
