"""Who follows and who waits for whom in a program, which no time changes: array operations on its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.encoding import INSTRUCTIONS, OPCODE_BITS, Engine, Instruction
from isa.errors import DeadlockError
from isa.instructions import Halt
from isa.machine import Machine
from isa.program import Words, column, opcodes

ENGINES = (Engine.LOAD, Engine.STORE, Engine.MMU, Engine.VCU, Engine.DISPATCH)
DISPATCH = ENGINES.index(Engine.DISPATCH)
ENGINE_INDEX: dict[type[Instruction], int] = {kind: ENGINES.index(kind.engine) for kind in INSTRUCTIONS.values()}
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Index arrays of n instructions; the index n stands for nobody, whose times are 0.

    ``previous``: the instruction before it in its engine's queue. ``room``: the one whose start makes room for it
    there. ``sources`` [n, 2]: who sends the signals that it waits for; ``waits`` and ``signals`` [n, 2]: semaphores.
    """

    engine: Ints
    previous: Ints
    room: Ints
    waits: Ints
    signals: Ints
    sources: Ints

    def __len__(self) -> int:
        return len(self.engine)


class _Wait(NamedTuple):
    """One operand of ``waits``, by its place in program order."""

    place: int
    semaphore: int


def make_plan(words: Words, machine: Machine) -> Plan:
    """The plan of a program. Raises DeadlockError for a wait that no earlier instruction signals."""
    n, depth = len(words), machine.dispatch.queue_depth
    engine = _engine_of_opcode()[opcodes(words)]
    previous, room = np.full(n, n, dtype=np.int64), np.full(n, n, dtype=np.int64)
    for e in range(DISPATCH):
        queue = np.flatnonzero(engine == e)
        previous[queue[1:]] = queue[:-1]
        room[queue[depth:]] = queue[:-depth]
    waits, signals = (_semaphores(words, engine, field) for field in ("wait", "signal"))
    return Plan(engine, previous, room, waits, signals, _sources(words, waits, signals))


def _engine_of_opcode() -> Ints:
    table = np.full(1 << OPCODE_BITS, DISPATCH, dtype=np.int64)
    for opcode, kind in INSTRUCTIONS.items():
        table[opcode] = ENGINE_INDEX[kind]
    return table


def _semaphores(words: Words, engine: Ints, field: str) -> Ints:
    """Both semaphores of every instruction; the dispatcher itself neither waits nor signals."""
    # Every class has these fields, at the same place.
    found = np.stack([column(words, Halt, f"{field}_{which}") for which in "ab"], axis=1)
    found[engine == DISPATCH] = 0
    return found


def _sources(words: Words, waits: Ints, signals: Ints) -> Ints:
    """The k-th wait for a semaphore takes its k-th signal, both in program order."""
    n = len(waits)
    flat_waits, flat_signals = waits.ravel(), signals.ravel()
    sources = np.full(2 * n, n, dtype=np.int64)
    unsent: list[_Wait] = []
    for sem in sorted(set(flat_waits.tolist()) - {0}):
        places = np.flatnonzero(flat_waits == sem)
        sent = np.flatnonzero(flat_signals == sem)[: len(places)] // 2
        early = sent < places[: len(sent)] // 2
        served = len(sent) if early.all() else int(np.argmin(early))
        if served < len(places):
            unsent.append(_Wait(int(places[served]), sem))
        sources[places[: len(sent)]] = sent
    if unsent:
        raise DeadlockError(_deadlock(words, min(unsent)))
    return sources.reshape(n, 2)


def _deadlock(words: Words, wait: _Wait) -> str:
    i = wait.place // 2
    mnemonic = INSTRUCTIONS[int(opcodes(words[i : i + 1])[0])].mnemonic
    return (
        f"instruction {i} ({mnemonic}) waits for semaphore {wait.semaphore}, but no earlier instruction signals it; "
        f"signal before the wait in program order"
    )
