"""Order engines by semaphores that carry the dependences of instructions (decision 0001).

Queues are in order, so the waits between two engines are monotone and one counting semaphore per ordered pair carries
them. A count has a limit, so that waits may have to be for later instructions than those that they need.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.backend.dependences import COUNT, ENGINES, NUMBER, Clocks, Dependences
from isa.encoding import Engine, Instruction
from isa.errors import UnsupportedError
from isa.instructions import LoadSync, MmuSync, StoreSync, VcuSync
from isa.machine import Machine

SYNCS: dict[Engine, type[Instruction]] = {
    Engine.LOAD: LoadSync,
    Engine.STORE: StoreSync,
    Engine.MMU: MmuSync,
    Engine.VCU: VcuSync,
}
SEMAPHORES = COUNT * (COUNT - 1)


@dataclass(frozen=True)
class Synchronized:
    """``instructions`` with their semaphores; ``origin[i]`` is the index in the input that entry i serves."""

    instructions: list[Instruction]
    origin: list[int]


def semaphore(signaller: Engine, waiter: Engine) -> int:
    """The semaphore of an ordered pair of engines, 1 .. 12."""
    a, b = NUMBER[signaller], NUMBER[waiter]
    return 1 + a * (COUNT - 1) + b - (b > a)


def synchronize(
    instructions: Sequence[Instruction], order: Sequence[int], waits: Dependences, machine: Machine
) -> Synchronized:
    """``instructions`` in ``order``, with semaphores by which every timing gives program order's result.

    ``instructions`` hold no semaphores, ``waits`` are theirs, and ``order`` has every index, after those it waits for.
    Raises UnsupportedError if the machine has fewer than 12 semaphores.
    """
    if machine.sync.semaphores < SEMAPHORES:
        raise UnsupportedError(
            f"machine {machine.name}: sync.semaphores = {machine.sync.semaphores}: must be at least {SEMAPHORES}, "
            "one per ordered pair of engines"
        )
    place = {index: at for at, index in enumerate(order)}
    plan = _Plan(machine.sync.semaphore_max)
    for at, index in enumerate(order):
        if index in waits:
            sources = [(NUMBER[instructions[source].engine], place[source]) for source in waits[index]]
            plan.visit(at, NUMBER[instructions[index].engine], sources)
    return _insert(instructions, order, plan.edges())


class _Plan:
    """Waits found so far, of instructions by their places in the program."""

    def __init__(self, semaphore_max: int) -> None:
        # A signaller may be ahead of its waiter in program order by at most ``ahead`` signals, and by
        # ``unproven`` more that the waiter has consumed without the signaller knowing.
        self.ahead = max(1, semaphore_max // 2)
        self.unproven = semaphore_max - self.ahead
        self.clocks = Clocks()
        self.history: list[list[int]] = [[] for _ in ENGINES]
        self.signals: list[list[list[int]]] = [[[] for _ in ENGINES] for _ in ENGINES]
        self.waits: list[list[list[int]]] = [[[] for _ in ENGINES] for _ in ENGINES]

    def visit(self, at: int, engine: int, sources: Iterable[tuple[int, int]]) -> None:
        """The instruction at ``at`` waits for ``sources``, each an engine and a place in the program."""
        for other, need in sorted(sources, key=lambda source: source[1], reverse=True):
            self._require(at, engine, other, need)
        self._throttle(at, engine)
        self.clocks.visited(at, engine)
        self.history[engine].append(at)

    def _require(self, at: int, engine: int, other: int, need: int) -> None:
        """Make the instruction at ``at`` on ``engine`` wait for ``need`` on ``other``, unless that is known already."""
        if need <= self.clocks.now[engine][other]:
            return
        signals, waits = self.signals[other][engine], self.waits[other][engine]
        if len(waits) - bisect_right(waits, need) >= self.ahead:
            # Program order alone would overflow: the last wait takes the signaller's latest instead.
            history = self.history[other]
            signals[-1] = latest = history[bisect_left(history, waits[-1]) - 1]
            self.clocks.learn(engine, latest)
            if need <= latest:
                return
        signals.append(need)
        waits.append(at)
        self.clocks.learn(engine, need)

    def _throttle(self, at: int, engine: int) -> None:
        """Keep counts below the machine's limit: do not run ahead of waits that are not known to be done."""
        for other, waits in enumerate(self.waits[engine]):
            if len(waits) > self.unproven and waits[-1 - self.unproven] > self.clocks.now[engine][other]:
                self._require(at, engine, other, waits[-1])

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
    instructions: Sequence[Instruction],
    order: Sequence[int],
    edges: tuple[dict[int, list[int]], dict[int, list[int]]],
) -> Synchronized:
    """Put semaphores into their instructions; what does not fit goes to sync instructions beside them."""
    waits, signals = edges
    out: list[Instruction] = []
    origin: list[int] = []
    for at, index in enumerate(order):
        instruction, wait, signal = instructions[index], waits.get(at), signals.get(at)
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
