"""What the stages of a recipe make of the tensors that ``quantizer.probe`` quantizes at widths other than the recipe's.

Channels are scaled before the graph is prepared. Here are the codes: an operand of LogNP, or of powers of two, has a
codebook at 4 bits and uniform codes at others, and so needs the ranges of both; and weights that are compensated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch.fx import GraphModule, Node

from quantizer.annotate import are_probabilities
from quantizer.coding import CodebookObserver, codebook_spec
from quantizer.compensate import compensate
from quantizer.curves import BITS, Curve, LogNP
from quantizer.observers import ActivationObserver, Observer, WeightObserver
from quantizer.quantizers import Grid, affine, simulate, symmetric
from quantizer.recipe import TENSOR, Format, Recipe
from quantizer.reconstruct.layer import layers
from quantizer.reconstruct.moments import Moments
from quantizer.reconstruct.walk import Walk, plain
from quantizer.scaling import is_polished
from quantizer.size import constant
from quantizer.spec import Kind, activation_spec, kind_of, observer_for

TWIN = "twin"
"""The module of an observer that observes the same for the other kind of codes."""
Codes = tuple[torch.Tensor, torch.Tensor, Grid]
"""Scale and zero point, in a shape that broadcasts, and the codes."""
Simulated = Callable[[torch.Tensor], torch.Tensor]


def observer_of(graph: GraphModule, node: Node) -> Observer | None:
    """The observer that ``node`` calls."""
    found = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return found if isinstance(found, Observer) else None


def add_twins(prepared: GraphModule, recipe: Recipe) -> None:
    """Let what has a codebook at 4 bits be observed both for that and for uniform codes, before it is calibrated."""
    for node in prepared.graph.nodes:
        for edge in node.all_input_nodes[:2]:
            observer, curve = observer_of(prepared, edge), _curve(node, edge, recipe)
            if curve is None or not isinstance(observer, ActivationObserver) or TWIN in dict(observer.named_children()):
                continue
            how = Format(BITS, observer.grid.symmetric, TENSOR, observer.estimator)
            uniform = isinstance(observer, CodebookObserver)
            twin = observer_for(activation_spec(how) if uniform else codebook_spec(how, curve))
            observer.add_module(TWIN, twin)
            observer.register_forward_pre_hook(partial(_both, twin))


def _both(twin: ActivationObserver, _: object, args: tuple[torch.Tensor, ...]) -> None:
    twin(*args)


def _curve(node: Node, edge: Node, recipe: Recipe) -> Curve | None:
    """Of the 4-bit codes of what ``node`` reads behind an observer."""
    if kind_of(node) is Kind.WEIGHTED and edge is node.all_input_nodes[0] and is_polished(node):
        return LogNP()
    if kind_of(node) is Kind.PRODUCT and recipe.log2 is not None and are_probabilities(node, edge, recipe.log2):
        return recipe.log2.curve
    return None


def codes_of(graph: GraphModule, edge: Node, bits: int | None = None) -> Codes:
    """Uniform codes of the tensor on an edge: as its observer says, with ``bits`` if they are given."""
    observer = observer_of(graph, edge)
    assert observer is not None
    return _codes(_of_kind(observer, coded=False), bits)


def _codes(observer: Observer, bits: int | None) -> Codes:
    grid = observer.grid
    if bits is not None:
        weight = isinstance(observer, WeightObserver)
        grid = symmetric(bits, narrow=weight) if grid.symmetric else affine(bits)
    scale, zero = observer.parameters(grid)
    if observer.ch_axis is not None and isinstance(observer, WeightObserver) and observer.value is not None:
        shape = [1] * observer.value.ndim
        shape[observer.ch_axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return scale, zero, grid


def _of_kind(observer: Observer, coded: bool) -> Observer:
    """The observer or its twin, whichever is for a codebook, or not; the observer where it has no twin."""
    twin = dict(observer.named_children()).get(TWIN, observer)
    assert isinstance(twin, Observer)
    return observer if isinstance(observer, CodebookObserver) == coded else twin


def simulation(graph: GraphModule, edge: Node, bits: int | None = None) -> Simulated:
    """What its codes leave of the tensor on an edge: as its observer says, with ``bits`` if they are given."""
    observer = observer_of(graph, edge)
    assert observer is not None
    best = _of_kind(observer, coded=(bits or observer.grid.levels.bit_length() - 1) == BITS)
    if isinstance(best, CodebookObserver):
        return best.codebook().simulate
    return partial(_simulated, _codes(best, bits))


def simulation_of(graph: GraphModule, edge: Node, weight: torch.Tensor, bits: int) -> Simulated:
    """What the codes of another weight leave of it, whatever the graph holds on this edge."""
    observer = observer_of(graph, edge)
    assert isinstance(observer, WeightObserver)
    held, observer.value = observer.value, weight
    codes = _codes(observer, bits)
    observer.value = held
    return lambda _: simulate(weight, *codes)


def _simulated(codes: Codes, x: torch.Tensor) -> torch.Tensor:
    return simulate(x, *codes)


def compensated(
    graph: GraphModule,
    asked: Mapping[Node, Sequence[int]],
    pieces: Sequence[tuple[torch.Tensor, ...]],
    damping: float,
) -> dict[tuple[Node, int], torch.Tensor]:
    """Weights that make up for the loss of their layer's operand at a width, all in front of it being float.

    ``asked`` are widths in bits by the edge of a weight; so are the results. One run over ``pieces``, of which it holds
    the values at the border, as a reconstruction does; a weight per width is kept. Raises QuantizationError.
    """
    walk, found, place = Walk(graph), dict[tuple[Node, int], torch.Tensor](), 0
    values = [walk.start(piece) for piece in pieces]
    for layer in layers(graph):
        edge = layer.node.all_input_nodes[1]
        if edge not in asked:
            continue
        for each in values:
            walk.run(each, place, walk.place[layer.node], plain)
        place = walk.place[layer.node]
        weight = constant(graph, layer.held).detach()
        rows = layer.rows(weight)
        for bits in asked[edge]:
            quantized, moments = (
                simulation(graph, layer.source, bits),
                Moments.empty(len(rows), rows.shape[2], rows.device),
            )
            for each in values:
                x = each[layer.source]
                moments.add(layer.columns(x, weight.shape), layer.columns(quantized(x), weight.shape))
            changed = compensate(rows, moments.cross, moments.gram, damping=damping)
            found[edge, bits] = layer.weight_of(changed, weight.shape)
    return found
