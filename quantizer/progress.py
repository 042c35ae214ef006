"""How far a long step has come, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Said after each part of a step: the part's name, its number from 1, how many there are, seconds so far."""

    step: str
    part: str
    index: int
    count: int
    seconds: float

    @property
    def eta(self) -> float:
        """Seconds to go, if the parts to come take as long as those that are done."""
        return self.seconds / self.index * (self.count - self.index)

    def __str__(self) -> str:
        return f"{self.step} {self.part}, {self.index} of {self.count}, {self.eta:.0f} s to go"


Watch = Callable[[Progress], None]
"""What is told of progress. What it raises ends the step."""
