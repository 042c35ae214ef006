"""What every kernel takes at every width that its layer may have, by the compiler's cost model.

A width changes a kernel in two ways: products in another mode over weights of another size, and activations of
another size, which the kernels in front must store so. Both are terms of the layer's choice; all else is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.ir import SSAValue

from compiler.analysis.assignment import Price
from compiler.analysis.cost import Residency
from compiler.analysis.graph import KernelGraph, Step
from compiler.analysis.kernel_energy import kernel_femtojoules
from compiler.analysis.memory import in_sram, residency
from compiler.analysis.residency import choose
from compiler.analysis.tile_search import choose_schedule
from compiler.dialects import kern
from compiler.ir.kernel import CopyAnchor, KernelSpec, MatrixAnchor, Stream, VectorProgram
from compiler.ir.tiling import Tiling
from isa.energy import EnergyModel
from isa.instructions import DType, Mode
from isa.machine import Machine

CODES = (DType.I4, DType.I8, DType.I16)
FIXED = "any"
"""The width of what no layer decides."""


@dataclass(frozen=True)
class Term:
    """What of a kernel depends on one layer, or on none: its price by the layer's width. "" is the root's layer."""

    kernel: str
    layer: str | None
    prices: Mapping[str, Price]

    def at(self, widths: Mapping[str, str]) -> Price:
        """The price under an assignment of widths to layers."""
        return self.prices[FIXED if self.layer is None else widths[self.layer]]


def width_terms(
    graph: KernelGraph, machine: Machine, layers: Mapping[str, str], widths: Mapping[str, Sequence[str]]
) -> tuple[Term, ...]:
    """Terms of all kernels. ``layers``: the layer of every kernel that has one; ``widths``: each layer's candidates.

    Raises ScheduleError where a kernel does not fit the machine.
    """
    return tuple(_Model(graph, machine, layers, widths).terms())


@dataclass(eq=False)
class _Model:
    graph: KernelGraph
    machine: Machine
    layers: Mapping[str, str]
    widths: Mapping[str, Sequence[str]]
    seen: dict[tuple[str, DType], Price] = field(default_factory=dict[tuple[str, DType], Price])

    def __post_init__(self) -> None:
        schedule = choose(self.graph, self.machine)
        self.held = in_sram(self.graph, schedule)
        self.energy = EnergyModel.of(self.machine)
        self.pairs = readers_of_one(self.graph, self.layers)
        self.step_of: dict[SSAValue, Step] = {step.op.output: step for step in self.graph.steps}

    def terms(self) -> Iterator[Term]:
        """A kernel's own term, then those of its producers that the same choice decides."""
        stored: set[str] = set()
        for step in self.graph.steps:
            name, layer = step.spec.name, self.layers.get(step.spec.name)
            if layer is None:
                yield Term(name, None, {FIXED: self.price(step, step.spec)})
                continue
            modes = {width: Mode[width.upper()] for width in self.widths[layer]}
            yield Term(name, layer, {w: self.price(step, multiplied(step.spec, mode)) for w, mode in modes.items()})
            for maker in self.makers(step):
                if maker.spec.name not in stored:  # a tensor is stored once for all that read it
                    stored.add(maker.spec.name)
                    prices = {w: self.stored(maker, mode.activation, layer) for w, mode in modes.items()}
                    yield Term(maker.spec.name, layer, prices)

    def makers(self, step: Step) -> Iterator[Step]:
        """The kernels that store what the products of ``step`` read, moves with what they move."""
        anchors = [a for a in (step.spec.anchor, step.spec.pool) if isinstance(a, MatrixAnchor)]
        operands = [a.act for a in anchors[:1]] + [a.weight for a in anchors if a.dynamic_weight]
        pending = [step.values[i] for i in operands]
        while pending:
            value = pending.pop()
            if value is None:
                continue
            maker = self.step_of.get(value)
            if maker is None:
                owner = value.owner
                pending += list(owner.inputs) if isinstance(owner, kern.ViewOp | kern.ConcatOp) else []
                continue
            if maker.spec.stored.output in CODES:
                yield maker
            if _moves(maker.spec):
                pending += list(maker.values)

    def stored(self, maker: Step, dtype: DType, layer: str) -> Price:
        """What it costs more that ``maker`` stores ``dtype`` for ``layer``; what others read too is stored twice."""
        base = maker.spec.stored.output
        if dtype is base or not self.shared(maker, layer):
            return self.storing(maker, dtype) - self.storing(maker, base)
        again = VectorProgram((Stream(0, base, 0, 1.0),), (), dtype)
        spec = KernelSpec(maker.spec.name, (maker.spec.output,), (base,), maker.spec.output, None, again)
        return self.price(maker, spec, residency(self.graph, maker, self.held).output)

    def shared(self, maker: Step, layer: str) -> bool:
        """Whether anything but ``layer``, and what reads the same tensor by itself, reads what ``maker`` stores."""
        same = {layer, *(other for pair in self.pairs if layer in pair for other in pair)}
        return any(self.layers.get(op.kernel.data) not in same for op in self.readers(maker.op.output))

    def readers(self, value: SSAValue) -> Iterator[kern.FusedOp]:
        """The kernels that compute with a value, behind views, joins and moves."""
        for use in value.uses:
            op = use.operation
            if isinstance(op, kern.FusedOp) and not _moves(self.step_of[op.output].spec):
                yield op
            elif isinstance(op, kern.FusedOp | kern.ViewOp | kern.ConcatOp):
                yield from self.readers(op.output)

    def storing(self, step: Step, dtype: DType) -> Price:
        """The price of ``step`` when it stores codes of this type instead of its own."""
        key = (step.spec.name, dtype)
        if key not in self.seen:
            self.seen[key] = self.price(step, stored_as(step.spec, dtype))
        return self.seen[key]

    def price(self, step: Step, spec: KernelSpec, copied: bool | None = None) -> Price:
        """Of the cheapest schedule, with what the neighbours keep in SRAM; of a copy of its result if that is."""
        stays = residency(self.graph, step, self.held) if copied is None else Residency((copied,), copied)
        nowhere = Residency((False,) * len(spec.operands), False)
        if (spec.dtypes, spec.stored.output) != (step.spec.dtypes, step.spec.stored.output):
            stays = replace(stays, gaps=())  # they are bytes of the types that the graph has
        for kept in (stays, nowhere):
            found = choose_schedule(spec, step.nodes, kept, self.machine, self.machine.sram.bytes)
            if found is not None:
                schedule, cost = found
                energy = kernel_femtojoules(Tiling(spec, schedule), cost, self.machine, self.energy)
                return Price(cost.cycles, energy)
        return Price(HUGE, HUGE)


HIDDEN = 0.1
"""Of the ratio of all kernels: one with less takes its time beside others."""
HUGE = 1 << 48
"""Cycles and femtojoules of a kernel that fits the machine in no tiling: beyond every budget."""


def multiplied(spec: KernelSpec, mode: Mode) -> KernelSpec:
    """A kernel with its matrix products in ``mode``, and its operands stored for it."""
    dtypes = list(spec.dtypes)
    changed = [
        None if not isinstance(anchor, MatrixAnchor) else _multiplied(anchor, mode, dtypes)
        for anchor in (spec.anchor, spec.pool)
    ]
    spec = replace(spec, anchor=changed[0] or spec.anchor, pool=changed[1] or spec.pool, dtypes=tuple(dtypes))
    if spec.product is not None:
        # The first product's result enters the second as its activations.
        return replace(spec, program=_storing(spec.program, mode.activation))
    return spec


def _multiplied(anchor: MatrixAnchor, mode: Mode, dtypes: list[DType]) -> MatrixAnchor:
    if anchor.act >= 0:
        dtypes[anchor.act] = mode.activation
    dtypes[anchor.weight] = mode.activation if anchor.dynamic_weight else mode.weight
    return replace(anchor, mode=mode, codebook=())


def stored_as(spec: KernelSpec, dtype: DType) -> KernelSpec:
    """A kernel whose result is codes of ``dtype``; one that moves codes reads them so."""
    if _moves(spec):
        spec = replace(spec, dtypes=tuple(dtype if d in CODES else d for d in spec.dtypes))
    if spec.pool_program is not None:
        return replace(spec, pool_program=_storing(spec.pool_program, dtype))
    return replace(spec, program=_storing(spec.program, dtype))


def _storing(program: VectorProgram, dtype: DType) -> VectorProgram:
    return replace(program, output=dtype, thresholds=())


def _moves(spec: KernelSpec) -> bool:
    return spec.movement is not None or isinstance(spec.anchor, CopyAnchor)


def readers_of_one(graph: KernelGraph, layers: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Pairs of layers whose products read one tensor: it is stored once, so their activations are equally wide."""
    first: dict[SSAValue, str] = {}
    pairs: set[tuple[str, str]] = set()
    for step in graph.steps:
        layer, anchor = layers.get(step.spec.name), step.spec.anchor
        if layer is None or not isinstance(anchor, MatrixAnchor):
            continue
        value = step.values[anchor.act]
        while value is not None and isinstance(value.owner, kern.ViewOp):
            value = value.owner.inputs[0]
        if value is not None and (other := first.setdefault(value, layer)) != layer:
            pairs.add((other, layer))
    return frozenset(pairs)


Ratio = tuple[float, float]
"""Simulated over estimated cycles, and femtojoules."""


@dataclass(eq=False)
class Corrections:
    """How far the model was from the profiles of graphs that were compiled, kernel by kernel and width by width."""

    overhead: Price = field(default_factory=Price)
    """What belongs to no kernel of the model."""
    ratios: dict[str, dict[str, Ratio]] = field(default_factory=dict[str, dict[str, Ratio]])
    last: dict[str, Ratio] = field(default_factory=dict[str, Ratio])
    overall: Ratio = (1.0, 1.0)
    """Of all kernels of the last graph together."""
    totals: list[tuple[dict[str, str], Price]] = field(default_factory=list[tuple[dict[str, str], Price]])
    """Widths of the graphs that were compiled, and what they took."""

    def learn(self, terms: Sequence[Term], widths: Mapping[str, str], profile: Mapping[str, Price]) -> None:
        """Take in the ``profile``, by kernel, of the graph whose layers have these ``widths``."""
        estimates: dict[str, Price] = {}
        own: dict[str, str | None] = {}
        for term in terms:
            own.setdefault(term.kernel, term.layer)
            estimates[term.kernel] = estimates.get(term.kernel, Price()) + term.at(widths)
        real = sum((profile.get(kernel, Price()) for kernel in estimates), Price())
        self.overall = _ratio(real, sum(estimates.values(), Price()))
        for kernel, estimate in estimates.items():
            self.last[kernel] = _ratio(profile.get(kernel, Price()), estimate)
            layer = own[kernel]
            width = FIXED if layer is None else widths[layer]
            self.ratios.setdefault(kernel, {})[width] = self.last[kernel]
        rest = (price for kernel, price in profile.items() if kernel not in estimates)
        self.overhead = sum(rest, Price())
        self.totals.append((dict(widths), sum(profile.values(), Price())))

    def of(self, term: Term) -> Term:
        """The term as the profiles let expect it: by the ratio at the same width, or else the last that was seen.

        A kernel that hid behind others at one width need not hide at another: its ratio is then that of all kernels.
        """
        seen, last = self.ratios.get(term.kernel, {}), self.last.get(term.kernel, (1.0, 1.0))
        other = self.overall if last[0] < HIDDEN * self.overall[0] else last
        return Term(term.kernel, term.layer, {w: _scaled(p, seen.get(w, other)) for w, p in term.prices.items()})

    def apply(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """All terms, and the overhead as one that no layer decides; every graph that was compiled takes what it took.

        What no layer decides hides behind slow layers and shows behind fast ones, and only the last graph's is known
        here: the difference goes to the widths that no later graph had.
        """
        found = [*map(self.of, terms), Term("", None, {FIXED: self.overhead})]
        later: set[tuple[str, str]] = set()
        for widths, total in reversed(self.totals):
            own = {i: t.layer for i, t in enumerate(found) if t.layer and (t.layer, widths[t.layer]) not in later}
            missing = total - sum((term.at(widths) for term in found), Price())
            known = sum((found[i].at(widths) for i in own), Price())
            for i, layer in own.items():
                price = found[i].at(widths)
                more = _scaled(missing, _ratio(price, known))
                found[i] = Term(found[i].kernel, layer, {**found[i].prices, widths[layer]: price + more})
            later.update(widths.items())
        return tuple(found)


def _ratio(real: Price, guess: Price) -> Ratio:
    cycles = real.cycles / guess.cycles if guess.cycles > 0 else 0.0
    return cycles, real.femtojoules / guess.femtojoules if guess.femtojoules > 0 else 0.0


def _scaled(price: Price, ratio: Ratio) -> Price:
    return Price(round(price.cycles * ratio[0]), round(price.femtojoules * ratio[1]))
