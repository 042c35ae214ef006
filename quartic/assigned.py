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
    energy_joules: float


@dataclass(frozen=True)
class Round:
    """One choice of widths: what was predicted of it before it was compiled, and what the simulator said."""

    widths: Mapping[str, str]
    predicted: Cost
    predicted_loss: float
    simulated: Cost

    @property
    def error(self) -> Cost:
        """Predicted over simulated, less 1."""
        p, s = self.predicted, self.simulated
        return Cost(p.latency_seconds / s.latency_seconds - 1, p.energy_joules / s.energy_joules - 1)


@dataclass(frozen=True, eq=False)
class Assignment:
    """A width for every layer, as a recipe, with the graph that it gives and the binary that was simulated.

    ``sqnr_db`` is that of the outputs in device numerics, over the samples of the sensitivity.
    """

    machine: str
    widths: Mapping[str, str]
    recipe: Recipe
    rounds: tuple[Round, ...]
    sqnr_db: float
    graph: GraphModule
    executable: Executable

    @property
    def predicted(self) -> Cost:
        """Before the last compilation."""
        return self.rounds[-1].predicted

    @property
    def simulated(self) -> Cost:
        """Of the binary."""
        return self.rounds[-1].simulated

    def to_json(self) -> dict[str, Any]:
        """Plain values; units are in the names."""
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
    predicted: Cost
    predicted_loss: float
    simulated: Cost | None = None
    sqnr_db: float | None = None
