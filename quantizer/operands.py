"""What layers read, and where it is made: tensors whose channels a factor may scale if the weights undo it.

A layer is a convolution or linear layer with a constant weight. Its operand is followed back through what only moves
values (permutations, slices, joins) to where the values are computed, its sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from quantizer.location import describe
from quantizer.spec import FLOAT_RESULT, Kind, kind_of, weight_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Operand:
    """The tensor ``value`` that ``layers``, and nothing else, multiply by weights; ``axis`` are its channels.

    ``moves`` lead in order from ``sources`` to it. ``problem`` says why its channels cannot be scaled; "" if they can.
    """

    value: Node
    axis: int
    layers: tuple[Node, ...]
    sources: tuple[Node, ...]
    moves: tuple[Node, ...]
    problem: str = ""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return shape_of(self.value)[self.axis]

    def at_sources(self, per_channel: torch.Tensor, other: float) -> dict[Node, torch.Tensor]:
        """Numbers [C] of the channels where they are made: of every source, a tensor that broadcasts against it.

        Channels that no layer reads get the number ``other``. Raises ValueError where two channels read one value.
        """
        places, start = dict[Node, torch.Tensor](), 1  # 0 is what padding adds
        for source in self.sources:
            size = shape_of(source).numel()
            places[source] = torch.arange(start, start + size, dtype=torch.float64).view(shape_of(source))
            start += size
        read = _moved(self.moves, places)[self.value].long()
        shape = [1] * read.dim()
        shape[self.axis] = -1
        wanted = per_channel.double().view(shape).expand(read.shape)
        known = torch.full((start,), torch.nan, dtype=torch.float64)
        known[read] = wanted
        known[0] = torch.nan
        if not torch.equal(known[read][read > 0], wanted[read > 0]):
            raise ValueError(f"{describe(self.value)}: two channels read one value")
        return {source: _narrowed(known[place.long()]).nan_to_num(nan=other) for source, place in places.items()}

    @property
    def padded(self) -> bool:
        """Whether a move puts zeros among the values."""
        return any("pad" in str(node.target) or "im2col" in str(node.target) for node in self.moves)


def shape_of(node: Node) -> torch.Size:
    """Of a tensor."""
    return cast(torch.Tensor, node.meta["val"]).shape


def operands(graph: GraphModule) -> list[Operand]:
    """What the layers of ``graph`` read, in its order."""
    found: dict[Node, list[Node]] = {}
    for node in graph.graph.nodes:
        if is_layer(node):
            found.setdefault(node.all_input_nodes[0], []).append(node)
    return [_operand(value, layers) for value, layers in found.items()]


def is_layer(node: Node) -> bool:
    """Whether a node multiplies by a constant weight."""
    return kind_of(node) is Kind.WEIGHTED and getattr(weight_of(node), "op", "") == "get_attr"


def channel_axis(layer: Node) -> int:
    """The dimension of a layer's operand that its weights contract."""
    return len(shape_of(layer.all_input_nodes[0])) - 1 if "linear" in str(layer.target) else 1


def _operand(value: Node, layers: list[Node]) -> Operand:
    axes = {channel_axis(layer) for layer in layers}
    moves, sources, problems = dict[Node, None](), dict[Node, None](), list[str]()
    if len(axes) > 1:
        problems.append("its layers contract different dimensions")
    if others := [user.name for user in value.users if user not in layers]:
        problems.append(f"{', '.join(others)} reads it too")
    _follow(value, moves, sources, problems)
    order = {node: i for i, node in enumerate(value.graph.nodes)}
    ordered = tuple(sorted(moves, key=order.__getitem__))
    return Operand(value, min(axes), tuple(layers), tuple(sources), ordered, problems[0] if problems else "")


def _follow(node: Node, moves: dict[Node, None], sources: dict[Node, None], problems: list[str]) -> None:
    """Collect what moves values on the way to ``node``, and what makes them."""
    kind = kind_of(node)
    if not ((kind is Kind.MOVE and kind_of(node.all_input_nodes[0]) is not Kind.SPLIT) or _pools_source(node)):
        sources[node] = None
        problems.extend(_problems(node))
        return
    if node in moves:
        return
    moves[node] = None
    for operand in node.all_input_nodes:
        if others := [user.name for user in operand.users if user is not node]:
            problems.append(f"{', '.join(others)} reads {operand.name} too, out of which it is moved")
        _follow(operand, moves, sources, problems)


def _pools_source(node: Node) -> bool:
    """Whether a node takes maxima of what was just computed: channels scaled by positive factors stay in order."""
    return kind_of(node) is Kind.MAX_POOL and kind_of(node.all_input_nodes[0]) in FLOAT_RESULT


def _problems(source: Node) -> Iterator[str]:
    kind = kind_of(source)
    if source.op == "placeholder":
        yield "it is the graph's input, which would be quantized twice"
    elif kind is Kind.MAX_POOL:
        yield "it is a maximum over codes"
    elif kind not in FLOAT_RESULT:
        yield f"{source.name} is no result in binary32"


def _moved(moves: tuple[Node, ...], values: Mapping[Node, torch.Tensor]) -> dict[Node, torch.Tensor]:
    found: dict[Node, Any] = dict(values)
    for node in moves:
        args, kwargs = tree_map(lambda a: found.get(a, a) if isinstance(a, Node) else a, (node.args, node.kwargs))
        if kind_of(node) is Kind.MAX_POOL:  # any value of the channel stands for all
            found[node] = args[0][..., :1, :1].expand(shape_of(node))
            continue
        found[node] = cast(Callable[..., torch.Tensor], node.target)(*args, **kwargs)
    return found


def _narrowed(value: torch.Tensor) -> torch.Tensor:
    """Without the dimensions along which it does not change; NaN, which nobody reads, is as any."""
    for axis in range(value.dim()):
        most = value.nan_to_num(nan=-torch.inf).amax(axis, keepdim=True)
        least = value.nan_to_num(nan=torch.inf).amin(axis, keepdim=True)
        if ((least == most) | (most == -torch.inf)).all():
            value = most.where(most != -torch.inf, torch.nan)
    return value
