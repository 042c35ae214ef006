"""What an assignment of widths is: predicted and simulated costs, rounds, points of a front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from quantizer.recipe import Recipe
    from quartic.executable import Executable


@dataclass(frozen=True)
class Cost:
    """What one run of the whole model takes."""

    latency_seconds: float
    """Cycles at the machine's clock."""
    energy_joules: float
    """Nominal energy."""


@dataclass(frozen=True)
class Round:
    """One choice of widths: what was predicted of it before it was compiled, and what the simulator said."""

    widths: Mapping[str, str]
    """By layer, as ``w4a8``."""
    predicted: Cost
    """By the cost model, before it was compiled."""
    predicted_loss: float
    """Sum of the layers' losses, in the sensitivity's measure."""
    simulated: Cost
    """Of the binary."""

    @property
    def error(self) -> Cost:
        """Predicted over simulated, less 1: shares, in place of seconds and joules."""
        p, s = self.predicted, self.simulated
        return Cost(p.latency_seconds / s.latency_seconds - 1, p.energy_joules / s.energy_joules - 1)


@dataclass(frozen=True, eq=False)
class Assignment:
    """A width for every layer, as a recipe, with the graph that it gives and the binary that was simulated."""

    machine: str
    """Name of the machine."""
    widths: Mapping[str, str]
    """By layer, as ``w4a8``; layers that one kernel computes count as the first of them."""
    recipe: Recipe
    """The start recipe with an override for every layer whose width it does not give."""
    rounds: tuple[Round, ...]
    """All choices that were compiled, the last one being this."""
    sqnr_db: float
    """Of the outputs in device numerics against the float model, in decibels, over the samples of the sensitivity."""
    graph: GraphModule
    """The quantized graph."""
    executable: Executable
    """The binary that was simulated."""

    @property
    def predicted(self) -> Cost:
        """What the cost model said before the last compilation."""
        return self.rounds[-1].predicted

    @property
    def simulated(self) -> Cost:
        """What the simulator says of the binary."""
        return self.rounds[-1].simulated

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; units are in the names."""
        return {
            "machine": self.machine,
            "predicted": asdict(self.predicted),
            "simulated": asdict(self.simulated),
            "predicted loss": self.rounds[-1].predicted_loss,
            "sqnr_db": self.sqnr_db,
            "rounds": [asdict(each) for each in self.rounds],
            "widths": dict(self.widths),
        }


@dataclass(frozen=True)
class Point:
    """A point of the front: what is predicted of the assignment with the least loss at this cost, and, where it was
    simulated, what that gave."""

    widths: Mapping[str, str]
    """By layer, as ``w4a8``."""
    predicted: Cost
    """By the cost model."""
    predicted_loss: float
    """Sum of the layers' losses, in the sensitivity's measure."""
    simulated: Cost | None = None
    """Of the binary, where it was simulated."""
    sqnr_db: float | None = None
    """Of the outputs in device numerics, in decibels, where it was simulated."""
