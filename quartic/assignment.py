"""Widths per layer within a budget of simulated time or energy: sensitivity, the pass, and the simulator in turn.

The cost model predicts, the graph with the chosen widths is compiled and simulated, what the profile says of each
kernel corrects the model, and the choice is made again, until prediction and simulation agree within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from math import inf, log10
from pathlib import Path
from typing import TYPE_CHECKING

from isa.errors import AssignmentError
from isa.machine import Machine
from quartic.assigned import Assignment, Cost, Point, Round

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from compiler.analysis.assignment import Budget, Price, Problem, Solution
    from compiler.analysis.width_cost import Corrections, Term
    from quantizer.recipe import Recipe
    from quantizer.sensitivity import Sensitivity
    from quartic.executable import Executable

MARGINS = (0.0, 0.0, 0.005, 0.01, 0.02, 0.04, 0.08)
"""What is asked for less than the budget, by round: what was learnt from the first is enough for the second, but costs
do not quite add up where tensors just fit the SRAM or just do not."""
TOLERANCE = 0.05
"""A prediction that is farther than this from the simulation needs a further round."""
FJ = 1e-15
UNITS = ("seconds", "joules", "decibels")
LOUDEST = 300
"""Decibels: beyond what binary32 can tell apart."""
Progress = Callable[[str], object]
"""Told what is going on."""


@dataclass(eq=False)
class Assigner:
    """One model on one machine: quantized, measured and lowered to kernels once, for any number of budgets."""

    model: nn.Module
    example_inputs: tuple[torch.Tensor, ...]
    batches: Sequence[tuple[torch.Tensor, ...]]
    machine: Machine
    recipe: Recipe
    sensitivity: Sensitivity
    samples: int = 8
    progress: Progress = print
    terms: tuple[Term, ...] = field(init=False)
    corrections: Corrections = field(init=False)

    def __post_init__(self) -> None:
        from compiler.analysis.graph import build_graph
        from compiler.analysis.layers import kernel_layers, kernel_widths, unknown_products
        from compiler.analysis.width_cost import Corrections
        from compiler.frontend.export import import_graph
        from compiler.passes.kern_assign_precision import annotate_layers, model_terms
        from compiler.pipeline import Options, form_kernels
        from quantizer import capture

        self.progress(f"compiling at {self.recipe.title}")
        self.captured = capture(self.model, self.example_inputs)
        start, executable = self._compiled(self.recipe)
        self.module = import_graph(start)
        form_kernels(self.module, self.machine, Options())
        self.kernels = build_graph(self.module)
        of_node = {node: layer.module for layer in self.sensitivity.layers for node in layer.nodes}
        layers, self.same = kernel_layers(self.kernels, of_node)
        if not layers:
            raise AssignmentError("no layers: no kernel of the model multiplies what the sensitivity measured")
        if lacking := unknown_products(self.kernels, of_node):
            raise AssignmentError(
                f"the sensitivity lacks {lacking[0]}, which the model multiplies at: it is of another model, or not "
                "whole; measure it again"
            )
        annotate_layers(self.kernels, layers, self._losses())
        self.terms = model_terms(self.kernels, self.machine)
        self.corrections = Corrections()
        self.start = kernel_widths(self.kernels, layers)
        self._check_start()
        self._learn(self.start, executable)

    def _losses(self) -> dict[str, dict[str, float]]:
        """Losses by layer and width; layers that share a kernel count as one. A gain is none: it is noise."""
        found: dict[str, dict[str, float]] = {}
        for layer in self.sensitivity.layers:
            row = {width: max(loss, 0.0) for width, loss in layer.losses.items()}
            first = self.same.get(layer.module, layer.module)
            known = found.get(first)
            found[first] = row if known is None else {w: known[w] + row[w] for w in known if w in row}
        return found

    def _check_start(self) -> None:
        """The start is what corrects the model first."""
        losses = self._losses()
        if lacking := [layer for layer, width in self.start.items() if width not in losses[layer]]:
            raise AssignmentError(
                f"layer {lacking[0]!r} is {self.start[lacking[0]]} in recipe {self.recipe.title}, where the assignment "
                f"starts, and the sensitivity has {', '.join(losses[lacking[0]])}: measure that width too, or start at "
                "another recipe"
            )

    def problem(self) -> Problem:
        """The integer program, with what is known of the costs so far."""
        from compiler.passes.kern_assign_precision import read_problem

        return read_problem(self.module, self.kernels, self.machine)

    def recipe_of(self, widths: Mapping[str, str]) -> Recipe:
        """The start recipe with an override for every layer whose width it does not give."""
        from quantizer.recipe import Change, Override

        every = {**widths, **{other: widths[first] for other, first in self.same.items() if first in widths}}
        weighted = {layer.module for layer in self.sensitivity.layers if layer.weights}
        given = f"w{self.recipe.weight.bits}a{self.recipe.activation.bits}"
        overrides: list[Override] = []
        for module in sorted(every, key=lambda path: (bool(path), path.count("."), path)):
            weight, activation = (Change(bits=int(bits)) for bits in every[module][1:].split("a"))
            around = any(f"{module}.".startswith(f"{o.modules}.") or o.modules == "*" for o in overrides)
            if every[module] != given or around or self.recipe.overrides:
                overrides.append(
                    Override(module or "*", weight=weight if module in weighted else None, activation=activation)
                )
        made = self.recipe.with_overrides(*overrides)
        products = [layer.module for layer in self.sensitivity.layers if layer.product]
        if not any(every.get(module, given).endswith("a4") for module in products):
            made = replace(made, log2=None)  # which no 4-bit probabilities are left for
        return replace(made, name="assigned", description=f"widths assigned for {self.machine.name}")

    def assign(self, budget: Budget, sqnr_db: float | None = None) -> Assignment:
        """Widths within a ``compiler.analysis.assignment.Budget``, and an output's SQNR where one is given.

        Raises AssignmentError where no assignment is within them, by prediction or after the last round.
        """
        from compiler.passes.kern_assign_precision import assign_precision

        if sqnr_db is not None and self.sensitivity.by != "sqnr":
            raise AssignmentError(f"a bound on the SQNR needs a sensitivity by 'sqnr', not by {self.sensitivity.by!r}")
        rounds, asked, found = list[Round](), budget, inf
        for number, margin in enumerate(MARGINS, 1):
            asked = asked if budget.loss is not None else _less(budget, margin)
            try:
                solution = assign_precision(self.module, self.machine, asked)
            except AssignmentError:
                solution = assign_precision(self.module, self.machine, budget)
            self.progress(f"round {number}: compiling and simulating")
            recipe = self.recipe_of(solution.widths)
            graph, executable = self._compiled(recipe)
            rounds.append(Round(solution.widths, self._cost(solution), solution.loss, _simulated(executable)))
            found = self.sqnr_db(graph)
            over = _over(rounds[-1], budget, found, sqnr_db)
            if over <= 1 and abs(_of(rounds[-1].error, budget.unit)) <= TOLERANCE:
                return Assignment(self.machine.name, solution.widths, recipe, tuple(rounds), found, graph, executable)
            self._learn(solution.widths, executable)
            if asked.loss is not None:  # losses add up where errors are independent: ask for as much less as is over
                asked = replace(asked, loss=asked.loss / max(over, 1.0))
        raise AssignmentError(
            f"after {len(rounds)} rounds the simulated cost is {_told(rounds[-1].simulated)} and the output's SQNR "
            f"{found:.1f} dB, not within the budget or not within {TOLERANCE:.0%} of the predicted "
            f"{_told(rounds[-1].predicted)}: raise the budget"
        )

    def front(
        self, points: int = 12, simulate: int = 4, by: str = "latency", executor: Executor | None = None
    ) -> tuple[Point, ...]:
        """Assignments with the least loss at ``points`` budgets from the cheapest to the most exact, evenly spaced by
        ratio; ``simulate`` of them are compiled and simulated, by ``executor`` where there is one.

        The model is corrected at both ends first, so that what is predicted lies between two profiles. The executor
        of a ``dask.distributed`` client (``get_executor()``) does, and a ``ProcessPoolExecutor``: the model is pickled.
        """
        from compiler.analysis.assignment import Budget

        problem = self.problem()
        for end in (problem.most_exact(), problem.cheapest(by)):
            self._learn(end.widths, self._compiled(self.recipe_of(end.widths))[1])
        problem = self.problem()
        low, high = (self._cost(s) for s in (problem.cheapest(by), problem.most_exact()))
        ends = [_of(low, by), _of(high, by)]
        key = "latency_seconds" if by == "latency" else "energy_joules"
        steps = [(i / max(points - 1, 1)) for i in range(points)]
        budgets = [Budget(**{key: ends[0] * (ends[1] / ends[0]) ** step * (1 + 1e-9)}) for step in steps]
        solved = [problem.solve(budget, self.machine.clock_hz) for budget in budgets]
        unique = list({tuple(s.widths.items()): s for s in solved}.values())
        chosen = _spread(len(unique), simulate)
        self.progress(f"simulating {len(chosen)} of {len(unique)} assignments")
        wanted = [unique[i].widths for i in chosen]
        measured = dict(zip(chosen, (map if executor is None else executor.map)(self.simulated, wanted), strict=True))
        return tuple(
            Point(s.widths, self._cost(s), s.loss, *measured.get(i, (None, None))) for i, s in enumerate(unique)
        )

    def simulated(self, widths: Mapping[str, str]) -> tuple[Cost, float]:
        """What a graph of these widths takes on the simulator, and its SQNR in decibels."""
        graph, executable = self._compiled(self.recipe_of(widths))
        return _simulated(executable), self.sqnr_db(graph)

    def sqnr_db(self, graph: GraphModule) -> float:
        """Signal over noise of the outputs in device numerics, over the first samples."""
        import torch

        from quantizer.probe import first_pieces, noise
        from quartic.api import reference

        device = reference(graph)
        pieces = first_pieces(self.batches, None, self.example_inputs, self.samples)
        with torch.no_grad():
            mean = sum(noise(self.captured(*inputs), device(*inputs)) for inputs, _ in pieces) / len(pieces)
        return -10 * log10(mean) if mean else inf

    def _compiled(self, recipe: Recipe) -> tuple[GraphModule, Executable]:
        from quartic.api import compile, quantize

        graph = quantize(self.captured, self.example_inputs, self.batches, recipe=recipe)
        return graph, compile(graph, self.machine)

    def _cost(self, solution: Solution) -> Cost:
        return Cost(solution.price.cycles / self.machine.clock_hz, solution.price.femtojoules * FJ)

    def _learn(self, widths: Mapping[str, str], executable: Executable) -> None:
        from compiler.passes.kern_assign_precision import write_costs

        self.corrections.learn(self.terms, widths, profile_prices(executable))
        write_costs(self.module, self.kernels, self.corrections.apply(self.terms))


def profile_prices(executable: Executable) -> dict[str, Price]:
    """Cycles and femtojoules by kernel and overhead; what every cycle costs belongs to whoever takes the cycle."""
    from compiler.analysis.assignment import Price
    from isa.energy import EnergyModel
    from quartic.api import timing

    machine = executable.binary.machine
    idle = EnergyModel.of(machine).cycle
    each = sum(band.nominal for band in idle.values())
    static = {f"overhead:{component.value}" for component in idle}
    rows = timing(executable).profile.rows("kernel")
    return {
        row.name: Price(row.cycles, sum(row.energy_fj.values()) + each * row.cycles)
        for row in rows
        if row.name not in static
    }


def _simulated(executable: Executable) -> Cost:
    from quartic.api import timing

    run = timing(executable)
    return Cost(run.seconds, run.joules)


def _of(cost: Cost, unit: str) -> float:
    return cost.latency_seconds if unit == "latency" else cost.energy_joules


def _over(made: Round, budget: Budget, found_db: float, sqnr_db: float | None) -> float:
    """Simulated over allowed: latency, energy, or noise where a signal to noise is asked for."""
    if budget.latency_seconds is not None:
        return made.simulated.latency_seconds / budget.latency_seconds
    if budget.energy_joules is not None:
        return made.simulated.energy_joules / budget.energy_joules
    return 0.0 if sqnr_db is None else 10 ** ((sqnr_db - found_db) / 10)


def _less(budget: Budget, margin: float) -> Budget:
    """A budget of latency or energy, smaller by a margin."""
    if budget.latency_seconds is not None:
        return replace(budget, latency_seconds=budget.latency_seconds * (1 - margin))
    return replace(budget, energy_joules=(budget.energy_joules or 0.0) * (1 - margin))


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` places among ``count``, evenly spaced, both ends with them."""
    if wanted <= 0:
        return []
    if wanted == 1:
        return [count - 1]
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def _told(cost: Cost) -> str:
    return f"{cost.latency_seconds * 1e3:.4g} ms and {cost.energy_joules * 1e3:.4g} mJ"


def budget_of(
    latency_seconds: float | None, energy_joules: float | None, sqnr_db: float | None, minimise: str = "latency"
) -> Budget:
    """A budget, of which noise over signal is the loss. Raises AssignmentError unless exactly one is given."""
    from compiler.analysis.assignment import Budget

    given = {"latency": latency_seconds, "energy": energy_joules, "SQNR": sqnr_db}
    for (name, value), unit in zip(given.items(), UNITS, strict=True):
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise AssignmentError(f"{name} = {value!r}: must be a number of {unit}")
    if sum(value is not None for value in given.values()) != 1:
        said = " and ".join(name for name, value in given.items() if value is not None) or "none"
        raise AssignmentError(f"one budget must be given, a latency, an energy or an SQNR; here is {said}")
    if sqnr_db is not None and not abs(sqnr_db) <= LOUDEST:
        raise AssignmentError(f"an SQNR of {sqnr_db} dB: must be in -{LOUDEST} .. {LOUDEST}")
    if sqnr_db is None and minimise == "energy":
        raise AssignmentError("minimise = 'energy' is of an SQNR, at which it is least; within a budget the loss is")
    return Budget(latency_seconds, energy_joules, None if sqnr_db is None else 10 ** (-sqnr_db / 10), minimise)


def assign(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    machine: str | Path | Machine = "edge28",
    recipe: str | Path | Recipe = "w8a8",
    *,
    latency_seconds: float | None = None,
    energy_joules: float | None = None,
    sqnr_db: float | None = None,
    minimise: str = "latency",
    sensitivity: Sensitivity | None = None,
    samples: int = 8,
    progress: Progress | None = None,
) -> Assignment:
    """Widths per layer that lose least within ``latency_seconds`` or ``energy_joules`` on the simulated machine, or
    that take the least latency or energy (``minimise``) at an output of ``sqnr_db`` or more; give one of the three.

    ``recipe`` is where everything but the widths comes from. ``sensitivity`` is measured by SQNR unless it is given;
    ``sqnr_db`` needs one by SQNR. Raises AssignmentError for a budget out of reach, QuantizationError for what cannot
    be quantized, DescriptionError for an unknown machine or a recipe that breaks the schema.
    """
    budget = budget_of(latency_seconds, energy_joules, sqnr_db, minimise)
    found = assigner(
        model, example_inputs, calibration_batches, machine, recipe, sensitivity=sensitivity, samples=samples,
        progress=progress,
    )
    return found.assign(budget, sqnr_db)


def assigner(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    calibration_batches: Iterable[tuple[torch.Tensor, ...]],
    machine: str | Path | Machine = "edge28",
    recipe: str | Path | Recipe = "w8a8",
    *,
    sensitivity: Sensitivity | None = None,
    samples: int = 8,
    progress: Progress | None = None,
) -> Assigner:
    """What :func:`assign` works with, for several budgets of one model, or for its front."""
    from quantizer.batches import as_tuple, checked
    from quantizer.flow import capture
    from quantizer.recipe import Recipe
    from quantizer.sensitivity import Sensitivity, check_samples
    from quantizer.sensitivity import sensitivity as measure

    check_samples(samples)
    if sensitivity is not None and not isinstance(sensitivity, Sensitivity):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AssignmentError(
            f"the sensitivity is a {type(sensitivity).__name__}: give what quartic.sensitivity gave, or "
            "Sensitivity.from_json(text) of quantizer.sensitivity"
        )
    target = machine if isinstance(machine, Machine) else Machine.load(machine)
    start = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    batches = [as_tuple(batch) for batch in checked(calibration_batches)]
    tell: Progress = progress or (lambda _what: None)
    graph = capture(model, example_inputs)
    if sensitivity is None:
        built = [mode.name.lower() for mode in target.mmu.modes if mode.name != "F32"]

        def count(done: int, total: int) -> None:
            tell(f"sensitivity: {done} of {total} trials")

        sensitivity = measure(graph, example_inputs, batches, start, widths=built, samples=samples, progress=count)
    return Assigner(graph, as_tuple(example_inputs), batches, target, start, sensitivity, samples, tell)
