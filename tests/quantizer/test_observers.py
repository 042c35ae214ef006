"""Observers of a prepared graph: what they leave of a tensor."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from quantizer import calibrate, convert, prepare
from quantizer.observers import ActivationObserver, Observer

X = torch.linspace(-1, 3, 24).reshape(2, 3, 2, 2)


def prepared(recipe: str = "w4a8") -> GraphModule:
    torch.manual_seed(0)
    return prepare(torch.nn.ConvTranspose2d(3, 5, 2).eval(), X, recipe)


def test_what_an_observer_leaves_of_a_tensor_is_what_the_converted_graph_computes_with() -> None:
    graph = calibrate(prepared(), [X])
    nodes = {node.name: node for node in graph.graph.nodes}
    left = {
        str(node.target): observer.simulate(X if isinstance(observer, ActivationObserver) else observer.value)  # type: ignore[attr-defined]
        for node in nodes.values()
        if node.op == "call_module" and isinstance(observer := graph.get_submodule(str(node.target)), Observer)
    }
    found = []

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if "dequantize" in str(n.target):
                found.append(value)
            return value

    Recorder(convert(graph)).run(X)
    assert len(found) == 2
    assert all(any(torch.equal(value, each) for each in left.values()) for value in found)
