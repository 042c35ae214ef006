"""What codes of an operand cost the layers that read it, tried on calibration inputs.

Each way to code it is a layer of its own: the operand scaled by the way's factors and left as its codes leave it, times
the weight that undoes the factors, as its own codes leave that, rounded to nearest. Ranges are by the recipe's
estimators, of the pieces that are tried, each of which counts as a batch. What is in front of the layer is float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch.fx import GraphModule, Node

from quantizer.channels import Factors
from quantizer.coding import codebook_spec
from quantizer.curves import BITS, LogNP
from quantizer.factors import arguments, undone
from quantizer.location import module_path
from quantizer.observers import Observer
from quantizer.operands import Operand
from quantizer.progress import Meter, Watch
from quantizer.recipe import Roles
from quantizer.reconstruct.walk import Walk, plain
from quantizer.spec import activation_spec, observer_for, weight_spec

PIECES = 8
"""Calibration pieces that are tried. They go through the graph side by side, once: held are their values at the border,
and of one layer at a time the operands, the outputs, and the weight as it is and as a way leaves it."""


@dataclass(frozen=True)
class Way:
    """Factors of an operand's channels, and whether its 4-bit codes are even in LogNP; else they are uniform."""

    factors: Factors
    polished: bool = False


def noises(
    graph: GraphModule,
    pieces: Sequence[tuple[torch.Tensor, ...]],
    ways: Mapping[Operand, Sequence[Way]],
    roles: Mapping[Node, Roles],
    progress: Watch | None = None,
) -> dict[Operand, list[float]]:
    """The noise in the output of each operand's layers by every way to code it, over the power of the float output.

    Where several layers read it, the mean of theirs. ``graph`` is float and stays as it is; the first PIECES of
    ``pieces``, one tensor per input each, are run through it.
    """
    walk, found, place = Walk(graph), dict[Operand, list[float]](), 0
    values, meter = [walk.start(piece) for piece in pieces[:PIECES]], Meter("trying codes", len(ways), progress)
    with torch.no_grad():
        for operand in sorted(ways, key=lambda each: walk.place[each.value]):
            end = walk.place[operand.value] + 1
            for each in values:
                walk.run(each, place, end, plain)
            place = end
            seen = [each[operand.value] for each in values]
            shares = [_shares(graph, layer, operand, ways[operand], roles[layer], seen) for layer in operand.layers]
            found[operand] = torch.tensor(shares, dtype=torch.float64).mean(0).tolist()
            meter.done(module_path(operand.layers[0]) or "(root)")
    return found


def _shares(
    graph: GraphModule, layer: Node, operand: Operand, ways: Sequence[Way], roles: Roles, seen: Sequence[torch.Tensor]
) -> list[float]:
    """By way, noise over power of the outputs of one layer for operands that were ``seen``."""
    ones = Way(Factors(torch.ones(operand.channels, dtype=torch.float64)))
    exact = _Coded(graph, layer, operand.axis, ones, None)
    outputs = [exact(x) for x in seen]
    power = max(sum(map(_energy, outputs)), torch.finfo(torch.float64).tiny)
    shares: list[float] = []
    for way in ways:
        coded = _Coded(graph, layer, operand.axis, way, roles)
        for x in seen:
            coded.observe(x)
        shares.append(sum(_energy(coded(x) - y) for x, y in zip(seen, outputs, strict=True)) / power)
    return shares


class _Coded:
    """A layer with an operand and a weight of codes in the formats of ``roles``, all of it float without."""

    def __init__(self, graph: GraphModule, layer: Node, axis: int, way: Way, roles: Roles | None) -> None:
        operand = layer.all_input_nodes[0].meta["val"]
        shape = [-1 if dimension == axis else 1 for dimension in range(operand.dim())]
        weight, bias = undone(graph, layer, way.factors)
        scale, shift = way.factors.scale.view(shape), way.factors.shift
        placed = operand.device, operand.dtype
        self.layer = layer
        self.scale, self.weight = scale.to(*placed), weight.to(*placed)
        self.shift = None if shift is None else shift.view(shape).to(*placed)
        self.bias = None if bias is None else bias.to(*placed)
        self.codes: Observer | None = None
        if roles is None:
            return
        how = roles.activation
        polished = way.polished and how.bits == BITS
        self.codes = observer_for(codebook_spec(how, LogNP()) if polished else activation_spec(how))
        held = observer_for(weight_spec(roles.weight, int("transpose" in str(layer.target))))
        if held is not None:
            held(self.weight)
            self.weight = held.simulate(self.weight)

    def observe(self, x: torch.Tensor) -> None:
        if self.codes is not None:
            self.codes(self._scaled(x))
            self.codes.close_batch()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self._scaled(x)
        x = x if self.codes is None else self.codes.simulate(x)
        given = arguments(self.layer)
        rest = {name: value for name, value in given.items() if name not in (next(iter(given)), "weight", "bias")}
        operator = cast(Callable[..., torch.Tensor], self.layer.target)
        return operator(x, weight=self.weight, bias=self.bias, **rest)

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        return (x if self.shift is None else x - self.shift) / self.scale


def _energy(x: torch.Tensor) -> float:
    return x.double().square().sum().item()
