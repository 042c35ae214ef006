"""The networks are the published ones: parameters and multiply-accumulates, and a signal that survives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.zoo import NETWORKS
from benchmarks.zoo.depth_anything import depth_anything
from benchmarks.zoo.inception import InceptionV3
from benchmarks.zoo.layers import work
from benchmarks.zoo.metric3d import Metric3D, metric3d_small
from benchmarks.zoo.mobilenet import MobileNetV1, MobileNetV2
from benchmarks.zoo.nasnet import NASNetMobile
from benchmarks.zoo.raft_dpt import DECODERS
from benchmarks.zoo.resnet import resnet18, resnet50, resnet152
from benchmarks.zoo.resnet_v2 import ResNetV2, resnet50_v2, resnet152_v2
from benchmarks.zoo.vit import WIDTHS, deit_t, vit_s

PUBLISHED = {
    "resnet18": (resnet18, 11.690, 1814),
    "resnet50": (resnet50, 25.557, 4089),
    "resnet152": (resnet152, 60.193, 11514),  # torchvision's tables, as those above
    "nasnet_mobile": (NASNetMobile, 5.290, 564),  # 5.3 M and 564 M in arXiv 1707.07012, table 2
    "mobilenet_v2": (MobileNetV2, 3.505, 301),
    "mobilenet_v1": (MobileNetV1, 4.232, 569),
    "inception_v3": (InceptionV3, 23.835, 5713),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    build, million_params, million_macs = PUBLISHED[name]
    with torch.device("meta"):
        model = build().eval()
    counted = work(model, (1, *NETWORKS[name].shape))
    assert round(counted.params / 1e6, 3) == million_params
    assert round(counted.macs / 1e6) == million_macs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "side", "million_params", "giga_macs"),
    [
        (vit_s, 224, 22.051, 4.599),
        (deit_t, 224, 5.717, 1.254),
        (partial(depth_anything, "s", 2), 252, 24.785, 10.53),
        (partial(depth_anything, "s", 2), 518, 24.785, 57.63),
        (partial(depth_anything, "s", 1), 518, 24.785, 57.63),
        (partial(depth_anything, "l", 2), 518, 335.3, 652.1),
    ],
)
def test_transformers_have_the_parameters_and_macs_of_their_architecture(
    build: Callable[[], torch.nn.Module], side: int, million_params: float, giga_macs: float
) -> None:
    """Parameters are the authors'; multiply-accumulates were counted from the published dimensions."""
    with torch.device("meta"):
        counted = work(build().eval(), (1, 3, side, side))
    assert counted.params / 1e6 == pytest.approx(million_params, rel=2e-4)
    assert counted.macs / 1e9 == pytest.approx(giga_macs, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "million_params", "giga_macs"),
    [
        ("s", (252, 252), 37.495, 21.9),
        ("s", (256, 256), 37.495, 24.4),
        ("s", (512, 512), 37.495, 105),
        ("s", (1024, 1024), 37.495, 629),
        ("s", (616, 1064), 37.495, 318.2),
        ("l", (616, 1064), 411.9, 2886),
        ("l", (256, 256), 411.9, 259),
        ("l", (512, 512), 411.9, 1048),
        ("l", (1024, 1024), 411.9, 5299),
    ],
)
def test_metric3d_has_the_published_parameters_and_macs(
    name: str, side: tuple[int, int], million_params: float, giga_macs: float
) -> None:
    with torch.device("meta"):
        model = Metric3D(WIDTHS[name], DECODERS[name]).eval()
    counted = work(model, (1, 3, *side))
    assert counted.params / 1e6 == pytest.approx(million_params, rel=2e-4)
    # Published code also enlarges the estimates of all iterations but the last, for training: a 3x3 and a 1x1 each.
    width = DECODERS[name]
    spare = (width.iterations - 1) * 9 * width.hidden * (width.hidden + 16)
    quarter = [int(-(-n // 14) * 3.5) for n in side]
    assert counted.macs / 1e9 == pytest.approx(giga_macs, rel=0.02)
    assert (counted.macs + spare * quarter[0] * quarter[1]) / 1e9 == pytest.approx(giga_macs, rel=0.003)


def test_metric3d_loads_a_checkpoint_by_its_published_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = metric3d_small()
    chunked = {
        "depth_model." + key.replace("encoder.blocks.", "encoder.blocks.0."): value
        for key, value in model.state_dict().items()
        if key != "encoder.mask_token"
    }
    torch.save({"model_state_dict": chunked}, tmp_path / "published.pth")
    loaded = metric3d_small()
    loaded.load_published(tmp_path / "published.pth")
    x = torch.randn(1, 3, 30, 44)
    with torch.no_grad():
        assert all(map(torch.equal, model(x), loaded(x)))
        assert [tuple(y.shape) for y in model(x)] == [(1, 1, 40, 56), (1, 1, 40, 56), (1, 4, 40, 56)]


def test_metric3d_depths_of_random_weights_vary() -> None:
    torch.manual_seed(0)
    model = metric3d_small()
    with torch.no_grad():
        depth, confidence, normals = model(torch.randn(2, 3, 64, 64))
    inside = (depth > 0.1) & (depth < 1000)
    assert inside.float().mean() > 0.9
    assert depth.std() > 10
    assert confidence.std() > 0.1
    assert torch.allclose(normals[:, :3].norm(dim=1), torch.ones(()))


@pytest.mark.thin(1)
@pytest.mark.parametrize(("build", "total"), [(resnet50_v2, 25_613_800), (resnet152_v2, 60_380_648)])
def test_pre_activation_networks_have_the_published_parameters(build: Callable[[], ResNetV2], total: int) -> None:
    """Of the tables of Keras, which count running statistics; 25.6 M and 60.4 M in arXiv 1806.08342, table 1."""
    with torch.device("meta"):
        model = build()
    statistics = sum(value.numel() for name, value in model.named_buffers() if "running" in name)
    assert sum(value.numel() for value in model.parameters()) + statistics == total


@pytest.mark.slow
def test_nasnet_has_the_published_parameters() -> None:
    """5,326,716 in the tables of Keras, of which 36,738 are running statistics."""
    with torch.device("meta"):
        model = NASNetMobile()
    assert sum(value.numel() for value in model.parameters()) == 5_326_716 - 36_738
    assert sum(value.numel() for name, value in model.named_buffers() if "running" in name) == 36_738


LARGE = ("depth_anything_v1_l", "depth_anything_v2_l", "metric3d_l")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in LARGE])
def test_signal_survives_random_weights(name: str) -> None:
    network = NETWORKS[name]
    model = network.model(shape=network.small)
    with torch.no_grad():
        found = model(network.images(4, shape=network.small))
    out = found if isinstance(found, torch.Tensor) else found[0]
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
