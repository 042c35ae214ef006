"""The networks are the published ones: parameters and multiply-accumulates, and a signal that survives."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import NETWORKS
from benchmarks.zoo.inception import InceptionV3
from benchmarks.zoo.layers import work
from benchmarks.zoo.mobilenet import MobileNetV1, MobileNetV2
from benchmarks.zoo.resnet import resnet18, resnet50

PUBLISHED = {
    "resnet18": (resnet18, 11.690, 1814),
    "resnet50": (resnet50, 25.557, 4089),
    "mobilenet_v2": (MobileNetV2, 3.505, 301),
    "mobilenet_v1": (MobileNetV1, 4.232, 569),
    "inception_v3": (InceptionV3, 23.835, 5713),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    build, million_params, million_macs = PUBLISHED[name]
    with torch.device("meta"):
        model = build().eval()
    counted = work(model, (1, *NETWORKS[name].shape))
    assert round(counted.params / 1e6, 3) == million_params
    assert round(counted.macs / 1e6) == million_macs


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_signal_survives_random_weights(name: str) -> None:
    network = NETWORKS[name]
    model = network.model(shape=network.small)
    with torch.no_grad():
        out = model(network.images(4, shape=network.small))
    assert torch.isfinite(out).all()
    # Different images must give clearly different outputs, or every comparison on this network is empty.
    assert (out - out.mean(0)).std() > 0.1 * out.std()


def test_same_seed_gives_same_weights() -> None:
    first, second = (NETWORKS["gates"].model(seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_randomise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    NETWORKS["plain"].model(seed=7)
    assert torch.equal(torch.get_rng_state(), expected)
