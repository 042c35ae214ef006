"""The networks that Quartic is measured on, by name, with random weights or (digits) trained ones.

``NETWORKS[name].model()`` builds one; torch is imported only then, so that listing the names costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Network:
    """Where a network is defined, and the images [C, H, W] (or rows) that it takes.

    ``small`` is a reduced resolution at which it still runs, for fast tests. ``arguments`` are the factory's; ``sized``
    ones also take the side of the image. Those with ``weights`` set them themselves.
    """

    name: str
    factory: str
    shape: tuple[int, ...]
    small: tuple[int, ...]
    arguments: tuple[Any, ...] = ()
    sized: bool = False
    weights: bool = False

    def model(self, seed: int = 0, shape: tuple[int, ...] | None = None) -> nn.Module:
        """The network in eval mode; random weights with statistics of ``shape`` (digits: trained)."""
        import torch

        from benchmarks.zoo.layers import randomise

        shape = shape or self.shape
        module, _, attribute = self.factory.partition(":")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            factory = getattr(import_module(module), attribute)
            model = factory(*self.arguments, **({"size": shape[-1]} if self.sized else {}))
        return model.eval() if self.weights else randomise(model, (4, *shape), seed)

    def images(self, batch: int = 1, seed: int = 0, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Random inputs [batch, *shape]."""
        import torch

        return torch.randn(batch, *(shape or self.shape), generator=torch.Generator().manual_seed(seed))


def _depth_anything(size: str, version: int, shape: tuple[int, ...] = (3, 518, 518)) -> Network:
    name, factory = f"depth_anything_v{version}_{size}", "benchmarks.zoo.depth_anything:depth_anything"
    return Network(name, factory, shape, (3, 28, 42), (size, version), weights=True)


def _metric3d(size: str) -> Network:
    factory = "benchmarks.zoo.metric3d:metric3d"
    return Network(f"metric3d_{size}", factory, (3, 512, 512), (3, 28, 42), (size,), weights=True)


def _rows() -> tuple[Network, ...]:
    zoo = "benchmarks.zoo"
    image = (3, 224, 224)
    return (
        Network("digits", f"{zoo}.digits:trained", (1, 8, 8), (1, 8, 8), weights=True),
        Network("mobilenet_v1", f"{zoo}.mobilenet:MobileNetV1", image, (3, 64, 64)),
        Network("mobilenet_v2", f"{zoo}.mobilenet:MobileNetV2", image, (3, 64, 64)),
        Network("resnet18", f"{zoo}.resnet:resnet18", image, (3, 64, 64)),
        Network("resnet50", f"{zoo}.resnet:resnet50", image, (3, 64, 64)),
        Network("resnet152", f"{zoo}.resnet:resnet152", image, (3, 64, 64)),
        Network("resnet50_v2", f"{zoo}.resnet_v2:resnet50_v2", image, (3, 64, 64)),
        Network("resnet152_v2", f"{zoo}.resnet_v2:resnet152_v2", image, (3, 64, 64)),
        Network("nasnet_mobile", f"{zoo}.nasnet:NASNetMobile", image, (3, 64, 64)),
        Network("inception_v3", f"{zoo}.inception:InceptionV3", (3, 299, 299), (3, 75, 75)),
        Network("deit_t", f"{zoo}.vit:deit_t", image, (3, 48, 48), sized=True),
        Network("vit_s", f"{zoo}.vit:vit_s", image, (3, 48, 48), sized=True),
        *(_depth_anything(size, version) for size in "sl" for version in (1, 2)),
        *map(_metric3d, "sl"),
        Network("resnet_v2_nano", f"{zoo}.resnet_v2:resnet_v2_nano", (3, 64, 64), (3, 64, 64)),
        Network("nasnet_nano", f"{zoo}.nasnet:nasnet_nano", (3, 64, 64), (3, 64, 64)),
        Network("vit_nano", f"{zoo}.vit:vit_nano", (3, 48, 48), (3, 48, 48), sized=True),
        _depth_anything("nano", 2, (3, 42, 56)),
        Network("metric3d_nano", f"{zoo}.metric3d:metric3d_small", (3, 42, 56), (3, 42, 56), weights=True),
        Network("plain", f"{zoo}.toys:Plain", (3, 12, 12), (3, 12, 12)),
        Network("odd", f"{zoo}.toys:Odd", (5, 13, 11), (5, 13, 11)),
        Network("one_pixel", f"{zoo}.toys:OnePixel", (11, 1, 1), (11, 1, 1)),
        Network("gates", f"{zoo}.toys:Gates", (3, 10, 10), (3, 10, 10)),
        Network("pools", f"{zoo}.toys:Pools", (4, 14, 14), (4, 14, 14)),
        Network("products", f"{zoo}.toys:Products", (6, 16), (6, 16)),
    )


NETWORKS: dict[str, Network] = {row.name: row for row in _rows()}
