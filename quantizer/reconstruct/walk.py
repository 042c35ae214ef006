"""A prepared graph run in pieces, in float and quantized side by side, holding no more than what is still to be read.

Of every image two sets of values are held, ``Values`` each: those that a node behind the frontier, the place up to
which the graph has run, will read. Running a piece of the graph moves the frontier and drops what nobody reads any
more; so memory is that of the frontier, for all images, and of one piece, for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from isa.errors import QuantizationError
from quantizer.checks import naming
from quantizer.observers import Observer, WeightObserver
from quantizer.size import constant

Values = dict[Node, Any]
"""What nodes hold."""
Observe = Callable[[Observer, torch.Tensor], torch.Tensor]


def plain(observer: Observer, x: torch.Tensor) -> torch.Tensor:
    """As the float model."""
    return x


def quantized(observer: Observer, x: torch.Tensor) -> torch.Tensor:
    """As the quantized one. Gradients pass straight through codes that say nothing of them, as codebooks."""
    found = observer.simulate(x)
    return x + (found - x).detach() if x.requires_grad and not found.requires_grad else found


class Walk:
    """The nodes of a graph by their place, and how to run a range of them."""

    def __init__(self, graph: GraphModule) -> None:
        self.graph = graph
        self.nodes = [node for node in graph.graph.nodes if not self._is_constant(node)]
        self.place = {node: i for i, node in enumerate(self.nodes)}
        self.last = {
            node: max((self.place[user] for user in node.users if user in self.place), default=-1)
            for node in self.nodes
        }

    def reads(self, attribute: str, place: int) -> bool:
        """Whether a node from ``place`` on reads this weight, itself or behind its observer."""
        return any(
            self.place.get(reader, -1) >= place
            for node in self.graph.graph.nodes
            if node.op == "get_attr" and node.target == attribute
            for user in node.users
            for reader in (user, *user.users)
        )

    def start(self, inputs: Sequence[torch.Tensor]) -> Values:
        """The values in front of the first node that is run."""
        names = [node for node in self.nodes if node.op == "placeholder"]
        return dict(zip(names, inputs, strict=True))

    def run(
        self,
        values: Values,
        first: int,
        end: int,
        observe: Observe,
        weights: Mapping[str, torch.Tensor] | None = None,
        keep: Iterable[Node] = (),
    ) -> None:
        """Run nodes ``first`` .. ``end - 1`` on ``values``, which then holds what nodes from ``end`` on will read.

        ``weights`` are those of layers, by attribute, as they are to be used, in place of the graph's own behind
        ``observe``. What nodes ``keep`` hold stays too.
        """
        kept = set(keep)
        for i, node in enumerate(self.nodes[first:end], first):
            if node.op in ("placeholder", "output"):
                continue
            with naming(node, "reconstructing"):
                values[node] = self._call(node, values, observe, weights or {})
            for read in node.all_input_nodes:
                if read in self.last and self.last[read] <= i and read not in kept:
                    values.pop(read, None)

    def outputs(self, values: Values) -> Any:
        """The model's output, once all has run."""
        (result,) = (node.args[0] for node in self.nodes if node.op == "output")
        codegen = cast(Any, self.graph.graph)
        return codegen.process_outputs(map_arg(cast(Any, result), lambda n: self._value(n, values, plain, {})))

    def _call(self, node: Node, values: Values, observe: Observe, weights: Mapping[str, torch.Tensor]) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._value(n, values, observe, weights))
        if node.op == "call_function":
            return cast(Any, node.target)(*args, **kwargs)
        if node.op != "call_module":
            raise QuantizationError(f"{node.name}: a {node.op} is nothing that an exported graph holds")
        module = self.graph.get_submodule(str(node.target))
        return observe(module, cast(Any, args)[0]) if isinstance(module, Observer) else module(*args, **kwargs)

    def _value(self, node: Node, values: Values, observe: Observe, weights: Mapping[str, torch.Tensor]) -> Any:
        if node in values:
            return values[node]
        held = node if node.op == "get_attr" else node.all_input_nodes[0]
        chosen = weights.get(str(held.target))
        if chosen is not None:
            return chosen
        if held is node:
            return constant(self.graph, node)
        module = self.graph.get_submodule(str(node.target))
        assert isinstance(module, Observer)
        return observe(module, constant(self.graph, held))

    def _is_constant(self, node: Node) -> bool:
        """Weights and what observes them are at hand at any place."""
        if node.op == "call_module" and isinstance(self.graph.get_submodule(str(node.target)), WeightObserver):
            return node.all_input_nodes[0].op == "get_attr"
        return node.op == "get_attr"
