"""Operators that hold a graph of their own: where autocast is off it is part of the model, branches and loops stay."""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node

AUTOCAST = torch.ops.higher_order.wrap_with_autocast
ENABLED, REGION = 2, 4
"""Places among the operands of ``AUTOCAST``; what the region reads follows."""


def inline_regions(module: GraphModule) -> None:
    """Put the operators of regions in which autocast is off, as models keep norms in binary32, into ``module``."""
    for node in list(module.graph.nodes):
        if node.target is AUTOCAST and not node.args[ENABLED]:
            region = cast(GraphModule, getattr(module, str(cast(Node, node.args[REGION]).target)))
            inline_regions(region)
            _inline(node, region)
    module.graph.eliminate_dead_code()
    module.recompile()


def _inline(node: Node, region: GraphModule) -> None:
    inputs = (inner for inner in region.graph.nodes if inner.op == "placeholder")
    values: dict[Node, Any] = dict(zip(inputs, node.args[REGION + 1 :], strict=True))
    with node.graph.inserting_before(node):
        results = node.graph.graph_copy(region.graph, values)
    for user in list(node.users):
        assert user.target is operator.getitem, "torch.export takes the results of a region apart"
        user.replace_all_uses_with(cast(Any, results)[user.args[1]])
        node.graph.erase_node(user)
    node.graph.erase_node(node)
