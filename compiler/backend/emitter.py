"""A stream of instructions that never says the same setup twice."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import copysign

from isa.encoding import Instruction
from isa.instructions import MmuTable, VcuConvert, VcuOp, VcuResize, VcuStream, VcuThreshold

BANKED = frozenset({MmuTable, VcuConvert, VcuOp, VcuResize, VcuStream, VcuThreshold})


@dataclass
class Emitter:
    """Collects instructions and the location index of each; elides setup that would change nothing."""

    instructions: list[Instruction] = field(default_factory=list[Instruction])
    locations: list[int] = field(default_factory=list[int])
    location: int = 0
    _setup: dict[Hashable, tuple[float, ...]] = field(default_factory=dict[Hashable, tuple[float, ...]])

    def run(self, instruction: Instruction) -> None:
        """Append an instruction that does work."""
        self.instructions.append(instruction)
        self.locations.append(self.location)

    def setup(self, kind: type[Instruction], *values: float) -> None:
        """Append a setup instruction with field ``values`` in table order, unless the engine already holds them."""
        # Banks of registers: their first field is the index.
        banked = kind in BANKED
        key = (kind, values[0]) if banked else kind
        known = self._setup.get(key)
        # The last field may be an immediate, and 0.0 == -0.0.
        if known is not None and known == values and copysign(1.0, known[-1]) == copysign(1.0, values[-1]):
            return
        self._setup[key] = values
        self.run(kind(0, 0, 0, 0, *values))
