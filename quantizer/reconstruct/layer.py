"""A weighted operator as the matrix product that it is: rows of weights by columns of inputs, group by group.

Linear layers, convolutions and transposed convolutions, grouped or not, all compute ``rows(w) @ columns(x)`` of shapes
[groups, out, in] and [groups, in, positions]; a column is a token or a patch (im2col). A transposed convolution is one
over the input with zeros between its elements, by the mirrored kernel.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.nn import functional

from quantizer.location import module_path
from quantizer.observers import WeightObserver


@dataclass(frozen=True)
class Layer:
    """An operator whose weight is an attribute of the graph behind an observer."""

    node: Node
    source: Node
    """Its input."""
    held: Node
    """Its weight, in front of the observer."""

    @property
    def attribute(self) -> str:
        """Where the graph holds the weight."""
        return str(self.held.target)

    @property
    def name(self) -> str:
        """Path of its module, or the node's name."""
        return module_path(self.node) or self.node.name

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Its arguments by name, defaults included."""
        schema = cast(Any, self.node.target)._schema.arguments
        given = dict(zip((each.name for each in schema), self.node.args, strict=False))
        return {each.name: each.default_value for each in schema} | given | self.node.kwargs

    @property
    def is_linear(self) -> bool:
        """Whether it multiplies the last dimension."""
        return "linear" in str(self.node.target)

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return "transpose" in str(self.node.target)

    @property
    def groups(self) -> int:
        """How many parts of the channels keep to themselves."""
        return 1 if self.is_linear else self.arguments["groups"]

    def rows(self, weight: torch.Tensor) -> torch.Tensor:
        """What is shaped as the weight, as [groups, out, in]."""
        if not self.is_transposed:
            return weight.reshape(self.groups, -1, weight[0].numel())
        mirrored = weight.flip(tuple(range(2, weight.ndim)))
        split = mirrored.reshape(self.groups, -1, *weight.shape[1:]).transpose(1, 2)
        return split.reshape(self.groups, weight.shape[1], -1)

    def expanded(self, each: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """What broadcasts against the weight along its output channels, as [groups, out, 1]."""
        return self.rows(each.expand(shape))[..., :1]

    def weight_of(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Rows in the weight's own shape."""
        if not self.is_transposed:
            return rows.reshape(shape)
        split = rows.reshape(self.groups, shape[1], -1, *shape[2:]).transpose(1, 2)
        return split.reshape(shape).flip(tuple(range(2, len(shape))))

    def columns(self, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The input as [groups, in, positions], for a weight of this shape."""
        if self.is_linear:
            return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        x = self._images(x, len(shape))
        kernel = _pair(shape[2:])
        dilation, stride = _pair(self.arguments["dilation"]), _pair(self.arguments["stride"])
        sides = [self._sides(i, kernel[i], dilation[i]) for i in range(2)]
        if self.is_transposed:
            x, stride = _spread(x, stride), (1, 1)
        x = functional.pad(x, (*sides[1], *sides[0]))
        patches = functional.unfold(x, kernel, dilation, 0, stride)
        return patches.reshape(len(x), self.groups, -1, patches.shape[-1]).permute(1, 2, 0, 3).flatten(2)

    def outputs(self, y: torch.Tensor, dims: int) -> torch.Tensor:
        """What is shaped as the result as [groups, out, positions], for a weight of so many dimensions."""
        if self.is_linear:
            return y.reshape(1, -1, y.shape[-1]).transpose(1, 2)
        y = self._images(y, dims)
        return y.reshape(len(y), self.groups, -1, y[0, 0].numel()).permute(1, 2, 0, 3).flatten(2)

    def _images(self, x: torch.Tensor, dims: int) -> torch.Tensor:
        """[B, C, H, W] of images, or of signals, H = 1, with a batch or without."""
        x = x if x.ndim == dims else x.unsqueeze(0)
        return x if x.ndim == 4 else x.unsqueeze(2)

    def _sides(self, axis: int, kernel: int, dilation: int) -> tuple[int, int]:
        """Zeros before and behind, along one of two axes."""
        reach, padding = dilation * (kernel - 1), self.arguments["padding"]
        if padding == "same":
            return reach // 2, reach - reach // 2
        before = 0 if padding == "valid" else _pair(padding, 0)[axis]
        if not self.is_transposed:
            return before, before
        return reach - before, reach - before + _pair(self.arguments["output_padding"], 0)[axis]


def layers(graph: GraphModule) -> list[Layer]:
    """The layers whose weights are to be quantized, in the graph's order.

    A weight that several of them share counts for the first. One that something else reads too, as an embedding, has
    no layer: it stays what it is, and rounds to the nearest codes where it is quantized.
    """
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            readers[str(node.target)].extend(node.users)
    found: dict[str, Layer] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or len(node.all_input_nodes) < 2:
            continue
        source, weight = node.all_input_nodes[:2]
        if not _observes(graph, weight):
            continue
        held = weight.all_input_nodes[0]
        if all(_observes(graph, reader) for reader in readers[str(held.target)]):
            found.setdefault(str(held.target), Layer(node, source, held))
    return list(found.values())


def _observes(graph: GraphModule, node: Node) -> bool:
    """Whether a node observes a weight."""
    return node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), WeightObserver)


def _pair(value: Any, alone: int = 1) -> tuple[int, int]:
    """Numbers of two axes, of which the first one may be missing: a list of one number is of the second."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    return values if len(values) == 2 else (alone, *values)


def _spread(x: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
    """``x`` with ``stride - 1`` zeros between its elements."""
    (b, c, h, w), (down, across) = x.shape, stride
    wide = x.new_zeros(b, c, (h - 1) * down + 1, (w - 1) * across + 1)
    wide[:, :, ::down, ::across] = x
    return wide
