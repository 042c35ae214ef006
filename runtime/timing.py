"""Time: when every instruction of a program runs, without ever touching data.

Engines take their queues in order. An instruction is dispatched (one per cycle, in program order), reaches the
head of its queue, waits for its semaphores, runs for its closed-form cost and signals. Because program order is
a legal schedule, everything that an instruction waits for stands before it: one walk in program order is exact,
with no event queue. Shared resources (the DRAM server, the SRAM banks) give priority to the earlier instruction
of the program, whenever it asks; DRAM service is preemptible, burst by burst.

Only what depends on earlier times is walked: who waits for whom (:mod:`runtime.plan`) and what every cycle was
spent on (:mod:`runtime.causes`) are array operations before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from isa.cycles import dram_cycles
from isa.dram import Server
from isa.encoding import WORD_BYTES, Engine
from isa.machine import Machine
from isa.pricing import Prices, price
from isa.program import Program, as_words
from runtime.causes import FETCH, Holds, Walked, critical_path, idle, waits
from runtime.plan import DISPATCH, ENGINE_INDEX, ENGINES, Plan, make_plan

__all__ = ["DISPATCH", "ENGINES", "ENGINE_INDEX", "Timeline", "simulate_time"]

Cycles = NDArray[np.int64]
PLAIN = -1
"""Kind of an instruction of one cycle that neither waits nor signals."""


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


def simulate_time(program: Program, machine: Machine, prices: Prices | None = None) -> Timeline:
    """Times of ``program`` on ``machine``; fastest from its bytes.

    Raises DeadlockError when an instruction waits for a signal that no earlier instruction sends.
    """
    words = as_words(program)
    plan = make_plan(words, machine)
    prices = price(program, machine) if prices is None else prices
    cycles, service = (np.array(row, dtype=np.int64)[prices.which] for row in list(zip(*prices.costs, strict=True))[:2])
    walk = _Walk(plan, machine, prices)
    walked = walk.run(service > 0)
    spent, why = waits(plan, walked)
    critical, overhead = critical_path(plan, walked, why, walk.per_block)
    load, busy = plan.engine == 0, [int(cycles[plan.engine == e].sum()) for e in range(DISPATCH)]
    burst = machine.dram.burst_bytes
    return Timeline(
        walked.total,
        plan.engine,
        walked.head,
        walked.start,
        walked.release,
        walked.end,
        busy=dict(zip(ENGINES, (*busy, len(plan)), strict=True)),
        idle=dict(zip(ENGINES, idle(plan, walked, spent), strict=True)),
        critical=critical,
        overhead=overhead,
        dram_busy={"load": int(service[load].sum()), "store": int(service[~load].sum()), "fetch": walk.fetch_service},
        fetch_bytes=-(-len(plan) * WORD_BYTES // burst) * burst,
        prices=prices,
    )


class _Walk:
    def __init__(self, plan: Plan, machine: Machine, prices: Prices) -> None:
        self.plan, self.machine = plan, machine
        self.per_block = machine.dispatch.fetch_block_bytes // WORD_BYTES
        self.server = Server()
        self.fetch_service = 0
        self.requested: list[int] = []
        self.fetched: list[int] = []
        self.history: list[list[tuple[int, int, int]]] = [[] for _ in ENGINES]
        """Per engine: start, stop and SRAM words of what ran so far."""
        self.bank, self.dram = [0] * len(ENGINES), [0] * len(ENGINES)
        self.kinds, self.contended = self._kinds(prices)
        signalling = (plan.waits | plan.signals).any(axis=1)
        kind = plan.engine * len(prices.costs) + prices.which
        self.kind = np.where((prices.which == 0) & ~signalling, PLAIN, kind)

    def _kinds(self, prices: Prices) -> tuple[list[tuple[int, int, int, bool]], bool]:
        """Cycles, DRAM service, SRAM words and whether it is heavy, by engine and cost; can banks ever be short?

        Where nothing heavy runs, the words per cycle of all engines together fit the banks.
        """
        rates = np.array([-(-cost.words // cost.cycles) for cost in prices.costs], dtype=np.int64)
        peaks = np.zeros(len(ENGINES), dtype=np.int64)
        np.maximum.at(peaks, self.plan.engine, rates[prices.which])
        spare = self.machine.sram.banks - int(peaks.sum())
        widest = int(peaks.argmax())
        light = peaks.copy()
        light[widest] += min(0, spare)
        if light[widest] < 0:
            light[:] = -1
        table = [
            (cost.cycles, cost.dram, cost.words, rate > most)
            for most in light.tolist()
            for cost, rate in zip(prices.costs, rates.tolist(), strict=True)
        ]
        return table, spare < 0

    def _fetch(self, block: int, time: int) -> None:
        """Ask for a block of program; past the end there is nothing to ask for."""
        size = self.machine.dispatch.fetch_block_bytes
        left = len(self.plan) * WORD_BYTES - block * size
        if left <= 0:
            return
        burst = self.machine.dram.burst_bytes
        service = dram_cycles(-(-min(left, size) // burst) * burst, self.machine)
        self.requested.append(time)
        self.fetched.append(self.server.serve(time, service) + self.machine.dram.latency_cycles)
        self.fetch_service += service

    def _stretch(self, e: int, time: int, length: int, words: int) -> int:
        """Extra cycles because the banks also serve earlier instructions of other engines meanwhile."""
        banks = self.machine.sram.banks
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

    def _rows(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Index, engine, room, kind and both sources of every instruction."""
        plan = self.plan
        columns = plan.engine, plan.room, self.kind, plan.sources[:, 0], plan.sources[:, 1]
        return zip(range(len(plan)), *(column.tolist() for column in columns), strict=True)

    def run(self, is_dma: NDArray[np.bool_]) -> Walked:
        """Times of all instructions; the loop keeps only what later instructions need."""
        plan, kinds, contended = self.plan, self.kinds, self.contended
        n, latency, serve = len(plan), self.machine.dram.latency_cycles, self.server.serve
        bank, dram, history = self.bank, self.dram, self.history
        # The last entry is that of nobody.
        start, end = [0] * (n + 1), [0] * (n + 1)
        free, done = [0] * len(ENGINES), [0] * len(ENGINES)
        held: list[int] = []
        until: list[int] = []
        fetches: list[int] = []
        """Which of the holds waited for words, not for room."""
        stops: list[int] = []
        clock, heavy_until = -1, 0
        rooms: list[int] = plan.room.tolist()
        rows = self._rows()
        self._fetch(0, 0)
        self._fetch(1, 0)
        for block, first in enumerate(range(0, n, self.per_block)):
            # The block's first instruction waits for the words and for room, and with it the next block's request.
            if (ready := self.fetched[block]) > clock + 1:
                fetches.append(len(held))
                held.append(first)
                until.append(ready)
                clock = ready - 1
            if block:
                self._fetch(block + 1, max(clock + 1, start[rooms[first]]))
            for i, e, room, kind, source_a, source_b in islice(rows, self.per_block):
                # Dispatch: one per cycle, when its queue has room.
                clock += 1
                if (at := start[room]) > clock:
                    held.append(i)
                    until.append(at)
                    clock = at
                # At the head of the queue once the engine is free.
                if (time := free[e]) <= clock:
                    time = clock + 1
                if kind == PLAIN:
                    start[i] = time
                    free[e] = time + 1
                    continue
                if (at := end[source_a]) > time:
                    time = at
                if (at := end[source_b]) > time:
                    time = at
                start[i] = time
                length, service, words, heavy = kinds[kind]
                stop = time + length
                crowded = contended and words and (heavy or time < heavy_until)
                if crowded and (extra := self._stretch(e, time, length, words)):
                    bank[e] += extra
                    stop += extra
                if service:
                    if (served := serve(time, service)) > stop:
                        dram[e] += served - stop
                        stop = served
                    done[e] = end[i] = stop + latency
                else:
                    # Completions of one engine keep their order.
                    end[i] = at if (at := done[e]) > stop else stop
                if contended and words:
                    history[e].append((time, stop, words))
                    if heavy and stop > heavy_until:
                        heavy_until = stop
                free[e] = stop
                stops.append(stop)
        return self._walked(start[:n], stops, self._holds(held, until, fetches), clock + 1, is_dma)

    def _holds(self, held: list[int], until: list[int], fetches: list[int]) -> Holds:
        """The holds of dispatch, which otherwise takes one instruction per cycle."""
        instruction, ended = np.array(held, dtype=np.int64), np.array(until, dtype=np.int64)
        # Without this hold: as many cycles after the previous one ended as instructions.
        expected = np.append(0, ended)[:-1] + np.diff(instruction, prepend=0)
        cause = FETCH + 1 + self.plan.engine[instruction]
        cause[fetches] = FETCH
        return Holds(instruction, ended, ended - expected, cause, self.plan.room[instruction])

    def _walked(
        self, starts: list[int], stops: list[int], holds: Holds, dispatch_end: int, is_dma: NDArray[np.bool_]
    ) -> Walked:
        """The times that follow from those that the loop kept."""
        plan = self.plan
        index = np.arange(len(plan))
        held = np.searchsorted(holds.instruction, index, side="right")
        dispatched = np.append(0, holds.until)[held] + index - np.append(0, holds.instruction)[held]
        halts = plan.engine == DISPATCH
        start = np.where(halts, dispatched, np.array(starts, dtype=np.int64))
        release = start + 1
        release[self.kind != PLAIN] = stops
        head = np.where(halts, dispatched, np.maximum(dispatched + 1, np.append(release, 0)[plan.previous]))
        own_end = release + is_dma * self.machine.dram.latency_cycles
        end = own_end.copy()
        for e in range(DISPATCH):
            mine = plan.engine == e
            end[mine] = np.maximum.accumulate(own_end[mine])
        total = max(dispatch_end, int(end.max(initial=0)))
        times = (head, start, release, own_end, end, dispatched, held - 1)
        return Walked(*times, holds, self.requested, self.bank, self.dram, dispatch_end, total)
