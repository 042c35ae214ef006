"""Families of networks, narrow and at a small size, give the reference's bits at every integer width.

Transformers on edge28 are in ``test_executed_widths``, Metric3D in ``test_metric3d``, others in ``test_networks``.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch.fx import GraphModule

from benchmarks.probes import PLANTS, plant
from benchmarks.zoo.vit import ViT, Width
from quantizer import capture
from tests.e2e.support import assert_bits, network, probes, quantized

RECIPES = ("w8a8", "w4a8", "w4a4")
ALONE = {"fuse": False, "double_buffer": False}
SHAPE = (1, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recipe", "machine", "options"),
    [
        ("vit_nano", "w8a8", "tiny", {}),
        ("vit_nano", "w4a4", "tiny", ALONE),
        ("vit_nano", "w4a4", "quartdepth28-w4a4", {}),
        ("vit_nano", "f32", "quartdepth28-f32", {}),
        ("deit_t", "w4a4", "quartdepth28-w4a4", {}),
        ("vit_s", "w4a8", "edge28", {}),
        ("depth_anything_v2_nano", "w4a8", "tiny", ALONE),
        ("depth_anything_v2_nano", "w4a8", "quartdepth28-w4a8", {}),
        ("resnet_v2_nano", "w8a8", "edge28", {}),
        ("resnet_v2_nano", "w4a8", "tiny", ALONE),
        ("resnet_v2_nano", "w4a4", "edge28", ALONE),
        ("nasnet_nano", "w8a8", "tiny", ALONE),
        ("nasnet_nano", "w4a8", "edge28", {}),
        ("nasnet_nano", "w4a4", "tiny", {}),
    ],
)
def test_family(name: str, recipe: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name, recipe=recipe)
    assert_bits(q, probes(shape), machine, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "recipe", "full"),
    [
        ("depth_anything_v1_s", "w4a8", False),
        ("resnet50_v2", "w4a4", False),
        ("nasnet_mobile", "w4a8", False),
        ("deit_t", "w4a4", True),
    ],
)
def test_network_of_its_own_width(name: str, recipe: str, full: bool) -> None:
    q, shape = network(name, recipe=recipe, full=full)
    assert_bits(q, probes(shape)[::5])  # random and tied


@lru_cache(maxsize=1)
def planted(name: str) -> GraphModule:
    torch.manual_seed(0)
    return capture(plant(ViT(Width(32, 1, 2), 32, 16, 10).eval(), name), torch.zeros(SHAPE))


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", PLANTS)
def test_corners_of_softmax_and_layer_norm(name: str, recipe: str) -> None:
    q = quantized(planted(name), SHAPE, recipe=recipe)
    assert_bits(q, probes(SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_transformer_whose_every_activation_saturates(recipe: str) -> None:
    """Calibrated on images a thousand times smaller than those that come."""
    torch.manual_seed(0)
    q = quantized(ViT(Width(32, 1, 2), 32, 16, 10).eval(), SHAPE, recipe=recipe, scale=1e-3)
    assert_bits(q, probes(SHAPE))
