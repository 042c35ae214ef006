"""Order engines by semaphores that follow from the bytes that instructions touch (decision 0001).

One walk in program order. A map of byte intervals per space remembers who touched what last; an instruction
that conflicts with an earlier one of another engine waits for it unless it is known to have completed. Vector
clocks say what is known: what the own engine waited for, and what those engines had waited for. Queues are in
order, so the waits between two engines are monotone and one counting semaphore per ordered pair carries them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from isa.access import NOTHING, Accesses, Box, Memory, accesses
from isa.encoding import Engine, Instruction
from isa.errors import UnsupportedError
from isa.instructions import LoadSync, MmuSync, StoreSync, VcuSync
from isa.machine import Machine
from isa.state import State

ENGINES = (Engine.LOAD, Engine.STORE, Engine.MMU, Engine.VCU)
SYNCS: dict[Engine, type[Instruction]] = {
    Engine.LOAD: LoadSync,
    Engine.STORE: StoreSync,
    Engine.MMU: MmuSync,
    Engine.VCU: VcuSync,
}
NUMBER = {engine: i for i, engine in enumerate(ENGINES)}
COUNT = len(ENGINES)
SEMAPHORES = COUNT * (COUNT - 1)
REMEMBERED = 8
"""Interleaved records kept apart per interval and engine; older ones are merged into their hull."""

SPLIT_ROWS = 8
"""Rows of a box that are followed one by one, not as their hull."""

Clock = tuple[int, ...]
"""Per engine: the index of its last instruction that is known to have completed."""
Record = tuple[int, Box]
Cell = list[tuple[Record, ...]]
"""Records of one interval, newest first: the writes of each engine, then the reads of each engine."""


@dataclass(frozen=True)
class Synchronized:
    """``instructions`` with their semaphores; ``origin[i]`` is the index in the input that entry i serves."""

    instructions: list[Instruction]
    origin: list[int]


def semaphore(signaller: Engine, waiter: Engine) -> int:
    """The semaphore of an ordered pair of engines, 1 .. 12."""
    a, b = NUMBER[signaller], NUMBER[waiter]
    return 1 + a * (COUNT - 1) + b - (b > a)


def synchronize(instructions: Sequence[Instruction], machine: Machine) -> Synchronized:
    """``instructions``, which must hold no semaphores, ordered so that every timing gives program order's result.

    Raises UnsupportedError if the machine has fewer than 12 semaphores.
    """
    if machine.sync.semaphores < SEMAPHORES:
        raise UnsupportedError(
            f"machine {machine.name}: sync.semaphores = {machine.sync.semaphores}: must be at least {SEMAPHORES}, "
            "one per ordered pair of engines"
        )
    return _insert(instructions, _planned(instructions, machine).edges())


def dependences(instructions: Sequence[Instruction], machine: Machine) -> dict[int, list[int]]:
    """Of every instruction that waits, the instructions of other engines that it waits for, by index."""
    plan = _planned(instructions, machine)
    found: dict[int, list[int]] = {}
    for signals, waits in zip(chain(*plan.signals), chain(*plan.waits), strict=True):
        for signaller, waiter in zip(signals, waits, strict=True):
            found.setdefault(waiter, []).append(signaller)
    return found


def _planned(instructions: Sequence[Instruction], machine: Machine) -> _Plan:
    """Who waits for whom."""
    touched = _touched(instructions)
    shared = _shared_spaces(touched)
    plan = _Plan(machine.sync.semaphore_max)
    for index, engine, (reads, writes) in touched:
        plan.visit(
            index,
            engine,
            [row for box in reads if box.space in shared for row in _rows(box)],
            [row for box in writes if box.space in shared for row in _rows(box)],
        )
    return plan


def _touched(instructions: Sequence[Instruction]) -> list[tuple[int, int, Accesses]]:
    """Index, engine number and accesses of every instruction that touches memory."""
    state = State()
    found: list[tuple[int, int, Accesses]] = []
    for index, instruction in enumerate(instructions):
        if not state.apply(instruction) and (both := accesses(instruction, state)) is not NOTHING:
            found.append((index, NUMBER[instruction.engine], both))
    return found


def _rows(box: Box) -> Iterator[Box]:
    """A few dense rows one by one: in their hull, a tile would meet all tiles beside it."""
    if box.n1 > 1 or not 1 < box.n0 <= SPLIT_ROWS:
        yield box
        return
    for i in range(box.n0):
        start = box.start + i * box.stride0
        yield Box(box.space, start, box.run, box.n1, box.stride1, box.n2, box.stride2)


def _shared_spaces(touched: Iterable[tuple[int, int, Accesses]]) -> set[Memory]:
    """Spaces that one engine writes and another one touches; constants, for example, are only read."""
    users: dict[Memory, set[int]] = {}
    written: set[Memory] = set()
    for _, engine, (reads, writes) in touched:
        for box in (*reads, *writes):
            users.setdefault(box.space, set()).add(engine)
        written.update(box.space for box in writes)
    return {space for space in written if len(users[space]) > 1}


@dataclass
class _Intervals:
    """Disjoint intervals that cover a whole space, each with the records of who touched it."""

    starts: list[int] = field(default_factory=lambda: [0])
    cells: list[Cell] = field(default_factory=lambda: [[()] * (2 * COUNT)])

    def cut(self, at: int) -> int:
        """Index of the interval that starts at ``at``, splitting one if need be."""
        i = bisect_left(self.starts, at)
        if i == len(self.starts) or self.starts[i] != at:
            self.starts.insert(i, at)
            self.cells.insert(i, self.cells[i - 1].copy())
        return i

    def span(self, box: Box) -> tuple[int, int]:
        """The intervals that make up the hull of ``box``."""
        low = self.cut(box.start)
        return low, self.cut(box.stop)

    def replace(self, low: int, high: int, cell: Cell) -> None:
        """Make intervals low .. high-1 one."""
        self.starts[low:high] = [self.starts[low]]
        self.cells[low:high] = [cell]


def _with(records: tuple[Record, ...], index: int, box: Box, known: int) -> tuple[Record, ...]:
    """``records`` of one engine and kind after one more.

    A dense box outdates all of them in its interval, and what every engine knows to be done needs no record.
    """
    if box.n0 == 1:
        return ((index, box),)
    kept = [record for record in records if record[0] > known and record[1] != box]
    if len(kept) > REMEMBERED:
        merged = [old for _, old in kept[REMEMBERED - 1 :]]
        low, high = min(old.start for old in merged), max(old.stop for old in merged)
        kept[REMEMBERED - 1 :] = [(kept[REMEMBERED - 1][0], Box(box.space, low, high - low))]
    return ((index, box), *kept)


def _add(cells: Iterable[Cell], column: int, record: Record, known: int) -> None:
    """Put ``record`` into one column of every cell."""
    last = new = None
    for cell in cells:
        if (records := cell[column]) is not last or new is None:
            last, new = records, _with(records, *record, known)
        cell[column] = new


def _latest(records: tuple[Record, ...], box: Box, known: int) -> int:
    """The newest record after ``known`` that meets ``box``, else ``known``."""
    for index, other in records:
        if index <= known:
            return known
        if other.overlaps(box):
            return index
    return known


class _Plan:
    """The walk's state: interval maps, vector clocks, and the waits found so far."""

    def __init__(self, semaphore_max: int) -> None:
        # A signaller may be ahead of its waiter in program order by at most ``ahead`` signals, and by
        # ``unproven`` more that the waiter has consumed without the signaller knowing.
        self.ahead = max(1, semaphore_max // 2)
        self.unproven = semaphore_max - self.ahead
        self.memory = {space: _Intervals() for space in Memory}
        self.clocks: list[Clock] = [(-1,) * COUNT] * COUNT
        self.after: dict[int, Clock] = {}
        self.history: list[list[int]] = [[] for _ in ENGINES]
        self.signals: list[list[list[int]]] = [[[] for _ in ENGINES] for _ in ENGINES]
        self.waits: list[list[list[int]]] = [[[] for _ in ENGINES] for _ in ENGINES]

    def visit(self, index: int, engine: int, reads: Iterable[Box], writes: Iterable[Box]) -> None:
        """Find what instruction ``index`` must wait for, then record what it touches."""
        need = list(self.clocks[engine])
        others = [other for other in range(COUNT) if other != engine]
        written_by = others
        touched_by = [*others, *(COUNT + other for other in others)]
        for box in reads:
            self._meet(box, written_by, need)
        for box in writes:
            self._meet(box, touched_by, need)
        for other in sorted(others, key=need.__getitem__, reverse=True):
            self._require(index, engine, other, need[other])
        self._throttle(index, engine, others)
        self._record(index, engine, reads, writes)
        clock = list(self.clocks[engine])
        clock[engine] = index
        self.clocks[engine] = self.after[index] = tuple(clock)
        self.history[engine].append(index)

    def _meet(self, box: Box, columns: list[int], need: list[int]) -> None:
        """Raise ``need`` to the latest record in ``columns`` of the intervals' cells that meets ``box``."""
        intervals = self.memory[box.space]
        low, high = intervals.span(box)
        for column in columns:
            other, last = column % COUNT, None
            for cell in intervals.cells[low:high]:
                # Neighbours often share their records.
                if (records := cell[column]) and records is not last:
                    last = records
                    need[other] = _latest(records, box, need[other])

    def _record(self, index: int, engine: int, reads: Iterable[Box], writes: Iterable[Box]) -> None:
        known = min(clock[engine] for other, clock in enumerate(self.clocks) if other != engine)
        for box in reads:
            intervals = self.memory[box.space]
            low, high = intervals.span(box)
            _add(intervals.cells[low:high], COUNT + engine, (index, box), known)
        for box in writes:
            intervals = self.memory[box.space]
            low, high = intervals.span(box)
            if box.n0 > 1:
                _add(intervals.cells[low:high], engine, (index, box), known)
                continue
            # Whoever meets an older access here meets this write too, which is ordered after it.
            cell: Cell = [()] * (2 * COUNT)
            cell[engine] = ((index, box),)
            intervals.replace(low, high, cell)

    def _require(self, index: int, engine: int, other: int, need: int) -> None:
        """Make ``index`` on ``engine`` wait for ``need`` on ``other``, unless that is known already."""
        if need <= self.clocks[engine][other]:
            return
        signals, waits = self.signals[other][engine], self.waits[other][engine]
        if len(waits) - bisect_right(waits, need) >= self.ahead:
            # Program order alone would overflow: the last wait takes the signaller's latest instead.
            history = self.history[other]
            signals[-1] = latest = history[bisect_left(history, waits[-1]) - 1]
            self._learn(engine, self.after[latest])
            if need <= latest:
                return
        signals.append(need)
        waits.append(index)
        self._learn(engine, self.after[need])

    def _learn(self, engine: int, clock: Clock) -> None:
        self.clocks[engine] = tuple(map(max, self.clocks[engine], clock))

    def _throttle(self, index: int, engine: int, others: Iterable[int]) -> None:
        """Keep counts below the machine's limit: do not run ahead of waits that are not known to be done."""
        for other in others:
            waits = self.waits[engine][other]
            if len(waits) > self.unproven and waits[-1 - self.unproven] > self.clocks[engine][other]:
                self._require(index, engine, other, waits[-1])

    def edges(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Semaphores that each instruction waits for, and those that it signals."""
        waits: dict[int, list[int]] = {}
        signals: dict[int, list[int]] = {}
        for a, signaller in enumerate(ENGINES):
            for b, waiter in enumerate(ENGINES):
                if a == b:
                    continue
                number = semaphore(signaller, waiter)
                for index in self.signals[a][b]:
                    signals.setdefault(index, []).append(number)
                for index in self.waits[a][b]:
                    waits.setdefault(index, []).append(number)
        return waits, signals


def _insert(
    instructions: Sequence[Instruction], edges: tuple[dict[int, list[int]], dict[int, list[int]]]
) -> Synchronized:
    """Put semaphores into their instructions; what does not fit goes to sync instructions beside them."""
    waits, signals = edges
    out: list[Instruction] = []
    origin: list[int] = []
    for index, instruction in enumerate(instructions):
        wait, signal = waits.get(index), signals.get(index)
        if wait is None and signal is None:
            out.append(instruction)
            origin.append(index)
            continue
        wait_a, wait_b, *more_waits = (*(wait or ()), 0, 0)
        signal_a, signal_b, *more_signals = (*(signal or ()), 0, 0)
        sync = SYNCS[instruction.engine]
        # Three other engines, so at most one semaphore is over, after two zeros that only pad.
        group = [
            *(sync(wait_a=number) for number in more_waits if number),
            instruction.with_sync(wait_a=wait_a, wait_b=wait_b, signal_a=signal_a, signal_b=signal_b),
            *(sync(signal_a=number) for number in more_signals if number),
        ]
        out += group
        origin += [index] * len(group)
    return Synchronized(out, origin)
