"""Pass ``kern-assign-precision``: choose a width for every layer within a budget (kern -> kern, annotated).

On the kernels: ``layer`` names what has a width of its own; ``losses`` is what the result loses at each candidate
width; ``costs`` is [cycles, femtojoules] at each, by the cost model where none are given. The pass adds ``costs`` and
``width``. It changes nothing that is computed: quantizing again by these widths does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

from xdsl.context import Context
from xdsl.dialects.builtin import DenseArrayBase, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Attribute, Operation
from xdsl.passes import ModulePass

from compiler.analysis.assignment import LATENCY, Budget, Choice, Price, Problem, Solution
from compiler.analysis.graph import KernelGraph, build_graph
from compiler.analysis.width_cost import FIXED, Term, readers_of_one, width_terms
from compiler.dialects import kern
from compiler.dialects.attrs import NumberAttr
from compiler.ir.location import where
from compiler.ir.signature import main_function
from isa.errors import AssignmentError
from isa.instructions import Mode
from isa.machine import Machine

LAYER, LOSSES, COSTS, WIDTH, ASSIGNMENT = "layer", "losses", "costs", "width", "assignment"


@dataclass(frozen=True)
class KernAssignPrecisionPass(ModulePass):
    """Within one of ``latency_seconds``, ``energy_joules`` and ``loss`` (then ``minimise`` latency or energy)."""

    name = "kern-assign-precision"

    machine: str = "edge28"
    latency_seconds: int | float | None = None
    energy_joules: int | float | None = None
    loss: int | float | None = None
    minimise: str = LATENCY

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        budget = Budget(self.latency_seconds, self.energy_joules, self.loss, self.minimise)
        assign_precision(op, Machine.load(self.machine), budget)


def assign_precision(module: ModuleOp, machine: Machine, budget: Budget) -> Solution:
    """Annotate every kernel of a layer with its width; returns all widths. Raises AssignmentError."""
    graph = build_graph(module)
    if not any(COSTS in step.op.attributes for step in graph.steps):
        write_costs(module, graph, model_terms(graph, machine))
    found = read_problem(module, graph, machine).solve(budget, machine.clock_hz)
    for step in graph.steps:
        if (layer := layer_of(step.op)) is not None:
            step.op.attributes[WIDTH] = StringAttr(found.widths[layer])
    main_function(module).attributes[ASSIGNMENT] = DictionaryAttr(
        {"loss": NumberAttr(found.loss), **{f: _integer(getattr(found.price, f)) for f in ("cycles", "femtojoules")}}
    )
    return found


def annotate_layers(graph: KernelGraph, layers: Mapping[str, str], losses: Mapping[str, Mapping[str, float]]) -> None:
    """Write what the pass reads: ``layers`` by kernel, ``losses`` by layer and width."""
    for step in graph.steps:
        if (layer := layers.get(step.spec.name)) is not None:
            step.op.attributes[LAYER] = StringAttr(layer)
            step.op.attributes[LOSSES] = DictionaryAttr({w: NumberAttr(x) for w, x in losses[layer].items()})


def model_terms(graph: KernelGraph, machine: Machine) -> tuple[Term, ...]:
    """What the cost model says of all kernels at all widths that their layers may have on ``machine``."""
    layers = layers_of(graph)
    widths = {layer: tuple(losses) for layer, losses in _losses(graph, machine).items()}
    return width_terms(graph, machine, layers, widths)


def write_costs(module: ModuleOp, graph: KernelGraph, terms: Iterable[Term]) -> None:
    """Write ``costs``: what a layer's choice costs in kernels in front of it on its first kernel, and what belongs to
    no kernel on the function."""
    layers, first = layers_of(graph), dict[str, str]()
    for kernel, layer in layers.items():
        first.setdefault(layer, kernel)
    sums: dict[str, dict[str, Price]] = {}
    for term in terms:
        layer, own = term.layer, layers.get(term.kernel) == term.layer
        row = sums.setdefault(term.kernel if own or layer is None else first[layer], {})
        for width, price in term.prices.items():
            row[width] = row.get(width, Price()) + price
    for step in graph.steps:
        step.op.attributes[COSTS] = _prices(sums.get(step.spec.name, {FIXED: Price()}))
    if "" in sums:
        main_function(module).attributes[COSTS] = _prices(sums[""])


def _prices(row: Mapping[str, Price]) -> DictionaryAttr:
    prices: dict[str, Attribute] = {
        width: DenseArrayBase.from_list(i64, [price.cycles, price.femtojoules]) for width, price in row.items()
    }
    return DictionaryAttr(prices)


def layer_of(op: Operation) -> str | None:
    """The layer that a kernel says it belongs to."""
    found = op.attributes.get(LAYER)
    return found.data if isinstance(found, StringAttr) else None


def layers_of(graph: KernelGraph) -> dict[str, str]:
    """Layers by kernel."""
    found = {step.spec.name: layer_of(step.op) for step in graph.steps}
    return {name: layer for name, layer in found.items() if layer is not None}


def read_problem(module: ModuleOp, graph: KernelGraph, machine: Machine) -> Problem:
    """The integer program that the annotations of a module are. Raises AssignmentError for annotations that lack."""
    losses = _losses(graph, machine)
    sums = {layer: dict.fromkeys(row, Price()) for layer, row in losses.items()}
    fixed = _costs(main_function(module)).get(FIXED, Price())
    for step in graph.steps:
        costs, layer = _costs(step.op), layer_of(step.op)
        fixed += costs.get(FIXED, Price())
        if layer is None:
            continue
        if missing := [width for width in losses[layer] if width not in costs]:
            raise AssignmentError(f"{_named(step.op)}: costs lack width {missing[0]!r}, which its losses have")
        for width in losses[layer]:
            sums[layer][width] += costs[width]
    choices = {
        layer: {width: Choice(loss, sums[layer][width]) for width, loss in row.items()} for layer, row in losses.items()
    }
    return Problem(choices, readers_of_one(graph, layers_of(graph)), fixed)


def _losses(graph: KernelGraph, machine: Machine) -> dict[str, dict[str, float]]:
    """Losses by layer and width, of the widths that the machine multiplies in."""
    found: dict[str, dict[str, float]] = {}
    for step in graph.steps:
        if (layer := layer_of(step.op)) is None:
            continue
        row = {width: loss for width, loss in _row(step.op).items() if machine.mmu.has(_mode(step.op, width))}
        if not row:
            built = ", ".join(mode.name.lower() for mode in machine.mmu.modes)
            raise AssignmentError(f"{_named(step.op)}: {machine.name} has none of its widths; it has {built}")
        if found.setdefault(layer, row) != row:
            raise AssignmentError(f"{_named(step.op)}: other losses than another kernel of layer {layer!r} has")
    return found


def _row(op: kern.FusedOp) -> dict[str, float]:
    found = op.attributes.get(LOSSES)
    if not isinstance(found, DictionaryAttr) or not all(isinstance(x, NumberAttr) for x in found.data.values()):
        raise AssignmentError(f"{_named(op)}: needs losses = {{w8a8 = #qnn.number<0.1>, ...}} beside its layer")
    row = {width: loss.data for width, loss in found.data.items() if isinstance(loss, NumberAttr)}
    if wrong := [width for width, loss in row.items() if not isfinite(loss)]:
        raise AssignmentError(f"{_named(op)}: loses {row[wrong[0]]} at {wrong[0]}: must be finite")
    return row


def _mode(op: kern.FusedOp, width: str) -> Mode:
    if width.upper() not in Mode.__members__:
        known = ", ".join(mode.name.lower() for mode in Mode)
        raise AssignmentError(f"{_named(op)}: unknown width {width!r}; known are {known}")
    return Mode[width.upper()]


def _costs(op: Operation) -> dict[str, Price]:
    found, prices = op.attributes.get(COSTS), dict[str, Price]()
    for width, row in found.data.items() if isinstance(found, DictionaryAttr) else ():
        values = row.get_values() if isinstance(row, DenseArrayBase) else ()
        if len(values) != 2:
            raise AssignmentError(f"{_named(op)}: costs of {width!r} must be array<i64: cycles, femtojoules>")
        prices[width] = Price(int(values[0]), int(values[1]))
    return prices


def _named(op: Operation) -> str:
    name, place = f"kernel {op.kernel.data!r}" if isinstance(op, kern.FusedOp) else op.name, where(op)
    return f"{name} ({place})" if place else name


def _integer(value: int) -> IntegerAttr:
    return IntegerAttr(value, i64)
