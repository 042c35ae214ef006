"""Lower bounds of a quantized network on a machine, from the products of its graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from operator import attrgetter
from typing import Any

import torch
from torch.fx import GraphModule, Node

from compiler.coverage import Operator, coverage
from compiler.frontend.aten_moves import pair
from isa.instructions import STORED_BITS, Mode
from isa.machine import Machine
from runtime.bounds import Bounds, Layer, bound

MOVES = ("quantized_decomposed.", "aten.t.", "aten.transpose.", "aten.permute.", "aten.reshape.", "aten.view.")
"""What leaves a constant a constant."""


def network_bounds(q: GraphModule, machine: Machine) -> Bounds:
    """Bounds of ``q`` on ``machine``: weights once as stored, inputs and outputs as binary32, which the caller sees."""
    inputs, outputs = q.graph.find_nodes(op="placeholder"), q.graph.output_node().all_input_nodes
    read, written = (sum(4 * _tensor(q, node).numel() for node in nodes) for nodes in (inputs, outputs))
    return bound(layers(q, machine), machine, read, written)


def layers(q: GraphModule, machine: Machine) -> list[Layer]:
    """Convolutions, transposed ones too, linear layers and products of two activations, in the order of the graph.

    Each is in the fastest mode of ``machine`` that holds its widths. A weight counts where it is first read.
    """
    nodes = {node.name: node for node in q.graph.nodes}
    read: set[str] = set()
    return [_layer(q, each, nodes[each.node], machine, read) for each in coverage(q).operators if each.macs]


def _layer(q: GraphModule, operator: Operator, node: Node, machine: Machine, read: set[str]) -> Layer:
    act, stored = _bits(operator.width)
    left, right = [each for each in node.args if isinstance(each, Node)]["add" in operator.target :][:2]
    y, x, w = (_tensor(q, each) for each in (node, left, right))
    columns, weight, bytes_right = _columns(y, operator.target, node.args), _constant(right), w.numel() * stored // 8
    is_first = bool(weight) and weight not in read
    read.add(weight)
    return Layer(
        operator.node,
        operator.macs,
        y.numel() // columns,
        operator.macs // y.numel(),
        columns,
        x.numel() * act // 8 + (0 if weight else bytes_right),
        y.numel() * act // 8,
        bytes_right if is_first else 0,
        operator.target.startswith("aten.conv2d.") and x.shape[1] == len(w) > w.shape[1] == 1,
        _mode(act, stored, machine),
    )


def _bits(width: str) -> tuple[int, int]:
    """Of activations, and of weights or second factors."""
    found = re.fullmatch(r"w(\d+)a(\d+)", width)
    return (int(found[2]), int(found[1])) if found else (32, 32)


def _mode(act: int, stored: int, machine: Machine) -> Mode:
    """The fastest that holds both; of equals the narrowest."""
    fits = [m for m in Mode if STORED_BITS[m.activation] >= act and STORED_BITS[m.weight] >= stored]
    return max(fits, key=lambda m: (machine.mmu.macs_per_cycle(m), -STORED_BITS[m.activation], -STORED_BITS[m.weight]))


def _columns(y: torch.Tensor, target: str, args: Sequence[Any]) -> int:
    """Results of one row of the left factor: channels, of a transposed convolution those of all its phases."""
    if not target.startswith("aten.conv"):
        return y.shape[-1]
    transposed = "transpose" in target or (target.startswith("aten.convolution.") and args[6])
    return y.shape[1] * (prod(pair(args[3])) if transposed and len(args) > 3 else 1)


def _constant(factor: Node) -> str:
    """Name of the constant that ``factor`` is, however it is stored; empty if it is computed."""
    while factor.op == "call_function" and str(factor.target).startswith(MOVES):
        factor = factor.all_input_nodes[0]
    return str(factor.target) if factor.op == "get_attr" else ""


def _tensor(q: GraphModule, node: Node) -> torch.Tensor:
    """What has the shape of ``node``, which a conversion has not noted itself."""
    while node.op == "call_function" and "val" not in node.meta:
        node = node.all_input_nodes[0]
    return attrgetter(str(node.target))(q) if node.op == "get_attr" else node.meta["val"]
