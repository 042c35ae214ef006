"""Weights of a prepared and calibrated graph chosen unit by unit, each for what its quantized predecessors hand it.

Two walks go side by side over all images, one of the float model and one of the quantized one, in which everything in
front of the unit is as it will run. They stop in front of a unit; its weights are compensated and rounded; they go on
behind it. Nothing else is run twice, and held are the values at the border (``quantizer.reconstruct.walk``), second
moments of one layer (``moments``) or the results of one block (``blockwise``), and, where the metric needs them, the
weights of the units' outputs (``fisher``), in files.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from isa.errors import QuantizationError
from quantizer.compensate import compensate
from quantizer.observers import ActivationObserver, WeightObserver
from quantizer.progress import Meter, Watch
from quantizer.recipe import Recipe
from quantizer.reconstruct.blockwise import Block, round_block
from quantizer.reconstruct.fisher import Loss, Piece, second_moments
from quantizer.reconstruct.layer import Layer, layers
from quantizer.reconstruct.layerwise import round_layer
from quantizer.reconstruct.moments import Moments
from quantizer.reconstruct.options import NEAREST, Round
from quantizer.reconstruct.rounding import Codes
from quantizer.reconstruct.store import Decided, Store, key_of
from quantizer.reconstruct.units import Unit, results, units
from quantizer.reconstruct.walk import Observe, Values, Walk, plain, quantized
from quantizer.size import constant

PARTS = ("codes", "scale", "zero")


def reconstruct(
    calibrated: GraphModule,
    pieces: Sequence[Piece],
    recipe: Recipe,
    *,
    targets: Iterable[Any] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Watch | None = None,
) -> GraphModule:
    """Give ``calibrated``, as ``calibrate`` returns it, weights that are codes of their quantizers, and return it.

    ``pieces`` are the calibration inputs at the exported size. ``recipe`` says how: its [compensate] and [round].
    Gradients, where the metric needs them, are of ``loss(output, target)``, or of the squared error against the float
    model. ``resume`` is a folder that keeps what was decided; a second run with the same graph, formats, recipe, seed,
    inputs, targets and loss (which counts by its name) goes on from there. Raises QuantizationError.
    """
    if not pieces:
        raise QuantizationError("the calibration set is empty: give at least one batch of representative inputs")
    for observer in calibrated.modules():
        if isinstance(observer, ActivationObserver):
            observer.freeze(*observer.calculate_qparams())
    aims = None if targets is None else list(targets)
    said = (*(f"{name} {stage}" for name, stage in recipe.stages.items()), str(seed), getattr(loss, "__qualname__", ""))
    store = Store(resume, key_of(calibrated, [*pieces, aims], *said) if resume is not None else "")
    with torch.no_grad(), TemporaryDirectory(prefix="quartic-") as scratch:
        return _Engine(calibrated, pieces, recipe, seed, store, progress).run(aims, loss, Path(scratch))


@dataclass
class _Side:
    """One of the two models: a walk's values for every image, and the place up to which it has run."""

    values: list[Values]
    observe: Observe
    place: int = 0

    def copy(self, observe: Observe | None = None) -> _Side:
        return _Side([dict(each) for each in self.values], observe or self.observe, self.place)


@contextmanager
def _of(unit: Unit) -> Generator[None]:
    """What a unit's mathematics refuses is said of the unit by name."""
    try:
        yield
    except QuantizationError as error:
        raise QuantizationError(f"{unit.name}: {error}") from error


class _Engine:
    def __init__(
        self,
        graph: GraphModule,
        pieces: Sequence[Piece],
        recipe: Recipe,
        seed: int,
        store: Store,
        progress: Watch | None,
    ) -> None:
        self.graph, self.pieces, self.store, self.seed, self.progress = graph, pieces, store, seed, progress
        self.compensate, self.how = recipe.compensate, recipe.round or Round(NEAREST)
        self.walk = Walk(graph)
        self.units = units(self.walk, layers(graph), self.how.scope)
        self.floats = _Side([self.walk.start(piece) for piece in pieces], plain)
        self.quants = self.floats.copy(quantized)
        self.originals: dict[str, torch.Tensor] = {}
        """The float model's weights where the graph has others already, until the float model has read them."""

    def run(self, targets: list[Any] | None, loss: Loss | None, scratch: Path) -> GraphModule:
        outputs: list[dict[Node, torch.Tensor]] = [{} for _ in self.units]
        if self.how.needs_gradients and self.units:
            given = self.walk, self.units, self.pieces, self.how.metric, scratch, targets, loss
            outputs = second_moments(*given, self.progress)
        meter = Meter("reconstructing", len(self.units), self.progress)
        for index, (unit, weigh) in enumerate(zip(self.units, outputs, strict=True)):
            self._advance(self.floats, unit.first)
            self._advance(self.quants, unit.first)
            decided = self.store.load(index)
            if decided is None:
                device = self.pieces[0][0].device
                with _of(unit):
                    decided = self._decide(index, unit, {node: each.to(device) for node, each in weigh.items()})
                self.store.save(index, decided)
            for layer in unit.layers:
                self._settle(layer, decided)
            weigh.clear()
            meter.done(unit.name)
        return self.graph

    def _advance(self, side: _Side, place: int) -> None:
        weights = self.originals if side.observe is plain else None
        for values in side.values:
            self.walk.run(values, side.place, place, side.observe, weights)
        side.place = place
        if side is self.floats:
            self.originals = {name: w for name, w in self.originals.items() if self.walk.reads(name, place)}

    def _decide(self, index: int, unit: Unit, weigh: dict[Node, torch.Tensor]) -> Decided:
        layer = unit.layer
        if layer is None:
            return self._block(index, unit, weigh)
        original, moments = self._compensated(layer, self.floats, self.quants)
        rows, codes = layer.rows(self._weight(layer)), self._codes(layer)
        scale, zero = (layer.expanded(each, original.shape) for each in (codes.scale, codes.zero))
        codes = Codes(scale, zero, codes.grid)
        found = round_layer(rows, layer.rows(original), moments, weigh.get(layer.node), codes, self.how)
        return self._decided(layer, layer.weight_of(found.codes[0], original.shape))

    def _block(self, index: int, unit: Unit, weigh: dict[Node, torch.Tensor]) -> Decided:
        """Layers are compensated one after the other, as far as the recipe wants it, before all are rounded."""
        floats, quants = self.floats.copy(), self.quants.copy()
        if self.compensate is not None:
            for layer in unit.layers:
                self._advance(floats, self.walk.place[layer.node])
                self._advance(quants, self.walk.place[layer.node])
                self._compensated(layer, floats, quants)
        self._advance(floats, unit.end)
        wanted = [{node: values[node] for node in results(self.walk, unit)} for values in floats.values]
        block = Block(self.walk, unit, self.floats.values, self.quants.values, wanted, weigh)
        weights = [self._weight(layer) for layer in unit.layers]
        codes = [self._codes(layer) for layer in unit.layers]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        found = round_block(block, weights, codes, self.how, generator)
        parts = (self._decided(layer, each) for layer, each in zip(unit.layers, found.codes, strict=True))
        return {name: value for part in parts for name, value in part.items()}

    def _compensated(self, layer: Layer, floats: _Side, quants: _Side) -> tuple[torch.Tensor, Moments]:
        """The float weight, which the graph has compensated from here on, and the moments in front of the layer."""
        original = self._weight(layer)
        moments = self._moments(layer, floats, quants)
        if self.compensate is not None:
            rows = compensate(layer.rows(original), moments.cross, moments.gram, damping=self.compensate.damping)
            self._replace(layer, layer.weight_of(rows, original.shape))
        return original, moments

    def _moments(self, layer: Layer, floats: _Side, quants: _Side) -> Moments:
        weight = self._weight(layer)
        groups, _, width = layer.rows(weight).shape
        moments = Moments.empty(groups, width, weight.device)
        if self.compensate is None and self.how.method == NEAREST:
            return moments
        for plain_, quant in zip(floats.values, quants.values, strict=True):
            moments.add(*(layer.columns(values[layer.source], weight.shape) for values in (plain_, quant)))
        return moments

    def _weight(self, layer: Layer) -> torch.Tensor:
        return constant(self.graph, layer.held).detach()

    def _codes(self, layer: Layer) -> Codes:
        observer = self._observers(layer)[0]
        return Codes(*observer.broadcast(self._weight(layer)), observer.grid)

    def _decided(self, layer: Layer, codes: torch.Tensor) -> Decided:
        scale, zero = self._observers(layer)[0].calculate_qparams()
        return {f"{layer.attribute} {what}": value for what, value in zip(PARTS, (codes, scale, zero), strict=True)}

    def _settle(self, layer: Layer, decided: Decided) -> None:
        """The weight is what its codes stand for, and its observers' ranges are those of the codes."""
        device = self._weight(layer).device
        codes, scale, zero = (decided[f"{layer.attribute} {what}"].to(device) for what in PARTS)
        for observer in self._observers(layer):
            observer.freeze(scale, zero)
        self._replace(layer, self._codes(layer).values(codes))

    def _replace(self, layer: Layer, weight: torch.Tensor) -> None:
        """The graph's weight; ranges that are not frozen are found again."""
        self.originals.setdefault(layer.attribute, self._weight(layer))
        path, _, name = layer.attribute.rpartition(".")
        setattr(self.graph.get_submodule(path), name, nn.Parameter(weight, requires_grad=False))
        for observer in self._observers(layer):
            observer(weight)

    def _observers(self, layer: Layer) -> list[WeightObserver]:
        """All that observe its weight: more than one where several layers share it."""
        nodes = [n for n in self.graph.graph.nodes if n.op == "get_attr" and n.target == layer.attribute]
        found = [self.graph.get_submodule(str(user.target)) for node in nodes for user in node.users]
        return [observer for observer in found if isinstance(observer, WeightObserver)]
