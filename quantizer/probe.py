"""A prepared graph run with some of its tensors quantized, and what its outputs lose by that, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from isa.errors import QuantizationError
from isa.instructions import STORED_BITS, Mode
from quantizer.batches import Batch, as_tuple
from quantizer.location import module_path
from quantizer.observers import WeightObserver
from quantizer.spec import Kind, kind_of
from quantizer.sqnr import powers
from quantizer.staged import Simulated, observer_of, simulation, simulation_of

Metric = Callable[[Any, Any], Any]
"""Of the model's outputs (one tensor, or a tuple of several) and the batch's target; smaller is better."""
Progress = Callable[[int, int], object]
"""Told how many of how many steps are done."""
Piece = tuple[tuple[torch.Tensor, ...], Any]
"""Inputs of the size for which the graph was made, and their target."""
Quantizers = Mapping[Node, Simulated]
"""By observer: what becomes of the tensor that it observes."""
Losses = dict[tuple[str, str], float]
"""By module path and width."""


@dataclass(frozen=True)
class Layer:
    """A layer of a prepared graph: its operators and the observers on their operands."""

    module: str
    nodes: tuple[Node, ...]
    edges: tuple[Node, ...]
    product: bool

    widths: tuple[str, ...]
    """Those to ask about, by the names of the matrix unit's modes."""

    def weights(self, graph: GraphModule) -> int:
        """How many weights it has."""
        held = (observer_of(graph, edge) for edge in self.edges)
        return sum(x.value.numel() for x in held if isinstance(x, WeightObserver) and x.value is not None)

    def bits(self, edge: Node, width: str, graph: GraphModule) -> int:
        """Bits of the tensor on ``edge`` at ``width``."""
        mode = Mode[width.upper()]
        weight = isinstance(observer_of(graph, edge), WeightObserver)
        return STORED_BITS[mode.weight if weight else mode.activation]


def layers_of(graph: GraphModule, widths: Sequence[str]) -> list[Layer]:
    """The layers of a prepared graph that its recipe quantizes, in the order of their first operators."""
    found: dict[str, list[Node]] = {}
    for node in graph.graph.nodes:
        operands = node.all_input_nodes[:2]
        if kind_of(node) in (Kind.WEIGHTED, Kind.PRODUCT) and all(observer_of(graph, x) for x in operands):
            found.setdefault(module_path(node), []).append(node)
    return [_layer(module, nodes, widths) for module, nodes in found.items()]


def _layer(module: str, nodes: Sequence[Node], widths: Sequence[str]) -> Layer:
    edges = dict.fromkeys(x for node in nodes for x in node.all_input_nodes[:2])
    product = any(kind_of(node) is Kind.PRODUCT for node in nodes)
    modes = {width: Mode[width.upper()] for width in widths}
    # Both sides of a product are activations: no widths that differ.
    fitting = (w for w, mode in modes.items() if not product or mode.weight is mode.activation)
    return Layer(module, tuple(nodes), tuple(edges), product, tuple(fitting))


class Simulator(Interpreter):
    """A prepared graph whose observers are passed by, but for those that quantize in this run."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.prepared = graph
        self.quantizers: Quantizers = {}

    def run_node(self, n: Node) -> Any:
        """Observers observe nothing."""
        if observer_of(self.prepared, n) is None:
            return super().run_node(n)
        x = self.env[n.all_input_nodes[0]]
        return self.quantizers[n](x) if n in self.quantizers else x

    def outputs(
        self, inputs: Sequence[torch.Tensor], quantizers: Quantizers, known: Mapping[Node, Any] | None = None
    ) -> Any:
        """What the graph returns; values that are ``known`` are not computed again."""
        self.quantizers = quantizers
        return self.run(*inputs, initial_env=dict(known or {}))


def first_pieces(
    batches: Sequence[tuple[torch.Tensor, ...]], targets: Sequence[Any] | None, example: Batch, samples: int
) -> list[Piece]:
    """The first samples and their targets, in pieces of the size that the graph was made for; at least one."""
    sizes = [len(x) if x.dim() else 1 for x in as_tuple(example)]
    found: list[Piece] = []
    for i, batch in enumerate(batches):
        target = None if targets is None else targets[i]
        cut: Iterator[Any] = iter(())
        if isinstance(target, torch.Tensor) and target.dim() and len(target) == len(batch[0]):
            cut = iter(target.split(sizes[0]))
        pieces = zip(*(x.split(n) if x.dim() else (x,) for x, n in zip(batch, sizes, strict=True)), strict=True)
        for piece in pieces:
            if found and len(found) * sizes[0] >= samples:
                return found
            found.append((piece, next(cut, target)))
    return found


def one_by_one(
    graph: GraphModule,
    layers: Sequence[Layer],
    pieces: Sequence[Piece],
    metric: Metric | None,
    progress: Progress | None,
    weights: Mapping[tuple[Node, int], torch.Tensor] | None = None,
) -> Losses:
    """Average losses by noise over signal, or by ``metric``. What lies before a layer is computed once per piece.

    ``weights`` are those to take, by edge and bits of what they multiply, in place of the graph's.
    """
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    trials: dict[tuple[str, str], tuple[int, Quantizers]] = {}
    for layer in layers:
        start = min(order[edge] for edge in layer.edges)
        for width in layer.widths:
            trials[layer.module, width] = start, _quantizers(graph, layer, width, weights or {})
    simulator, losses, done = Simulator(graph), dict.fromkeys(trials, 0.0), 0
    with torch.no_grad():
        for inputs, target in pieces:
            wanted = simulator.outputs(inputs, {})
            known = dict(simulator.env)
            base = None if metric is None else _number(metric(wanted, target))
            for key, (start, quantizers) in trials.items():
                before = {node: value for node, value in known.items() if order[node] < start}
                found = simulator.outputs(inputs, quantizers, before)
                lost = noise(wanted, found) if metric is None else _number(metric(found, target)) - (base or 0.0)
                losses[key] += lost / len(pieces)
                done += 1
                if progress is not None:
                    progress(done, len(trials) * len(pieces))
    return losses


def _number(value: Any) -> float:
    """What a metric gave; raises QuantizationError for no number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        what = f"tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise QuantizationError(f"the metric gave a {what}: must give a number, the smaller the better") from None


def _quantizers(
    graph: GraphModule, layer: Layer, width: str, weights: Mapping[tuple[Node, int], torch.Tensor]
) -> Quantizers:
    found: dict[Node, Simulated] = {}
    activation = STORED_BITS[Mode[width.upper()].activation]
    for edge in layer.edges:
        other, bits = weights.get((edge, activation)), layer.bits(edge, width, graph)
        found[edge] = simulation(graph, edge, bits) if other is None else simulation_of(graph, edge, other, bits)
    return found


def operand_bits(graph: GraphModule, layers: Sequence[Layer]) -> dict[Node, list[int]]:
    """Bits of what weights multiply at the widths to ask about, by the edges of the weights."""
    return {
        edge: list(dict.fromkeys(STORED_BITS[Mode[width.upper()].activation] for width in layer.widths))
        for layer in layers
        for edge in layer.edges
        if isinstance(observer_of(graph, edge), WeightObserver)
    }


def noise(wanted: Any, found: Any) -> float:
    """Power of the noise over that of the signal, summed over the outputs."""
    pairs = zip(tensors(wanted), tensors(found), strict=True)
    return sum(noise / signal for signal, noise in (powers(a, b) for a, b in pairs) if signal)


def _power(x: torch.Tensor) -> float:
    return x.square().sum().item()


def tensors(outputs: Any) -> list[torch.Tensor]:
    """The tensors among what a model returns."""
    return [outputs] if isinstance(outputs, torch.Tensor) else [x for x in outputs if isinstance(x, torch.Tensor)]


def fisher(
    graph: GraphModule,
    layers: Sequence[Layer],
    pieces: Sequence[Piece],
    loss: Metric | None,
    progress: Progress | None,
) -> Losses:
    """Average sums of (error * gradient)^2 over the elements of a layer's weights and inputs; one backward a piece."""
    edges = list(dict.fromkeys(edge for layer in layers for edge in layer.edges))
    taps = {edge: _Tap(None if loss is not None else simulation(graph, edge)) for edge in edges}
    asked = {
        (layer.module, width): [(edge, layer.bits(edge, width, graph)) for edge in layer.edges]
        for layer in layers
        for width in layer.widths
    }
    codes = {(edge, bits): simulation(graph, edge, bits) for each in asked.values() for edge, bits in each}
    simulator, losses = Simulator(graph), dict.fromkeys(asked, 0.0)
    for done, (inputs, target) in enumerate(pieces, 1):
        with torch.no_grad():
            wanted = simulator.outputs(inputs, {})
        with torch.enable_grad():
            found = simulator.outputs(inputs, taps)
            far = _distance(wanted, found) if loss is None else loss(found, target)
        if not isinstance(far, torch.Tensor) or far.numel() != 1 or not far.requires_grad:
            raise QuantizationError("by = 'fisher' needs a loss that is one number and has a gradient")
        gradients = torch.autograd.grad(far, [taps[e].value for e in edges], allow_unused=True, materialize_grads=True)
        simulator.env.clear()
        slopes = dict(zip(edges, gradients, strict=True))
        powers = {
            key: _power((quantized(taps[key[0]].seen) - taps[key[0]].seen) * slopes[key[0]])
            for key, quantized in codes.items()
        }
        for key, each in asked.items():
            losses[key] += sum(powers[one] for one in each) / len(pieces)
        if progress is not None:
            progress(done, len(pieces))
    return losses


def _distance(wanted: Any, found: Any) -> torch.Tensor:
    pairs = zip(tensors(wanted), tensors(found), strict=True)
    return torch.stack([(b - a).square().sum() / 2 for a, b in pairs]).sum()


class _Tap:
    """Quantizes what passes an edge by ``codes`` (None: not at all) and keeps it.

    What lies in front of the quantizer has the gradient of what lies behind it (straight through).
    """

    def __init__(self, codes: Simulated | None) -> None:
        self.codes = codes
        self.seen = self.value = torch.empty(0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, quantized."""
        self.seen = x.detach()
        self.value = x if self.codes is None else x + (self.codes(self.seen) - self.seen)
        if not self.value.requires_grad:
            self.value = self.value.detach().requires_grad_()
        return self.value
