"""What the end-to-end tests share: quantized networks, inputs that probe, and the comparison itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

import quartic
from benchmarks.probes import probes as named_probes
from benchmarks.zoo import NETWORKS
from quantizer import capture
from quantizer.recipe import Recipe
from quartic import Executable
from tests.bits import assert_same


def quantized(
    model: nn.Module, shape: tuple[int, ...], seed: int = 0, recipe: str | Recipe = "w8a8", scale: float = 1.0
) -> GraphModule:
    """``model`` quantized for inputs of ``shape`` (batch included), calibrated on two random batches of ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    batches = [(torch.randn(shape, generator=generator) * scale,) for _ in range(2)]
    return quartic.quantize(model, batches[0], batches, recipe=recipe)


@lru_cache(maxsize=2)
def captured(name: str, batch: int = 1, full: bool = False) -> tuple[GraphModule, tuple[int, ...]]:
    """The float graph of a network of the zoo at its reduced or full resolution, and its input's shape."""
    row = NETWORKS[name]
    shape = (batch, *(row.shape if full else row.small))
    return capture(row.model(shape=shape[1:]), torch.zeros(shape)), shape


@lru_cache(maxsize=4)
def network(
    name: str, batch: int = 1, full: bool = False, recipe: str | Recipe = "w8a8"
) -> tuple[GraphModule, tuple[int, ...]]:
    """A quantized network of the zoo at its reduced or full resolution, and its input's shape."""
    graph, shape = captured(name, batch, full)
    return quantized(graph, shape, recipe=recipe), shape


def probes(shape: tuple[int, ...], extreme: bool = True) -> list[torch.Tensor]:
    """A random input of ``shape``, and with ``extreme`` all the others of ``benchmarks.probes``."""
    found = list(named_probes(shape).values())
    return found if extreme else found[:1]


def assert_bits(q: GraphModule, inputs: list[torch.Tensor], machine: str = "edge28", **options: Any) -> Executable:
    """The simulator's outputs are the reference's bits on all of ``inputs``; gives what ran there."""
    exe = quartic.compile(q, machine, **options)
    reference = quartic.reference(q)
    for index, x in enumerate(inputs):
        assert_same(quartic.simulate(exe, x).outputs, reference(x), f"probe {index} on {machine} {options}")
    return exe
