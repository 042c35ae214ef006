"""Scale the channels of what layers read, and let their weights undo it: x' = (x - m) / s, W' = W s, b' = b + W m.

The factors go into the layer or norm that makes the values where one does, and are a product with a constant behind it
where not. In binary32 the function stays the same but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantizer.channels import Factors
from quantizer.operands import Operand, channel_axis, is_layer, shape_of
from quantizer.size import constant
from quantizer.spec import Kind, kind_of

aten = torch.ops.aten
RESCALED = "quartic_rescaled"
"""Key of a node's ``custom`` metadata: its value is not the float model's, but in other units."""
HOMOGENEOUS = (aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default)
"""f(c x) = c f(x) for positive c: factors go in front."""


def can_shift(operand: Operand) -> bool:
    """Whether layers can undo a shift: linear ones, and convolutions none of whose windows holds zeros of a padding."""
    return not operand.padded and not any(_pads(layer) for layer in operand.layers)


def _pads(layer: Node) -> bool:
    if "linear" in str(layer.target):
        return False
    padding = arguments(layer)["padding"]
    none = (
        padding == "valid" if isinstance(padding, str) else not any([padding] if isinstance(padding, int) else padding)
    )
    return "transpose" in str(layer.target) or not none


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call by name, those that it leaves out included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {row.name: value for row, value in zip(schema, node.args, strict=False)}
    return {**{row.name: row.default_value for row in schema}, **given, **node.kwargs}


def channels_of_weight(graph: GraphModule, layer: Node) -> torch.Tensor:
    """A layer's weight as [groups, out, in, taps], in and out of a group, binary64."""
    weight = _held(graph, layer.all_input_nodes[1])
    groups = arguments(layer).get("groups", 1)
    if "transpose" in str(layer.target):
        return weight.unflatten(0, (groups, -1)).flatten(3).transpose(1, 2)
    return weight.unflatten(0, (groups, -1)).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def apply(graph: GraphModule, operand: Operand, factors: Factors, foldable: dict[Node, bool]) -> tuple[str, ...]:
    """Scale ``operand`` in ``graph``; where it is done, in words, one per source.

    ``foldable`` are the layers whose own weight can take factors of its output channels for nothing: those with a
    scale per channel.
    """
    assert not operand.problem, "who calls has looked"
    scales = operand.at_sources(1 / factors.scale, 1.0)
    nothing = torch.zeros_like(factors.scale)
    shifts = operand.at_sources(nothing if factors.shift is None else -factors.shift / factors.scale, 0.0)
    shifted = factors.shift is not None
    told = [_scale_source(graph, s, scales[s], shifts[s] if shifted else None, foldable) for s in operand.sources]
    for node in operand.moves:
        _mark(node)
    for layer in operand.layers:
        _undo(graph, layer, factors)
    return tuple(told)


def _mark(node: Node) -> None:
    node.meta["custom"] = {**(node.meta.get("custom") or {}), RESCALED: True}


def undone(graph: GraphModule, layer: Node, factors: Factors) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight and bias, binary64 on the CPU, with which ``layer`` makes of x' what it makes of x."""
    parts = channels_of_weight(graph, layer)
    groups, _, inputs, _ = parts.shape
    held = arguments(layer)["bias"]
    bias = None if held is None else _held(graph, held)
    if factors.shift is not None:
        lost = (parts.sum(-1) @ factors.shift.view(groups, inputs, 1)).flatten()
        bias = lost if bias is None else bias + lost
    weight = _held(graph, layer.all_input_nodes[1])
    if "transpose" in str(layer.target):
        scale = factors.scale.view(-1, *[1] * (weight.dim() - 1))
    else:
        rows = factors.scale.view(groups, 1, inputs).expand(-1, weight.shape[0] // groups, -1)
        scale = rows.reshape(weight.shape[0], inputs, *[1] * (weight.dim() - 2))
    return weight * scale, bias


def _undo(graph: GraphModule, layer: Node, factors: Factors) -> None:
    """Let a layer read x' for x."""
    weight, bias = undone(graph, layer, factors)
    if factors.shift is not None and bias is not None:
        _set(graph, layer, "bias", bias)
    _set(graph, layer, "weight", weight)


def _set(graph: GraphModule, node: Node, name: str, value: torch.Tensor) -> None:
    """Give a call a parameter of its own for the argument ``name``."""
    place = [row.name for row in node.target._schema.arguments].index(name)  # type: ignore[union-attr]
    with graph.graph.inserting_before(node):
        held = _parameter(graph, node, name, value)
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != name}
    args = [*node.args, *[arguments(node)[row.name] for row in node.target._schema.arguments[len(node.args) : place]]]  # type: ignore[union-attr]
    node.args = (*args[:place], held, *args[place + 1 :])


def _parameter(graph: GraphModule, node: Node, name: str, value: torch.Tensor) -> Node:
    target, count = f"{node.name}_{name}_scaled", 0
    while hasattr(graph, target):
        count += 1
        target = f"{node.name}_{name}_scaled_{count}"
    device = node.meta["val"].device
    graph.register_parameter(target, nn.Parameter(value.float().contiguous().to(device), requires_grad=False))
    held = graph.graph.get_attr(target)
    held.meta = {**_place(node), "val": getattr(graph, target).detach()}
    return held


def _held(graph: GraphModule, node: Node) -> torch.Tensor:
    """A constant in binary64 on the CPU, where factors are, wherever the graph is."""
    return constant(graph, node).detach().cpu().double()


def _place(node: Node) -> dict[str, Any]:
    """The metadata of a node but for what was done to it."""
    return {key: value for key, value in node.meta.items() if key != "custom"}


def _scale_source(
    graph: GraphModule, source: Node, scale: torch.Tensor, shift: torch.Tensor | None, foldable: dict[Node, bool]
) -> str:
    """source' = source * scale + shift, for all who read it."""
    maker, chain = source, [source]
    while shift is None and maker.target in HOMOGENEOUS and len(maker.all_input_nodes[0].users) == 1:
        maker = maker.all_input_nodes[0]
        chain.append(maker)
    axis = channel_axis_of(maker)
    takes = kind_of(maker) is Kind.NORM or foldable.get(maker, False)
    if axis is not None and takes and _along(scale, shift, axis) and (shift is None or "bias" in arguments(maker)):
        for node in chain:
            _mark(node)
        return _scale_maker(graph, maker, axis, scale, shift)
    behind = _behind(graph, source, aten.mul.Tensor, "factor", scale)
    if shift is not None:
        _behind(graph, behind, aten.add.Tensor, "shift", shift)
    return f"by a product behind {source.name}"


def channel_axis_of(maker: Node) -> int | None:
    """The dimension of a result whose every index has a weight, row of weights, or bias of its own."""
    match kind_of(maker):
        case Kind.WEIGHTED if is_layer(maker):
            return channel_axis(maker)
        case Kind.NORM if "group_norm" in str(maker.target):
            return 1
        case Kind.NORM if len(arguments(maker)["normalized_shape"]) == 1:
            return len(shape_of(maker)) - 1
        case _:
            return None


def _along(scale: torch.Tensor, shift: torch.Tensor | None, axis: int) -> bool:
    """Whether factors differ along one dimension alone."""
    return all(n == 1 for each in (scale, shift) if each is not None for d, n in enumerate(each.shape) if d != axis)


def _scale_maker(graph: GraphModule, maker: Node, axis: int, scale: torch.Tensor, shift: torch.Tensor | None) -> str:
    given, channels = arguments(maker), shape_of(maker)[axis]
    rows, added = scale.flatten().expand(channels), None if shift is None else shift.flatten().expand(channels)
    held = {name: _held(graph, given[name]) for name in ("weight", "bias") if given.get(name)}
    weight = held.get("weight", torch.ones(channels, dtype=torch.float64))
    if "transpose" in str(maker.target):
        groups = given["groups"]
        factor = rows.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        factor = factor.view(*weight.shape[:2], *[1] * (weight.dim() - 2))
    else:
        factor = rows.view(-1, *[1] * (weight.dim() - 1))
    bias = rows * held["bias"] if "bias" in held else None
    if added is not None:
        bias = added if bias is None else bias + added
    _set(graph, maker, "weight", weight * factor)
    if bias is not None:
        _set(graph, maker, "bias", bias)
    return f"into {maker.name}"


def _behind(graph: GraphModule, node: Node, target: Any, name: str, value: torch.Tensor) -> Node:
    """target(node, value), read by all who read ``node``."""
    with graph.graph.inserting_after(node):
        call = graph.graph.call_function(target, (node,))
    call.meta = _place(node)
    node.replace_all_uses_with(call, lambda user: user is not call)
    with graph.graph.inserting_before(call):
        call.args = (node, _parameter(graph, call, name, value.squeeze(0) if value.dim() > 1 else value))
    return call
