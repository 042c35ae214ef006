"""Bounds of networks: every product of the graph, in the mode of its widths."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

import quartic
from benchmarks.bounds import layers, network_bounds
from benchmarks.zoo import NETWORKS
from benchmarks.zoo.layers import work
from isa.instructions import Mode
from isa.machine import Machine
from tests.e2e.support import network, quantized

EDGE = Machine.load("edge28")
NAMES = ("plain", "odd", "gates", "vit_nano", "depth_anything_v2_nano", "metric3d_nano")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "f32"])
@pytest.mark.parametrize("name", NAMES)
def test_bounds_have_all_products_of_a_network(name: str, recipe: str) -> None:
    """As many as PyTorch counts in the float network, and each weight that it has at most once."""
    q, shape = network(name, recipe=recipe)
    counted = work(NETWORKS[name].model(shape=shape[1:]), shape)
    assert network_bounds(q, EDGE).macs == counted.macs
    bits = {"w8a8": 8, "w4a8": 4, "f32": 32}[recipe]
    assert sum(layer.weight_bytes for layer in layers(q, EDGE)) <= counted.weights * bits // 8


class Attention(nn.Module):
    """Scores of 6 x 6 and their products with values, between linear layers; one head of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 24), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[2, 6, 5] to [2, 6, 3]."""
        q, k, v = self.inner(x).chunk(3, -1)
        return self.outer(torch.softmax(q @ k.transpose(1, 2), -1) @ v)


def numbers(q: GraphModule, machine: Machine = EDGE) -> list[tuple[object, ...]]:
    return [astuple(layer)[1:] for layer in layers(q, machine)]


ATTENTION = [
    # 12 tokens; 2 x 6 queries of 8, 6 keys; 2 x 6 rows of 6 scores, 8 values. Bytes in, out and of weights of 4 bits.
    (1440, 12, 5, 24, 60, 288, 60, False, Mode.W4A8),
    (576, 12, 8, 6, 96 + 96, 72, 0, False, Mode.W8A8),
    (576, 12, 6, 8, 72 + 96, 96, 0, False, Mode.W8A8),
    (288, 12, 8, 3, 96, 36, 12, False, Mode.W4A8),
]


@pytest.mark.parametrize(("machine", "cycles"), [("edge28", 1 + 2), ("quartdepth28-w4a8", 2 + 2)])
def test_products_of_two_activations_count_in_their_own_mode(machine: str, cycles: int) -> None:
    """1728 products of W4A8 at 2048 or 1536 a cycle, 1152 of W8A8 at 1024 or 768."""
    q = quantized(Attention().eval(), (2, 6, 5), recipe="w4a8")
    assert numbers(q, Machine.load(machine)) == ATTENTION
    assert network_bounds(q, Machine.load(machine)).mac_cycles == cycles


class Convolutions(nn.Module):
    """Depthwise and grouped, and transposed of 2 x 2 phases; the last one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 4, 1, groups=2)
        self.up, self.again = nn.ConvTranspose2d(4, 5, 2, 2), nn.Conv2d(5, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 6, 4, 7] to [1, 5, 8, 14]."""
        x = functional.relu(self.up(self.grouped(self.depthwise(x))))
        return self.again(self.again(x))


def test_convolutions_of_every_kind() -> None:
    q = quantized(Convolutions().eval(), (1, 6, 4, 7))
    assert numbers(q) == [
        (28 * 9 * 6, 28, 9, 6, 168, 168, 54, True, Mode.W8A8),
        (28 * 3 * 4, 28, 3, 4, 168, 112, 12, False, Mode.W8A8),
        # Every pixel makes 2 x 2 of 5 channels.
        (28 * 4 * 20, 28, 4, 20, 112, 560, 80, False, Mode.W8A8),
        (112 * 45 * 5, 112, 45, 5, 560, 560, 225, False, Mode.W8A8),
        (112 * 45 * 5, 112, 45, 5, 560, 560, 0, False, Mode.W8A8),
    ]
    # The image of 168 numbers and the result of 560 as binary32, and the weights once.
    assert network_bounds(q, EDGE).dram_bytes == 4 * (168 + 560) + 54 + 12 + 80 + 225


def test_bounds_count_what_the_widths_store() -> None:
    slow, wide, narrow = (network("plain", recipe=recipe)[0] for recipe in ("w16a16", "w8a8", "w4a4"))
    pairs = list(zip(layers(narrow, EDGE), layers(wide, EDGE), strict=True))
    assert all(2 * one.weight_bytes == other.weight_bytes for one, other in pairs)
    assert all(2 * one.out_bytes == other.out_bytes for one, other in pairs)
    first, last = (network_bounds(q, EDGE) for q in (slow, narrow))
    assert first.mac_cycles > 4 * last.mac_cycles
    assert first.dram_bytes > last.dram_bytes


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["edge28", "quartdepth28-w4a8"])
@pytest.mark.parametrize("name", ["plain", "vit_nano", "depth_anything_v2_nano"])
def test_nothing_is_below_its_bounds(name: str, machine: str) -> None:
    q, _ = network(name, recipe="w4a8")
    found = quartic.timing(quartic.compile(q, machine)).profile
    least = network_bounds(q, found.binary.machine)
    assert found.cycles >= least.machine_cycles
    assert found.energy.total_fj.nominal >= least.energy_fj
    assert all(found.energy.events.get(event, 0) >= count for event, count in least.events.items())

