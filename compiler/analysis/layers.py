"""Which kernel computes which layer of the model, by the FX nodes that its products come from."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.analysis.graph import KernelGraph
from compiler.dialects import kern
from compiler.ir.kernel import MatrixAnchor
from compiler.ir.location import origins
from isa.instructions import Mode


def kernel_layers(graph: KernelGraph, layer_of_node: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Layers by kernel, and those that share a kernel with another, by name: they have its width."""
    layers: dict[str, str] = {}
    same: dict[str, str] = {}
    for step in graph.steps:
        if not isinstance(step.spec.anchor, MatrixAnchor):
            continue
        products = [op for op in step.op.members if isinstance(op, kern.MATRIX)]
        found = [layer_of_node[o.node] for op in products for o in origins(op) if o.node in layer_of_node]
        if not found:
            continue
        first = same.get(found[0], found[0])
        layers[step.spec.name] = first
        same |= {other: first for other in found if other != first and other not in layers.values()}
    return layers, same


def unknown_products(graph: KernelGraph, layer_of_node: Mapping[str, str]) -> list[str]:
    """Nodes, with their modules, of products of codes that belong to no layer."""
    return [
        f"{o.node} (module {o.module})"
        for step in graph.steps
        if isinstance(step.spec.anchor, MatrixAnchor) and step.spec.anchor.mode is not Mode.F32
        for op in step.op.members
        if isinstance(op, kern.MATRIX) and not any(o.node in layer_of_node for o in origins(op))
        for o in origins(op)
    ]


def kernel_widths(graph: KernelGraph, layers: Mapping[str, str]) -> dict[str, str]:
    """The width that each layer's first kernel has now."""
    found: dict[str, str] = {}
    for step in graph.steps:
        if isinstance(step.spec.anchor, MatrixAnchor) and (layer := layers.get(step.spec.name)) is not None:
            found.setdefault(layer, step.spec.anchor.mode.name.lower())
    return found
