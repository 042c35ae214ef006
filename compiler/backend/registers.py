"""Registers of a vector program: which steps it needs, and where each step's result lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.ir.kernel import VectorOp
from isa.access import BINARY_FUNCS
from isa.errors import UnsupportedError
from isa.instructions import Func, Operand

REGISTERS = 16
"""Of one program; ``vcu.op`` encodes their number."""


class ProgramError(UnsupportedError):
    """A chain that one vector program cannot hold; fusion stops before it."""


@dataclass(frozen=True)
class Step:
    """One operation on virtual registers: ``b`` is a register, immediate or parameter number by ``kind``."""

    func: Func
    a: int
    kind: Operand = Operand.REGISTER
    b: int = 0
    immediate: float = 0.0
    kept: int | None = None
    """What SELECT leaves where ``a`` is 0: it must be in the register that the step writes."""


def live(steps: Sequence[Step], last: int) -> list[tuple[int, Step]]:
    """The steps on which step ``last`` depends, itself included, each with its number."""
    needed = {last}
    for i in range(len(steps) - 1, -1, -1):
        if i in needed:
            needed.update(_sources(steps[i]))
    return [(i, step) for i, step in enumerate(steps) if i in needed and i <= last]


def _sources(step: Step) -> Iterable[int]:
    yield step.a
    if step.kind is Operand.REGISTER and step.func in BINARY_FUNCS:
        yield step.b
    if step.kept is not None:
        yield step.kept


def allocate(steps: Sequence[tuple[int, Step]], streams: int) -> tuple[VectorOp, ...]:
    """Registers by linear scan; a result takes the register of an operand that ends there, ``a`` first."""
    last_use = {source: at for at, (_, step) in enumerate(steps) for source in _sources(step)}
    where = {-1 - i: i for i in range(streams)}
    free = set(range(streams, REGISTERS)) | {where[v] for v in where if v not in last_use}
    ops: list[VectorOp] = []
    for at, (name, step) in enumerate(steps):
        a = where[step.a]
        b = where[step.b] if step.kind is Operand.REGISTER and step.func in BINARY_FUNCS else step.b
        ended = [where[s] for s in dict.fromkeys(_sources(step)) if last_use[s] == at]
        free |= set(ended)
        if not free:
            raise ProgramError(f"a vector program has {REGISTERS} registers, this chain needs more")
        dst = where[step.kept] if step.kept is not None else ended[0] if ended else min(free)
        free.discard(dst)
        where[name] = dst
        ops.append(VectorOp(step.func, dst, a, step.kind, b, step.immediate))
    return tuple(ops)
