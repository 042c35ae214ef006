"""Program order: the queues of all engines merged by when their instructions will start.

Dispatch hands instructions out in program order and stops where a queue is full. A load behind the many instructions
of a vector program that itself waits for a product is then late, though its engine has nothing to do. So the order in
which kernels were emitted only says what depends on what; here the start of every instruction is estimated as if
queues were endless, and instructions go into the program in that order. Those of one engine keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.backend.dependences import NUMBER, Dependences
from isa.dram import Server
from isa.encoding import Engine, Instruction
from isa.machine import Machine
from isa.pricing import price
from isa.state import SETTERS


def interleave(instructions: Sequence[Instruction], waits: Dependences, machine: Machine) -> list[int]:
    """Indices of ``instructions``, which wait for each other as ``waits`` says, in program order."""
    starts = start_cycles(instructions, waits, machine)
    before: dict[Engine, int] = {}
    for index, instruction in enumerate(instructions):
        # The setup of a run stays together, as it is read: it takes a cycle a word.
        last = before.get(instruction.engine, index)
        if type(instruction) in SETTERS and type(instructions[last]) in SETTERS:
            starts[index] = starts[last]
        before[instruction.engine] = index
    return sorted(range(len(instructions)), key=starts.__getitem__)


def start_cycles(instructions: Sequence[Instruction], waits: Dependences, machine: Machine) -> list[int]:
    """When each instruction starts where queues have room for all, and SRAM banks and dispatch take no time."""
    prices, server = price(instructions, machine), Server()
    costs, latency = [(cost.cycles, cost.dram) for cost in prices.costs], machine.dram.latency_cycles
    free = [0] * len(NUMBER)
    starts: list[int] = []
    ends: list[int] = []
    kinds: list[int] = prices.which.tolist()
    for index, (instruction, which) in enumerate(zip(instructions, kinds, strict=True)):
        engine, (cycles, service) = NUMBER[instruction.engine], costs[which]
        start = max([free[engine], *(ends[source] for source in waits.get(index, ()))])
        stop = max(start + cycles, server.serve(start, service))
        starts.append(start)
        ends.append(stop + latency * bool(service))
        free[engine] = stop
    return starts
