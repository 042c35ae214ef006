"""Which width every layer takes: an integer program over losses and costs, solved exactly (HiGHS through scipy).

One binary variable per layer and width; a layer takes one width, layers that read one tensor agree on the width of
their activations, and what the widths cost stays within the budget while their losses, taken as additive, are least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from isa.errors import AssignmentError
from isa.instructions import Mode

LATENCY, ENERGY = "latency", "energy"
FEMTO = 1e-15
SCALE = 1e6
"""What the largest loss counts: HiGHS stops 1e-6 short of the optimum, so losses are exact to 1e-12 of it."""
TIE = 1e-4
"""What the whole cost counts beside that: of two assignments that lose the same, the cheaper one."""
ROW = 1e3
"""What the budget counts: constraints hold to 1e-6 in absolute numbers."""
Row = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """Cycles and femtojoules; of a difference either may be negative."""

    cycles: int = 0
    femtojoules: int = 0

    def __add__(self, other: Price) -> Price:
        return Price(self.cycles + other.cycles, self.femtojoules + other.femtojoules)

    def __sub__(self, other: Price) -> Price:
        return Price(self.cycles - other.cycles, self.femtojoules - other.femtojoules)

    def __bool__(self) -> bool:
        return bool(self.cycles or self.femtojoules)


@dataclass(frozen=True)
class Choice:
    """A width of a layer: what the result loses by it, and what the layer's kernels take."""

    loss: float
    price: Price


@dataclass(frozen=True)
class Budget:
    """One of: seconds, joules, or a loss, with what is to be least within it ("latency" or "energy")."""

    latency_seconds: float | None = None
    energy_joules: float | None = None
    loss: float | None = None
    minimise: str = LATENCY

    def __post_init__(self) -> None:
        names = ("latency_seconds", "energy_joules", "loss")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            raise AssignmentError(f"{len(given)} budgets: give one of {', '.join(names[:-1])} and {names[-1]}")
        ((name, value),) = given.items()
        if name != "loss" and not 0 < value < float("inf"):
            raise AssignmentError(f"{name} = {value!r}: must be positive and finite")
        if self.minimise not in (LATENCY, ENERGY):
            raise AssignmentError(f"minimise = {self.minimise!r}: must be {LATENCY!r} or {ENERGY!r}")

    @property
    def unit(self) -> str:
        """What counts as cost: "latency" or "energy"."""
        if self.loss is not None:
            return self.minimise
        return LATENCY if self.latency_seconds is not None else ENERGY

    def limit(self, clock_hz: int) -> float:
        """The budget of latency or energy in cycles or femtojoules."""
        seconds, joules = self.latency_seconds, self.energy_joules
        return seconds * clock_hz if seconds is not None else (joules or 0.0) / FEMTO


@dataclass(frozen=True)
class Solution:
    """A width for every layer, the sum of the losses, and the price of the whole program."""

    widths: Mapping[str, str]
    loss: float
    price: Price


@dataclass(frozen=True, eq=False)
class Problem:
    """``layers``: choices by width; ``ties``: pairs of layers that read one tensor; ``fixed``: what the rest takes."""

    layers: Mapping[str, Mapping[str, Choice]]
    ties: frozenset[tuple[str, str]] = frozenset()
    fixed: Price = Price()

    def solution(self, widths: Mapping[str, str]) -> Solution:
        """Loss and price of an assignment."""
        chosen = [self.layers[layer][width] for layer, width in widths.items()]
        price = sum((choice.price for choice in chosen), self.fixed)
        return Solution(dict(widths), sum(choice.loss for choice in chosen), price)

    def solve(self, budget: Budget, clock_hz: int) -> Solution:
        """The assignment with the least loss within the budget, or the cheapest one within a bound on the loss.

        Raises AssignmentError where none is within the budget, and says what the cheapest takes.
        """
        if not self.layers:
            raise AssignmentError("no layers: no kernel has candidate widths")
        cost = self._costs(budget.unit)
        rest = self.fixed.cycles if budget.unit == LATENCY else self.fixed.femtojoules
        cheap = cost / max(float(np.abs(cost).sum()), 1.0)
        if budget.loss is None:
            limit = budget.limit(clock_hz) - rest
            found = self._least(self._scaled_losses + TIE * cheap, cost, limit)
        else:
            found = self._least(SCALE * cheap + TIE * self._scaled_losses / SCALE, self._losses, budget.loss)
        if found is None:
            raise AssignmentError(self._refusal(budget, clock_hz))
        return found

    def cheapest(self, unit: str) -> Solution:
        """The assignment that takes the least latency or energy, whatever it loses."""
        cost = self._costs(unit)
        return self._unbounded(SCALE * cost / max(float(np.abs(cost).sum()), 1.0))

    def most_exact(self) -> Solution:
        """The assignment that loses least, whatever it takes."""
        return self._unbounded(self._scaled_losses)

    def _unbounded(self, objective: Row) -> Solution:
        found = self._least(objective, None, 0.0)
        if found is None:
            pairs = ", ".join(f"{a!r} and {b!r}" for a, b in sorted(self.ties))
            raise AssignmentError(f"layers that read one tensor have no width of activations in common: {pairs}")
        return found

    def _refusal(self, budget: Budget, clock_hz: int) -> str:
        if budget.loss is not None:
            least = self.most_exact().loss
            return f"no assignment loses {budget.loss:.4g} or less: the most exact one loses {least:.4g}"
        best = self.cheapest(budget.unit)
        if budget.unit == LATENCY:
            asked, found, name = f"{budget.latency_seconds:.4g} s", f"{best.price.cycles / clock_hz:.4g} s", "fastest"
        else:
            asked, found = f"{budget.energy_joules:.4g} J", f"{best.price.femtojoules * FEMTO:.4g} J"
            name = "thriftiest"
        return (
            f"no assignment of widths takes {asked} or less: the {name} takes {found} and loses {best.loss:.4g}; "
            "raise the budget"
        )

    @cached_property
    def _keys(self) -> list[tuple[str, str]]:
        return [(layer, width) for layer, choices in self.layers.items() for width in choices]

    @cached_property
    def _losses(self) -> Row:
        return np.array([self.layers[layer][width].loss for layer, width in self._keys], np.float64)

    @cached_property
    def _scaled_losses(self) -> Row:
        return self._losses * (SCALE / max(float(np.abs(self._losses).max()), 1e-300))

    def _costs(self, unit: str) -> Row:
        prices = [self.layers[layer][width].price for layer, width in self._keys]
        return np.array([p.cycles if unit == LATENCY else p.femtojoules for p in prices], np.float64)

    def _least(self, objective: Row, weights: Row | None, limit: float) -> Solution | None:
        """The assignment with the least objective whose weights sum to ``limit`` at most; None if there is none."""
        if weights is not None and not np.isfinite(limit):
            weights = None
        rows = [*self._one_each(), *self._agreements()]
        constraints: list[Any] = [LinearConstraint(row, low, low) for row, low in rows]  # type: ignore[no-untyped-call]
        if weights is not None:
            scale = ROW / max(abs(limit), float(np.abs(weights).max()), 1e-300)
            constraints.append(LinearConstraint(weights * scale, -np.inf, limit * scale))
        count = len(self._keys)
        found = cast(
            Any,
            milp(objective, integrality=np.ones(count), bounds=(0, 1), constraints=constraints, options=EXACT),
        )
        if found.x is None:
            return None
        widths = {layer: width for (layer, width), taken in zip(self._keys, found.x, strict=True) if taken > 0.5}
        return self.solution(widths)

    def _one_each(self) -> list[tuple[Row, float]]:
        index = {layer: i for i, layer in enumerate(self.layers)}
        rows = np.zeros((len(index), len(self._keys)))
        for column, (layer, _) in enumerate(self._keys):
            rows[index[layer], column] = 1
        return [(row, 1.0) for row in rows]

    def _agreements(self) -> list[tuple[Row, float]]:
        """For each pair and width of activations: as many choices of it on the one side as on the other."""
        rows: list[tuple[Row, float]] = []
        for left, right in sorted(self.ties):
            for activation in sorted({activation_of(w) for side in (left, right) for w in self.layers[side]}):
                row = np.zeros(len(self._keys))
                for column, (layer, width) in enumerate(self._keys):
                    if activation_of(width) == activation:
                        row[column] += (layer == left) - (layer == right)
                rows.append((row, 0.0))
        return rows


EXACT = {"mip_rel_gap": 0.0}


def activation_of(width: str) -> int:
    """The storage type of activations at a width such as "w4a8"."""
    return int(Mode[width.upper()].activation)
