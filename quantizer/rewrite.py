"""Say in operators of the machine what others say: run before annotation, after batch norms were folded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def rewrite(model: GraphModule) -> GraphModule:
    """Rewrite ``model`` in place by ``RULES``; new nodes keep the metadata of the node that they replace."""
    for node in list(model.graph.nodes):
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is None:
            continue
        with model.graph.inserting_before(node):
            replacement = rule(model, node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()
    return model


def _call(model: GraphModule, like: Node, target: object, *args: object) -> Node:
    node = model.graph.call_function(target, args)  # type: ignore[arg-type]
    node.meta = dict(like.meta)
    return node


def _identity(model: GraphModule, node: Node) -> Node | None:
    """dropout in eval mode, detach and what export checked of a type pass their operand on."""
    if node.target in (aten.dropout.default, aten.feature_dropout.default) and node.args[2]:
        return None
    return node.all_input_nodes[0]


def _same_type(model: GraphModule, node: Node) -> Node | None:
    """A conversion of binary32 to binary32, as ``x.float()``."""
    x = node.all_input_nodes[0]
    return x if x.meta["val"].dtype == node.meta["val"].dtype == torch.float32 else None


def _batch_norm(model: GraphModule, node: Node) -> Node | None:
    """A batch norm that follows no convolution: x * (gamma/sigma) + (beta - mean*gamma/sigma), per channel."""
    x, *names, training, _, eps, _ = node.args
    if training or not isinstance(x, Node) or names[2] is None or names[3] is None:
        return None
    gamma, beta, mean, variance = (_constant(model, n) for n in names)
    assert mean is not None
    assert variance is not None
    factor = (variance.double() + float(eps)).rsqrt()  # type: ignore[arg-type]
    factor = factor if gamma is None else factor * gamma.double()
    shift = -mean.double() * factor if beta is None else beta.double() - mean.double() * factor
    shape = (-1, *[1] * (node.meta["val"].dim() - 2))
    product = _call(model, node, aten.mul.Tensor, x, _buffer(model, node, "factor", factor.view(shape)))
    return _call(model, node, aten.add.Tensor, product, _buffer(model, node, "shift", shift.view(shape)))


def _divide(model: GraphModule, node: Node) -> Node | None:
    """Division by a number: multiplication by its reciprocal."""
    x, divisor = node.args
    if not isinstance(divisor, (int, float)) or not divisor:
        return None
    return _call(model, node, aten.mul.Tensor, x, 1.0 / divisor)


def _reversed_subtract(model: GraphModule, node: Node) -> Node | None:
    """c - x: x * -1 + c."""
    if len(node.args) != 2 or node.kwargs:
        return None
    return _call(model, node, aten.add.Tensor, _call(model, node, aten.mul.Tensor, node.args[0], -1.0), node.args[1])


def _constant(model: GraphModule, node: object) -> torch.Tensor | None:
    if not isinstance(node, Node):
        return None
    value: object = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value.detach()


def _buffer(model: GraphModule, like: Node, suffix: str, value: torch.Tensor) -> Node:
    name = f"{like.name}_{suffix}"
    model.register_buffer(name, value.float())
    node = model.graph.get_attr(name)
    node.meta = {**like.meta, "val": value.float()}
    return node


RULES: dict[object, Callable[[GraphModule, Node], Node | None]] = {
    aten.dropout.default: _identity,
    aten.feature_dropout.default: _identity,
    aten.detach.default: _identity,
    aten._assert_tensor_metadata.default: _identity,
    aten.to.dtype: _same_type,
    aten.to.dtype_layout: _same_type,
    aten._to_copy.default: _same_type,
    aten.batch_norm.default: _batch_norm,
    aten.div.Tensor: _divide,
    aten.rsub.Scalar: _reversed_subtract,
}
"""Operator to its rewrite; None as a result leaves the node as it is."""
