"""What every cycle was spent on: idle cycles of each engine by cause, and the critical path.

Both follow from the times of a walk, so nothing of it slows the walk down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.encoding import SEMAPHORE_FIELDS
from isa.instructions import Halt
from runtime.plan import DISPATCH, ENGINES, Plan

Ints = NDArray[np.int64]
BY_ENGINE, BY_DISPATCH = -1, -2
DISPATCHING, FETCH = 0, 1
"""Causes of idleness by number; the queue of engine e is ``FETCH + 1 + e``."""
CAUSES = ("dispatch", "fetch", *(f"queue:{engine.value}" for engine in ENGINES[:DISPATCH]))
SEMAPHORES = 1 << max(row.bits.width for row in Halt.layout() if row.name in SEMAPHORE_FIELDS)
OTHERS = ("bank", "dram", "dram_latency", "end")


class Holds(NamedTuple):
    """The times when dispatch stood still, in order: before which instruction, until when, for how many cycles.

    ``cause``: a number of CAUSES. ``room``: the instruction whose start ended it, unless that was a fetch.
    """

    instruction: Ints
    until: Ints
    cycles: Ints
    cause: Ints
    room: Ints


class Walked(NamedTuple):
    """Times of n instructions; ``requested``: when each block of program was asked for.

    ``own_end``: completion without waiting for the previous completion of the same engine. ``bank`` and ``dram``:
    cycles that an engine ran longer because of them.
    """

    head: Ints
    start: Ints
    release: Ints
    own_end: Ints
    end: Ints
    dispatched: Ints
    held: Ints
    """Which of ``holds`` came last; -1: none yet."""
    holds: Holds
    requested: list[int]
    bank: list[int]
    dram: list[int]
    dispatch_end: int
    total: int


def waits(plan: Plan, walked: Walked) -> tuple[Ints, Ints]:
    """Cycles [n, 2] spent waiting for each semaphore, and what each start waited for last.

    That is an instruction that signalled, BY_ENGINE or BY_DISPATCH.
    """
    came = np.append(walked.end, 0)[plan.sources]
    first, second = came[:, 0], came[:, 1]
    then = np.maximum(first, walked.head)
    spent = np.stack([then - walked.head, np.maximum(second - then, 0)], axis=1)
    free = np.append(walked.release, 0)[plan.previous]
    why = np.where((walked.dispatched + 1 > free) | (plan.engine == DISPATCH), BY_DISPATCH, BY_ENGINE)
    for which in (0, 1):
        why = np.where(spent[:, which] > 0, plan.sources[:, which], why)
    return spent, why


def idle(plan: Plan, walked: Walked, spent: Ints) -> list[dict[str, int]]:
    """Idle cycles of every engine by cause, sorted by name; with its busy cycles they are the total."""
    table = np.zeros((len(ENGINES), len(CAUSES)), dtype=np.int64)
    np.add.at(table[DISPATCH], walked.holds.cause, walked.holds.cycles)
    _waits_for_dispatch(plan, walked, table)
    found = [{CAUSES[c]: n for c, n in enumerate(row) if n} for row in table.tolist()]
    _waits_for_semaphores(plan, spent, found)
    for e, row in enumerate(found):
        mine = np.flatnonzero(plan.engine == e)[-1:]
        free, done = (int(times[mine].sum()) for times in (walked.release, walked.end))
        if e == DISPATCH:
            free = done = walked.dispatch_end
        last = (walked.bank[e], walked.dram[e], done - free)
        row.update({cause: n for cause, n in zip(OTHERS, last, strict=False) if n})
        row["end"] = walked.total - done
    return [dict(sorted(row.items())) for row in found]


def _waits_for_dispatch(plan: Plan, walked: Walked, table: Ints) -> None:
    """An engine with an empty queue waits for what held dispatch up meanwhile."""
    free = np.append(walked.release, 0)[plan.previous]
    gap = walked.dispatched + 1 - free
    empty = np.flatnonzero((gap > 0) & (plan.engine != DISPATCH))
    # Before the first hold of all, index -1: nothing held dispatch up.
    until, cause = np.append(walked.holds.until, 0), np.append(walked.holds.cause, DISPATCHING)
    held = walked.held[empty]
    causes = np.where(until[held] > free[empty], cause[held], DISPATCHING)
    np.add.at(table, (plan.engine[empty], causes), gap[empty])


def _waits_for_semaphores(plan: Plan, spent: Ints, found: list[dict[str, int]]) -> None:
    who, which = np.nonzero(spent)
    sources = plan.engine[plan.sources[who, which]]
    table = np.zeros((len(ENGINES), SEMAPHORES, len(ENGINES)), dtype=np.int64)
    np.add.at(table, (plan.engine[who], plan.waits[who, which], sources), spent[who, which])
    for place in np.argwhere(table).tolist():
        engine, sem, source = place
        found[engine][f"semaphore:{sem}:{ENGINES[source].value}"] = int(table[engine, sem, source])


def critical_path(plan: Plan, walked: Walked, why: Ints, per_block: int) -> tuple[Ints, Mapping[str, int]]:
    """Walk back from the last completion; every cycle goes to one instruction or overhead."""
    path = _Path(walked, per_block)
    critical = [0] * len(plan)
    i, cursor = len(plan) - 1, walked.total
    if walked.dispatch_end < walked.total:
        complete = (walked.end == walked.total) & (plan.engine != DISPATCH)
        i = int(np.argmax(complete))
    elif cursor and plan.engine[i] != DISPATCH:
        # Dispatch itself ends last, which takes an instruction of no time after it.
        path.overhead["dispatch"] += 1
        i, cursor = path.before_dispatch(i, cursor - 1)
    start, own_end, previous, reason = (a.tolist() for a in (walked.start, walked.own_end, plan.previous, why))
    while cursor:
        if cursor > own_end[i]:
            i = previous[i]
            continue
        critical[i] += cursor - start[i]
        cursor = start[i]
        if reason[i] == BY_ENGINE:
            i = previous[i]
        elif reason[i] != BY_DISPATCH:
            i = reason[i]
        else:
            dispatched = walked.dispatched.item(i)
            path.overhead["dispatch"] += cursor - dispatched
            i, cursor = path.before_dispatch(i, dispatched)
    return np.array(critical, dtype=np.int64), path.overhead


class _Path:
    """The part of the critical path that runs through dispatch."""

    def __init__(self, walked: Walked, per_block: int) -> None:
        self.held, self.holds, self.requested, self.per_block = walked.held, walked.holds, walked.requested, per_block
        self.overhead = {"dispatch": 0, "fetch": 0}

    def before_dispatch(self, i: int, cursor: int) -> tuple[int, int]:
        """From the dispatch of ``i`` back to the start that made room for it, or to time 0."""
        while cursor:
            if (held := self.held.item(i)) < 0:
                self.overhead["dispatch"] += cursor
                return i, 0
            until = self.holds.until.item(held)
            self.overhead["dispatch"] += cursor - until
            cursor = until
            if self.holds.cause.item(held) != FETCH:
                return self.holds.room.item(held), cursor
            block = self.holds.instruction.item(held) // self.per_block
            self.overhead["fetch"] += cursor - self.requested[block]
            cursor, i = self.requested[block], (block - 1) * self.per_block
        return i, 0
