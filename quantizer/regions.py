"""Operators that hold a graph of their own: without autocast it is part of the model; branches and loops stay."""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node

AUTOCAST = torch.ops.higher_order.wrap_with_autocast
REGION: dict[object, int] = {AUTOCAST: 4, torch.ops.higher_order.wrap_with_set_grad_enabled: 1}
"""The place of the graph among an operator's operands; what the graph reads follows."""


def inline_regions(module: GraphModule) -> None:
    """Put into ``module`` the operators of regions without autocast, as models keep norms in binary32, or gradients."""
    for node in list(module.graph.nodes):
        if node.target in REGION and not (node.target is AUTOCAST and node.args[2]):
            region = held(module, node)[0]
            inline_regions(region)
            _inline(node, region)
    module.graph.eliminate_dead_code()
    module.recompile()


def held(module: GraphModule, node: Node) -> list[GraphModule]:
    """The graphs that an operator holds."""
    values = (getattr(module, str(n.target), None) for n in node.all_input_nodes if n.op == "get_attr")
    return [value for value in values if isinstance(value, GraphModule)]


def _inline(node: Node, region: GraphModule) -> None:
    inputs = (inner for inner in region.graph.nodes if inner.op == "placeholder")
    values: dict[Node, Any] = dict(zip(inputs, node.args[REGION[node.target] + 1 :], strict=True))
    with node.graph.inserting_before(node):
        results = node.graph.graph_copy(region.graph, values)
    for user in list(node.users):
        assert user.target is operator.getitem, "torch.export takes the results of a region apart"
        user.replace_all_uses_with(cast(Any, results)[user.args[1]])
        node.graph.erase_node(user)
    node.graph.erase_node(node)
