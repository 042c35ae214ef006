"""A channel is a ring of SRAM (or accumulator) slots that remembers what each slot holds.

Loading what a slot still holds costs nothing, so double-buffering, weights that stay, and inputs
that stay are all one mechanism: the number of slots.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class Ring:
    """Which key each of ``slots`` slots holds; slots are replaced in turn."""

    slots: int
    _held: dict[Hashable, int] = field(default_factory=dict[Hashable, int])
    _keys: dict[int, Hashable] = field(default_factory=dict[int, Hashable])
    _next: int = 0

    def find(self, key: Hashable) -> int | None:
        """The slot that holds ``key``, or None."""
        return self._held.get(key)

    def push(self, key: Hashable) -> int:
        """Take the next slot for ``key`` and forget what it held."""
        slot = self._next
        self._next = (slot + 1) % self.slots
        if slot in self._keys:
            self._held.pop(self._keys[slot], None)
        if key in self._held:
            self._keys.pop(self._held[key], None)
        self._held[key] = slot
        self._keys[slot] = key
        return slot
