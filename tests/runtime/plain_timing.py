"""The time model in its plainest form, one instruction after the other: what the fast walk must equal."""

from isa.cost import cost
from isa.cycles import dram_cycles
from isa.dram import Server
from isa.encoding import WORD_BYTES, Engine, Instruction
from isa.machine import Machine
from isa.state import State


def plain_times(program: list[Instruction], machine: Machine) -> list[tuple[int, int]]:
    """Start and completion of every instruction of a program without deadlock."""
    size, banks, latency = machine.dispatch.fetch_block_bytes, machine.sram.banks, machine.dram.latency_cycles
    state, server, clock = State(), Server(), -1
    found: list[tuple[int, int]] = []
    queues: dict[Engine, list[tuple[int, int, int]]] = {engine: [] for engine in Engine}
    free, done = dict.fromkeys(Engine, 0), dict.fromkeys(Engine, 0)
    signals: dict[int, list[int]] = {}
    fetched: list[int] = []

    def fetch(block: int, time: int) -> None:
        if (left := len(program) * WORD_BYTES - block * size) > 0:
            burst = machine.dram.burst_bytes
            service = dram_cycles(-(-min(left, size) // burst) * burst, machine)
            fetched.append(server.serve(time, service) + latency)

    fetch(0, 0)
    fetch(1, 0)
    for i, inst in enumerate(program):
        engine, price = inst.engine, cost(inst, state, machine)
        state.apply(inst)
        block, place = divmod(i * WORD_BYTES, size)
        queue = queues[engine]
        clock = max(clock + 1, fetched[block])
        if len(queue) >= machine.dispatch.queue_depth:
            clock = max(clock, queue[-machine.dispatch.queue_depth][0])
        if place == 0 and block:
            fetch(block + 1, clock)
        if engine is Engine.DISPATCH:
            found.append((clock, clock + 1))
            continue
        start = max(clock + 1, free[engine])
        for sem in (inst.wait_a, inst.wait_b):
            if sem:
                start = max(start, signals[sem].pop(0))
        demand = price.words
        for other, runs in queues.items():
            for begin, stop, words in runs if other is not engine and price.words else ():
                overlap = min(stop, start + price.cycles) - max(begin, start)
                demand += words * max(0, overlap) // (stop - begin)
        stop = start + price.cycles + max(0, -((banks * price.cycles - demand) // banks))
        stop = max(stop, server.serve(start, price.dram))
        free[engine] = stop
        done[engine] = max(done[engine], stop + (latency if price.dram else 0))
        queue.append((start, stop, price.words))
        for sem in (inst.signal_a, inst.signal_b):
            if sem:
                signals.setdefault(sem, []).append(done[engine])
        found.append((start, done[engine]))
    return found
