"""How far a long step has come, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Said after each part of a step; its text is one line."""

    step: str
    """What goes on, as "reconstructing"."""
    part: str
    """Name of the part that is done."""
    index: int
    """Its number, from 1."""
    count: int
    """How many parts there are."""
    seconds: float
    """Since the first part began."""

    @property
    def eta(self) -> float:
        """Seconds to go, if the parts to come take as long as those that are done."""
        return self.seconds / self.index * (self.count - self.index)

    def __str__(self) -> str:
        return f"{self.step} {self.part}, {self.index} of {self.count}, {self.eta:.0f} s to go"


Watch = Callable[[Progress], None]
"""What is told of progress. What it raises ends the step."""
