"""What codes of an operand cost the layers that read it, tried on calibration inputs.

Each way to code it is a layer of its own: the operand scaled by the way's factors and left as its codes leave it, times
the weight that undoes the factors, as its own codes leave that, rounded to nearest. Ranges are by the recipe's
estimators, of the pieces that are tried, each of which counts as a batch. What is in front of the layer is float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from quantizer.channels import Factors, watch
from quantizer.coding import codebook_spec
from quantizer.curves import BITS, LogNP
from quantizer.factors import arguments, undone
from quantizer.observers import Observer
from quantizer.operands import Operand
from quantizer.recipe import Roles
from quantizer.spec import activation_spec, observer_for, weight_spec

PIECES = 8
"""Calibration pieces that are tried: they run twice, and nothing of them is kept but a statistic per layer and way."""


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
) -> dict[Operand, list[float]]:
    """The noise in the output of each operand's layers by every way to code it, over the power of the float output.

    Where several layers read it, the mean of theirs. ``graph`` is float and stays as it is; the first PIECES of
    ``pieces``, one tensor per input each, are run through it.
    """
    trials = {operand: _Trial(graph, operand, some, roles) for operand, some in ways.items()}
    if not trials:
        return {}
    watch(graph, pieces[:PIECES], {operand.value: trial.observe for operand, trial in trials.items()})
    watch(graph, pieces[:PIECES], {operand.value: trial.measure for operand, trial in trials.items()})
    return {operand: trial.noises() for operand, trial in trials.items()}


class _Trial:
    """Of one operand: the layers as they are, and as each way leaves them."""

    def __init__(self, graph: GraphModule, operand: Operand, ways: Sequence[Way], roles: Mapping[Node, Roles]) -> None:
        plain = Way(Factors(torch.ones(operand.channels, dtype=torch.float64)))
        self.exact = [_Coded(graph, layer, operand.axis, plain, None) for layer in operand.layers]
        self.coded = [
            [_Coded(graph, layer, operand.axis, way, roles[layer]) for layer in operand.layers] for way in ways
        ]
        self.power = torch.zeros(len(operand.layers), dtype=torch.float64)
        self.noise = torch.zeros(len(ways), len(operand.layers), dtype=torch.float64)

    def observe(self, x: torch.Tensor) -> None:
        for layers in self.coded:
            for layer in layers:
                layer.observe(x)

    def measure(self, x: torch.Tensor) -> None:
        for i, exact in enumerate(self.exact):
            y = exact(x)
            self.power[i] += _energy(y)
            for noise, layers in zip(self.noise, self.coded, strict=True):
                noise[i] += _energy(layers[i](x) - y)

    def noises(self) -> list[float]:
        shares = self.noise / self.power.clamp(min=torch.finfo(torch.float64).tiny)
        return shares.mean(1).tolist()


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
        return self.layer.target(x, weight=self.weight, bias=self.bias, **rest)  # type: ignore[operator]

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        return (x if self.shift is None else x - self.shift) / self.scale


def _energy(x: torch.Tensor) -> torch.Tensor:
    return x.double().square().sum().cpu()
