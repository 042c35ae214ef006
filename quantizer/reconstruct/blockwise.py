"""The rounding of a block by the error at its results (BRECQ, arXiv 2102.05426; QDrop, arXiv 2203.05740).

A step runs the block for some images, from the quantized inputs, with activations of which each element is quantized
with the probability ``drop`` and left alone otherwise; the error against the float model's results goes back to every
decision in the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.utils._pytree import tree_map

from quantizer.observers import Observer
from quantizer.reconstruct.layerwise import Rounded
from quantizer.reconstruct.options import Round
from quantizer.reconstruct.rounding import Codes, SoftRounding, learn, scaled
from quantizer.reconstruct.units import Unit
from quantizer.reconstruct.walk import Observe, Values, Walk, quantized


@dataclass(frozen=True)
class Block:
    """One unit of several layers, with all that its error needs of every image."""

    walk: Walk
    unit: Unit
    floats: Sequence[Values]
    """In front of it, of the float model."""
    quants: Sequence[Values]
    """In front of it, of the quantized model."""
    wanted: Sequence[Mapping[Node, torch.Tensor]]
    """The float model's results."""
    outputs: Mapping[Node, torch.Tensor]
    """What a squared error of a result weighs; 1 where nothing is said."""

    def error(self, image: int, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the weighed squared errors of an image's results, with these weights, as the machine runs."""
        return self._error(image, dict(self.quants[image]), weights, quantized)

    def dropped(
        self, image: int, weights: Mapping[str, torch.Tensor], share: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The same with each element of an activation quantized with the probability ``share``."""

        def mixed(quant: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
            draw = torch.rand(quant.shape, generator=generator)  # on the CPU: the same numbers everywhere
            return torch.where(draw.to(quant.device) < share, quant, plain)

        def mix(quant: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
            return mixed(quant, plain) if quant.is_floating_point() else quant

        def observe(observer: Observer, x: torch.Tensor) -> torch.Tensor:
            return mixed(quantized(observer, x), x)

        if share == 1:
            return self.error(image, weights)
        floats = self.floats[image]
        start = {node: tree_map(mix, value, floats[node]) for node, value in self.quants[image].items()}
        return self._error(image, start, weights, observe)

    def _error(self, image: int, values: Values, weights: Mapping[str, torch.Tensor], observe: Observe) -> torch.Tensor:
        self.walk.run(values, self.unit.first, self.unit.end, observe, weights)
        wanted = self.wanted[image]
        errors = ((values[node] - y).square() * self.outputs.get(node, 1.0) for node, y in wanted.items())
        return torch.stack([each.sum() for each in errors]).sum()


def round_block(
    block: Block, weights: Sequence[torch.Tensor], codes: Sequence[Codes], how: Round, generator: torch.Generator
) -> Rounded:
    """Codes of the unit's layers, of the weights' shapes; the nearest ones where what was learned is no better."""
    names = [layer.attribute for layer in block.unit.layers]
    images = len(block.quants)

    def error(found: Sequence[torch.Tensor]) -> float:
        values = {name: each.values(code) for name, each, code in zip(names, codes, found, strict=True)}
        with torch.no_grad():
            return sum(float(block.error(i, values)) for i in range(images)) / images

    nearest = [each.nearest(weight) for each, weight in zip(codes, weights, strict=True)]
    before = error(nearest)
    scale = scaled(before, sum(weight.numel() for weight in weights))

    def pull(_: int, now: list[torch.Tensor]) -> None:
        held = dict(zip(names, now, strict=True))
        leaves = {name: each.detach().requires_grad_() for name, each in held.items()}
        for image in torch.randint(images, (how.batch,), generator=generator).tolist():
            (block.dropped(image, leaves, how.drop, generator) * (scale / how.batch)).backward()
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()]
        torch.autograd.backward(now, gradients)

    soft = [SoftRounding(weight, each) for weight, each in zip(weights, codes, strict=True)]
    learn(soft, how, pull)
    found = [each.hard() for each in soft]
    after = error(found)
    return Rounded(found, before, after) if after <= before else Rounded(nearest, before, before)
