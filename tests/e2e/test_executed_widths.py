"""What the executed instructions say: each product ran in the mode asked, and 4-bit tensors take half the bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from operator import attrgetter

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import quartic
from isa.instructions import MmuRun, Mode
from quantizer.recipe import Change, Recipe
from quartic import Executable
from tests.e2e.support import assert_bits, network, probes, quantized
from tests.e2e.traffic import Traffic, traffic

PRODUCTS = {
    "vit_nano": ["matmul_default", *(f"matmul_default_{i}" for i in range(1, 4))],
    "depth_anything_v2_nano": ["matmul_default", *(f"matmul_default_{i}" for i in range(1, 8))],
}
"""Products of two activations, scores and weighted values of attention: neither factor has the width of weights."""
ASKED = {
    "w8a8": (Mode.W8A8, Mode.W8A8),
    "w4a8": (Mode.W4A8, Mode.W8A8),
    "w4a4": (Mode.W4A4, Mode.W4A4),
    "w8a16": (Mode.W8A16, Mode.W16A16),
    "w16a16": (Mode.W16A16, Mode.W16A16),
    "f32": (Mode.F32, Mode.F32),
}
"""Modes of layers with weights and of ``PRODUCTS``, by recipe."""


@cache
def executed(name: str, recipe: str | Recipe) -> Executable:
    """A network on edge28, after all its bits were found to be the reference's."""
    q, shape = network(name, recipe=recipe)
    return assert_bits(q, probes(shape))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ASKED)
@pytest.mark.parametrize("name", PRODUCTS)
def test_networks_run_at_the_width_asked(name: str, recipe: str) -> None:
    exe = executed(name, recipe)
    profile = quartic.timing(exe).profile
    weighted, product = ASKED[recipe]
    done: dict[str, set[str]] = {}
    for row in profile.rows("node"):
        if modes := {mode for mode, n in row.macs_by_mode.items() if n}:
            done[row.name] = modes
    assert set(PRODUCTS[name]) == {node for node in done if node.startswith("matmul")}
    assert len(done) > 2 * len(PRODUCTS[name])
    for node, modes in done.items():
        assert modes == {(product if node in PRODUCTS[name] else weighted).name.lower()}, node
    assert {i.mode for i in exe.binary.instructions if isinstance(i, MmuRun)} == {weighted, product}
    assert sum(profile.macs_by_mode.values()) == sum(place.macs for place in exe.binary.locations)


def weights(q: GraphModule) -> int:
    """Number of weights that layers multiply by."""
    layers = [node for node in q.graph.nodes if "dequantize_per_channel" in str(node.target)]
    return sum(attrgetter(layer.args[0].target)(q).numel() for layer in layers)


def kept_once(q: GraphModule, exe: Executable) -> int:
    """Bytes of scales and biases that rows of new pixels of a transposed convolution have in common.

    They are stored once where the product is cut into such rows, as the lanes of its mode allow.
    """
    products = Counter(place.node for place in exe.binary.locations if place.macs)
    layers = [node for node in q.graph.nodes if "conv_transpose2d" in str(node.target)]
    kernels = {n.name: attrgetter(n.args[1].args[0].target)(q).shape for n in layers}
    for name, (_, _, rows, _) in kernels.items():
        assert products[name] in (1, rows), name
    return sum(8 * (products[name] - 1) * s * c for name, (_, c, _, s) in kernels.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRODUCTS)
def test_weights_of_4_bits_take_half_a_byte_each(name: str) -> None:
    count, loaded, stored = weights(network(name)[0]), dict[str, Traffic](), dict[str, int]()
    wide = Recipe.load("w16a16")
    narrow = replace(wide, weight=wide.weight.changed(Change(bits=8)))
    recipes = {"w4a8": "w4a8", "w8a8": "w8a8", "w16a16": wide, "w16a16, weights of 8 bits": narrow}
    for said, recipe in recipes.items():
        exe = executed(name, recipe)
        loaded[said] = traffic(exe)
        stored[said] = len(exe.binary.constants) + kept_once(network(name, recipe=recipe)[0], exe)
    for side in ("load", "load sram"):
        read = {recipe: moved[side, "CONSTANTS"] for recipe, moved in loaded.items()}
        assert read["w8a8"] - read["w4a8"] == count // 2
        assert read["w16a16"] - read["w16a16, weights of 8 bits"] == count
    padding = 0.001 * count  # tensors start at multiples of 16
    assert abs(stored["w8a8"] - stored["w4a8"] - count // 2) < padding
    assert abs(stored["w16a16"] - stored["w16a16, weights of 8 bits"] - count) < padding


SIDE, CHANNELS = 96, (16, 16, 32, 16, 8)


class Chain(nn.Sequential):
    """Convolutions of one pixel: no tile has a halo, so that each element moves once."""

    def __init__(self) -> None:
        super().__init__(*(nn.Conv2d(a, b, 1) for a, b in pairwise(CHANNELS)))


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("machine", ["tiny", "edge28"])
def test_activations_of_4_bits_take_half_a_byte_each(machine: str) -> None:
    torch.manual_seed(0)
    model, shape = Chain().eval(), (1, CHANNELS[0], SIDE, SIDE)
    codes, results = SIDE * SIDE * sum(CHANNELS[:-1]), SIDE * SIDE * CHANNELS[-1]
    for recipe, bits in (("w4a4", 4), ("w8a8", 8), ("w16a16", 16)):
        moved = traffic(quartic.compile(quantized(model, shape, recipe=recipe), machine, share_loops=False))
        assert moved["vcu", "SRAM"] == codes * bits // 8 + results * 4
        if machine == "tiny":  # whose SRAM holds none of them
            for side in ("store", "store sram", "load", "load sram"):
                assert moved[side, "ARENA"] == codes * bits // 8, (side, bits)
