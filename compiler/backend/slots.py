"""Rings and views as the emitter sees them: addresses on chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from compiler.ir.channel import Ring
from compiler.ir.kernel import Shape4
from compiler.ir.tiling import Box


class View(NamedTuple):
    """Bytes on chip: where a box starts and its byte strides over (n, h, w, c)."""

    address: int
    strides: Shape4

    def steps(self, box: Box) -> Shape4:
        """Strides for what steps through a box of it; between rows 0 where it has one: how far no other is may be
        more than an instruction can say."""
        n, h, w, c = self.strides
        return n, h if box.h.size > 1 else 0, w, c


@dataclass
class Slots:
    """A ring at an address: which box or block each slot holds."""

    address: int
    slot_bytes: int
    ring: Ring

    def find(self, key: object) -> int | None:
        """Address of the slot that holds ``key``."""
        slot = self.ring.find(key)
        return None if slot is None else self.address + slot * self.slot_bytes

    def push(self, key: object) -> int:
        """Address of the next slot, now holding ``key``."""
        return self.address + self.ring.push(key) * self.slot_bytes
