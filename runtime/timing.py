"""Time: when every instruction of a program runs, without ever touching data.

Engines take their queues in order. An instruction is dispatched (one per cycle, in program order), reaches the
head of its queue, waits for its semaphores, runs for its closed-form cost and signals. Because program order is
a legal schedule, everything that an instruction waits for stands before it: one walk in program order is exact,
with no event queue. Shared resources (the DRAM server, the SRAM banks) give priority to the earlier instruction
of the program, whenever it asks; DRAM service is preemptible, burst by burst.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.cost import dram_cycles
from isa.encoding import INSTRUCTIONS, WORD_BYTES, Engine, Instruction
from isa.errors import DeadlockError
from isa.machine import Machine
from isa.pricing import Prices, price

ENGINES = (Engine.LOAD, Engine.STORE, Engine.MMU, Engine.VCU, Engine.DISPATCH)
DISPATCH = ENGINES.index(Engine.DISPATCH)
ENGINE_INDEX = {kind: ENGINES.index(kind.engine) for kind in INSTRUCTIONS.values()}
BY_ENGINE, BY_DISPATCH = -1, -2
Cycles = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """When everything happened, in cycles. Arrays have one int64 per instruction, in program order.

    ``head``: at the head of its queue, ``start``: waits over, runs; ``release``: its engine is free;
    ``end``: complete, signals sent (a DMA's latency lies between the two). ``busy[e] + sum(idle[e].values())``
    is ``cycles`` for every engine e. ``critical.sum() + sum(overhead.values())`` is ``cycles``.
    """

    cycles: int
    engine: NDArray[np.int64]
    head: Cycles
    start: Cycles
    release: Cycles
    end: Cycles
    busy: Mapping[Engine, int]
    idle: Mapping[Engine, Mapping[str, int]]
    critical: Cycles
    overhead: Mapping[str, int]
    dram_busy: Mapping[str, int]
    fetch_bytes: int
    prices: Prices


class Server:
    """The DRAM server: a request takes the first free cycles from its arrival on, in several pieces if need be."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def serve(self, time: int, need: int) -> int:
        """Take ``need`` free cycles at or after ``time``; the cycle after the last one taken."""
        if need == 0:
            return time
        starts, ends = self._starts, self._ends
        low = bisect_right(starts, time)
        if low and ends[low - 1] >= time:
            time = ends[low - 1]
            low -= 1
            first, high = starts[low], low + 1
        else:
            first, high = time, low
        while high < len(starts) and time + need > starts[high]:
            need -= starts[high] - time
            time = ends[high]
            high += 1
        time += need
        last = time
        if high < len(starts) and starts[high] == time:
            last = ends[high]
            high += 1
        starts[low:high] = [first]
        ends[low:high] = [last]
        return time


def simulate_time(program: Sequence[Instruction], machine: Machine, prices: Prices | None = None) -> Timeline:
    """Times of ``program`` on ``machine``.

    Raises DeadlockError when an instruction waits for a signal that no earlier instruction sends.
    """
    prices = price(program, machine) if prices is None else prices
    return _Walk(program, machine, prices).run()


class _Walk:
    def __init__(self, program: Sequence[Instruction], machine: Machine, prices: Prices) -> None:
        self.program, self.machine, self.prices = program, machine, prices
        n = len(program)
        self.engine = [ENGINE_INDEX[type(inst)] for inst in program]
        self.head, self.start, self.release, self.end = [0] * n, [0] * n, [0] * n, [0] * n
        self.own_end = [0] * n
        """Completion without waiting for the previous completion of the same engine."""
        self.why = [BY_ENGINE] * n
        """What the start waited for last: an instruction that signalled, BY_ENGINE or BY_DISPATCH."""
        self.previous = [-1] * n
        self.dispatched = [0] * n
        self.held = [-1] * n
        """The last instruction at or before this one whose dispatch was held up, and by what."""
        self.holder: dict[int, int] = {}
        """Held instruction -> the instruction whose start made room in the queue; -1: its fetch."""
        self.idle: list[dict[str, int]] = [{} for _ in ENGINES]
        self.busy = [0] * len(ENGINES)
        self.server = Server()
        self.dram_busy = {"load": 0, "store": 0, "fetch": 0}
        self.requested: list[int] = []
        self.fetched: list[int] = []
        self.history: list[list[tuple[int, int, int]]] = [[] for _ in ENGINES]
        self.peak = self._peak_words()

    def _peak_words(self) -> list[int]:
        """Most SRAM words per cycle that any instruction of each engine asks for."""
        peak = [0] * len(ENGINES)
        for e, number in set(zip(self.engine, self.prices.which, strict=True)):
            found = self.prices.costs[number]
            peak[e] = max(peak[e], -(-found.words // found.cycles))
        return peak

    def _fetch(self, block: int, time: int) -> None:
        """Ask for a block of program; past the end there is nothing to ask for."""
        size = self.machine.dispatch.fetch_block_bytes
        left = len(self.program) * WORD_BYTES - block * size
        if left <= 0:
            return
        burst = self.machine.dram.burst_bytes
        service = dram_cycles(-(-min(left, size) // burst) * burst, self.machine)
        self.requested.append(time)
        self.fetched.append(self.server.serve(time, service) + self.machine.dram.latency_cycles)
        self.dram_busy["fetch"] += service

    def _stretch(self, e: int, time: int, length: int, words: int) -> int:
        """Extra cycles because the banks also serve earlier instructions of other engines meanwhile."""
        banks = self.machine.sram.banks
        if -(-words // length) + sum(self.peak) - self.peak[e] <= banks:
            return 0
        demand = words
        for other, runs in enumerate(self.history):
            if other == e:
                continue
            for begin, stop, moved in reversed(runs):
                if stop <= time:
                    break
                if (overlap := min(stop, time + length) - max(begin, time)) > 0:
                    demand += moved * overlap // (stop - begin)
        return max(0, -(-(demand - banks * length) // banks))

    def run(self) -> Timeline:
        machine, costs, which = self.machine, self.prices.costs, self.prices.which
        depth, latency = machine.dispatch.queue_depth, machine.dram.latency_cycles
        per_block = machine.dispatch.fetch_block_bytes // WORD_BYTES
        engines, server, dram_busy = self.engine, self.server, self.dram_busy
        head, start, release, end = self.head, self.start, self.release, self.end
        own_end, why, previous, dispatched, held = (
            self.own_end,
            self.why,
            self.previous,
            self.dispatched,
            self.held,
        )
        idle, busy, history, holder = self.idle, self.busy, self.history, self.holder
        contended = sum(self.peak) > machine.sram.banks
        free, done, last = [0] * 5, [0] * 5, [-1] * 5
        issued: list[list[int]] = [[] for _ in ENGINES]
        signals: list[list[int]] = [[] for _ in range(64)]
        taken = [0] * 64
        clock, hold, hold_until, hold_cause = -1, -1, 0, "dispatch"
        self._fetch(0, 0)
        self._fetch(1, 0)
        for i, inst in enumerate(self.program):
            e = engines[i]
            # Dispatch: one per cycle, when the word is here and its queue has room.
            clock += 1
            if i % per_block == 0 and (ready := self.fetched[i // per_block]) > clock:
                _add(idle[DISPATCH], "fetch", ready - clock)
                clock, hold, hold_until, hold_cause = ready, i, ready, "fetch"
                holder[i] = -1
            queue = issued[e]
            if len(queue) >= depth and start[room := queue[-depth]] > clock:
                cause = "queue:" + ENGINES[e].value
                _add(idle[DISPATCH], cause, start[room] - clock)
                clock = start[room]
                hold, hold_until, hold_cause = i, clock, cause
                holder[i] = room
            if i % per_block == 0 and i:
                self._fetch(i // per_block + 1, clock)
            dispatched[i], held[i] = clock, hold
            if e == DISPATCH:
                head[i] = start[i] = clock
                release[i] = own_end[i] = end[i] = clock + 1
                why[i] = BY_DISPATCH
                continue
            # At the head of the queue once the engine is free.
            time, since = clock + 1, free[e]
            if since >= time:
                time = since
            else:
                why[i] = BY_DISPATCH
                _add(idle[e], hold_cause if hold_until > since else "dispatch", time - since)
            head[i] = time
            for sem in (inst.wait_a, inst.wait_b):
                if sem:
                    sent = signals[sem]
                    if taken[sem] >= len(sent):
                        raise DeadlockError(_deadlock(i, inst, sem))
                    source = sent[taken[sem]]
                    taken[sem] += 1
                    if (at := end[source]) > time:
                        cause = f"semaphore:{sem}:{ENGINES[engines[source]].value}"
                        _add(idle[e], cause, at - time)
                        time, why[i] = at, source
            start[i] = time
            queue.append(i)
            previous[i], last[e] = last[e], i
            if which[i] == 0:
                free[e] = release[i] = own_end[i] = time + 1
                busy[e] += 1
            else:
                length, service, words, _ = costs[which[i]]
                busy[e] += length
                stop = time + length
                if contended and words and (extra := self._stretch(e, time, length, words)):
                    _add(idle[e], "bank", extra)
                    stop += extra
                if service:
                    dram_busy["load" if e == 0 else "store"] += service
                    if (served := server.serve(time, service)) > stop:
                        _add(idle[e], "dram", served - stop)
                        stop = served
                    own_end[i] = stop + latency
                else:
                    own_end[i] = stop
                if contended and words:
                    history[e].append((time, stop, words))
                free[e] = release[i] = stop
            # Completions of one engine keep their order.
            done[e] = end[i] = own_end[i] if own_end[i] > done[e] else done[e]
            if inst.signal_a:
                signals[inst.signal_a].append(i)
            if inst.signal_b:
                signals[inst.signal_b].append(i)
        return self._finish(clock + 1, free, done)

    def _finish(self, dispatch_end: int, free: list[int], done: list[int]) -> Timeline:
        total = max(dispatch_end, *done)
        for e, engine_free in enumerate(free):
            if e != DISPATCH:
                if (tail := done[e] - engine_free) > 0:
                    _add(self.idle[e], "dram_latency", tail)
                _add(self.idle[e], "end", total - max(done[e], engine_free))
        self.busy[DISPATCH] = len(self.program)
        _add(self.idle[DISPATCH], "end", total - dispatch_end)
        critical, overhead = self._critical_path(total, dispatch_end)
        as_array = [np.array(row, dtype=np.int64) for row in (self.head, self.start, self.release, self.end)]
        return Timeline(
            total,
            np.array(self.engine, dtype=np.int64),
            *as_array,
            busy=dict(zip(ENGINES, self.busy, strict=True)),
            idle={engine: dict(sorted(row.items())) for engine, row in zip(ENGINES, self.idle, strict=True)},
            critical=critical,
            overhead=overhead,
            dram_busy=self.dram_busy,
            fetch_bytes=self._fetch_bytes(),
            prices=self.prices,
        )

    def _fetch_bytes(self) -> int:
        burst = self.machine.dram.burst_bytes
        return -(-len(self.program) * WORD_BYTES // burst) * burst

    def _critical_path(self, total: int, dispatch_end: int) -> tuple[Cycles, dict[str, int]]:
        """Walk back from the last completion; every cycle goes to one instruction or overhead."""
        critical, overhead = [0] * len(self.program), {"dispatch": 0, "fetch": 0}
        i, cursor = (len(self.program) - 1, total)
        if dispatch_end < total:
            i = self.end.index(total)
        elif cursor and self.engine[i] != DISPATCH:
            # Dispatch itself ends last, which takes an instruction of no time after it.
            overhead["dispatch"] += 1
            i, cursor = self._before_dispatch(i, cursor - 1, overhead)
        while cursor:
            if cursor > self.own_end[i]:
                i = self.previous[i]
                continue
            critical[i] += cursor - self.start[i]
            cursor = self.start[i]
            if self.why[i] == BY_ENGINE:
                i = self.previous[i]
            elif self.why[i] != BY_DISPATCH:
                i = self.why[i]
            else:
                overhead["dispatch"] += cursor - self.dispatched[i]
                i, cursor = self._before_dispatch(i, self.dispatched[i], overhead)
        return np.array(critical, dtype=np.int64), overhead

    def _before_dispatch(self, i: int, cursor: int, overhead: dict[str, int]) -> tuple[int, int]:
        """From the dispatch of ``i`` back to the start that made room for it, or to time 0."""
        per_block = self.machine.dispatch.fetch_block_bytes // WORD_BYTES
        while cursor:
            if (held := self.held[i]) < 0:
                overhead["dispatch"] += cursor
                return i, 0
            overhead["dispatch"] += cursor - self.dispatched[held]
            cursor = self.dispatched[held]
            if (room := self.holder[held]) >= 0:
                return room, cursor
            block = held // per_block
            overhead["fetch"] += cursor - self.requested[block]
            cursor, i = self.requested[block], (block - 1) * per_block
        return i, 0


def _add(row: dict[str, int], cause: str, amount: int) -> None:
    row[cause] = row.get(cause, 0) + amount


def _deadlock(i: int, inst: Instruction, sem: int) -> str:
    return (
        f"instruction {i} ({inst.mnemonic}) waits for semaphore {sem}, but no earlier instruction signals it; "
        f"signal before the wait in program order"
    )
