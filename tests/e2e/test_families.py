"""Every family of networks, narrow and at a small size, gives the reference's bits at every integer width."""

from __future__ import annotations

import pytest
import torch

from benchmarks.probes import PLANTS, plant
from benchmarks.zoo.vit import ViT, Width
from tests.e2e.support import assert_bits, network, probes, quantized

RECIPES = ("w8a8", "w4a8", "w4a4")
FAMILIES = (
    "vit_nano",
    "depth_anything_v2_nano",
    "resnet_v2_nano",
    pytest.param("nasnet_nano", marks=pytest.mark.slow),
    pytest.param("metric3d_nano", marks=pytest.mark.slow),
)
SHAPE = (1, 3, 32, 32)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, recipe: str) -> None:
    q, shape = network(name, recipe=recipe)
    assert_bits(q, probes(shape))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", PLANTS)
def test_corners_of_softmax_and_layer_norm(name: str, recipe: str) -> None:
    torch.manual_seed(0)
    model = plant(ViT(Width(32, 1, 2), 32, 16, 10).eval(), name)
    q = quantized(model, SHAPE, recipe=recipe)
    assert_bits(q, probes(SHAPE))


@pytest.mark.parametrize("recipe", RECIPES)
def test_transformer_whose_every_activation_saturates(recipe: str) -> None:
    """Calibrated on images a thousand times smaller than those that come."""
    torch.manual_seed(0)
    q = quantized(ViT(Width(32, 1, 2), 32, 16, 10).eval(), SHAPE, recipe=recipe, scale=1e-3)
    assert_bits(q, probes(SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "inception_v3"])
def test_image_network_of_four_bits(name: str) -> None:
    q, shape = network(name, recipe="w4a4")
    assert_bits(q, probes(shape)[:3])
