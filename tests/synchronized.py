"""Programs of tests with the semaphores that they need."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.backend.dependences import dependences
from compiler.backend.synchronize import Synchronized, synchronize
from isa.encoding import Instruction
from isa.machine import Machine


def synchronized(program: Sequence[Instruction], machine: Machine) -> Synchronized:
    """``program``, in the order in which it stands."""
    return synchronize(program, range(len(program)), dependences(program), machine)
