"""Which instructions must wait for which: of other engines, because of the bytes that both touch (decision 0001).

One walk in program order. A map of byte intervals per space remembers who touched what last; an instruction
that conflicts with an earlier one of another engine waits for it unless it is known to have completed. Vector
clocks say what is known: what the own engine waited for, and what those engines had waited for. So what follows
depends on the order of each engine's queue, and not on how a program merges the queues.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isa.access import NOTHING, Accesses, Box, Memory, accesses
from isa.encoding import Engine, Instruction
from isa.state import State

ENGINES = (Engine.LOAD, Engine.STORE, Engine.MMU, Engine.VCU)
NUMBER = {engine: i for i, engine in enumerate(ENGINES)}
COUNT = len(ENGINES)
REMEMBERED = 8
"""Interleaved records kept apart per interval and engine; older ones are merged into their hull."""

SPLIT_ROWS = 8
"""Rows of a box that are followed one by one, not as their hull."""

Clock = tuple[int, ...]
"""Per engine: the index of its last instruction that is known to have completed."""
Dependences = Mapping[int, tuple[int, ...]]
"""Of every instruction that touches memory: those of other engines that it waits for, at most one of each, by index."""
Record = tuple[int, Box]
Cell = list[tuple[Record, ...]]
"""Records of one interval, newest first: the writes of each engine, then the reads of each engine."""


def dependences(instructions: Sequence[Instruction]) -> dict[int, tuple[int, ...]]:
    """What ``instructions``, which hold no semaphores, have to wait for so that program order's result comes out."""
    touched = _touched(instructions)
    shared = _shared_spaces(touched)
    walk = _Walk()
    return {
        index: walk.visit(
            index,
            engine,
            [row for box in reads if box.space in shared for row in _rows(box)],
            [row for box in writes if box.space in shared for row in _rows(box)],
        )
        for index, engine, (reads, writes) in touched
    }


class Clocks:
    """Vector clocks: what every engine knows to have completed when its next instruction starts."""

    def __init__(self) -> None:
        self.now: list[Clock] = [(-1,) * COUNT] * COUNT
        self._after: dict[int, Clock] = {}

    def learn(self, engine: int, source: int) -> None:
        """``engine`` waits for the instruction ``source``, which has been visited."""
        self.now[engine] = tuple(map(max, self.now[engine], self._after[source]))

    def visited(self, index: int, engine: int) -> None:
        """Instruction ``index`` has waited for all that it must."""
        clock = list(self.now[engine])
        clock[engine] = index
        self.now[engine] = self._after[index] = tuple(clock)


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


class _Walk:
    """The walk's state: interval maps and vector clocks."""

    def __init__(self) -> None:
        self.memory = {space: _Intervals() for space in Memory}
        self.clocks = Clocks()

    def visit(self, index: int, engine: int, reads: Iterable[Box], writes: Iterable[Box]) -> tuple[int, ...]:
        """What instruction ``index`` must wait for; records what it touches."""
        need = list(self.clocks.now[engine])
        others = [other for other in range(COUNT) if other != engine]
        for box in reads:
            self._meet(box, others, need)
        for box in writes:
            self._meet(box, [*others, *(COUNT + other for other in others)], need)
        sources: list[int] = []
        for other in sorted(others, key=need.__getitem__, reverse=True):
            if need[other] > self.clocks.now[engine][other]:
                self.clocks.learn(engine, need[other])
                sources.append(need[other])
        self._record(index, engine, reads, writes)
        self.clocks.visited(index, engine)
        return tuple(sources)

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
        known = min(clock[engine] for other, clock in enumerate(self.clocks.now) if other != engine)
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
