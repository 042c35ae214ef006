"""How far a long step has come, for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Said after each part of a step; its text is one line."""

    step: str
    """What goes on: "observing channels", "trying codes", "calibrating", "taking gradients", "reconstructing"."""
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


class Meter:
    """The parts of a step, counted from now on for ``watch``; without a ``count`` there is nothing to say."""

    def __init__(self, step: str, count: int | None, watch: Watch | None) -> None:
        self.step, self.count, self.watch = step, count, watch
        self.index, self.start = 0, time.monotonic()

    def done(self, part: str) -> None:
        """One more part is done."""
        self.index += 1
        if self.watch is not None and self.count is not None:
            self.watch(Progress(self.step, part, self.index, self.count, time.monotonic() - self.start))
