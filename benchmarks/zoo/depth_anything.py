"""Depth Anything V2 (arXiv 2406.09414) and V1 (2401.10891), which share a topology: DINOv2 and a DPT head (2103.13413).

Parameters carry the published names: ``from_pretrained`` loads a published checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.checkpoint import checked, load
from benchmarks.zoo.vit import WIDTHS, Dino

FEATURES = {"nano": 16, "s": 64, "b": 128, "l": 256}
CHANNELS = {
    "nano": (12, 16, 24, 32),
    "s": (48, 96, 192, 384),
    "b": (96, 192, 384, 768),
    "l": (256, 512, 1024, 1024),
}
LAYERS = {
    2: {"nano": (0, 1, 2, 3), "s": (2, 5, 8, 11), "b": (2, 5, 8, 11), "l": (4, 11, 17, 23)},
    1: {"s": (8, 9, 10, 11), "b": (8, 9, 10, 11), "l": (20, 21, 22, 23)},
}
"""Encoder blocks that the head reads, by version: V1 takes the last four."""


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, F, H, W] to [B, F, H, W]."""
        return self.conv2(functional.relu(self.conv1(functional.relu(x)))) + x


class FeatureFusion(nn.Module):
    """Add a level to the coarser ones, refine, and resize to the next level."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: torch.Tensor, level: torch.Tensor | None, size: Sequence[int]) -> torch.Tensor:
        """[B, F, H, W] to [B, F, *size]."""
        if level is not None:
            x = x + self.resConfUnit1(level)
        x = self.resConfUnit2(x)
        x = functional.interpolate(x, (size[0], size[1]), mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Scratch(nn.Module):
    """The decoder: a 3x3 convolution per level, four fusions, the output convolutions."""

    refinenet1: FeatureFusion
    refinenet2: FeatureFusion
    refinenet3: FeatureFusion
    refinenet4: FeatureFusion

    def __init__(self, channels: Sequence[int], features: int) -> None:
        super().__init__()
        for i, c in enumerate(channels, 1):
            setattr(self, f"layer{i}_rn", nn.Conv2d(c, features, 3, padding=1, bias=False))
        for i in range(1, 5):
            setattr(self, f"refinenet{i}", FeatureFusion(features))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU(), nn.Identity()
        )


class DPTHead(nn.Module):
    """Four levels of tokens as images of 1/3.5, 1/7, 1/14 and 1/28 of the size, fused from coarse to fine."""

    def __init__(self, dim: int, features: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, 4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, 2, 1),
            ]
        )
        self.scratch = Scratch(channels, features)

    def forward(self, tokens: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
        """Patch tokens [B, T, C] of four levels to depth [B, 1, 14*height, 14*width]."""
        levels: list[torch.Tensor] = []
        for x, project, resize in zip(tokens, self.projects, self.resize_layers, strict=True):
            image = x.permute(0, 2, 1).reshape(x.shape[0], x.shape[-1], height, width)
            levels.append(resize(project(image)))
        s = self.scratch
        a, b, c, d = (getattr(s, f"layer{i}_rn")(level) for i, level in enumerate(levels, 1))
        path = s.refinenet4(d, None, c.shape[2:])
        path = s.refinenet3(path, c, b.shape[2:])
        path = s.refinenet2(path, b, a.shape[2:])
        path = s.refinenet1(path, a, (2 * a.shape[2], 2 * a.shape[3]))
        path = s.output_conv1(path)
        path = functional.interpolate(path, (14 * height, 14 * width), mode="bilinear", align_corners=True)
        return s.output_conv2(path)


class DepthAnything(nn.Module):
    """Relative inverse depth [B, H, W] of images [B, 3, H, W], sides multiples of 14."""

    def __init__(self, name: str = "s", version: int = 2) -> None:
        super().__init__()
        self.layers = LAYERS[version][name]
        self.pretrained = Dino(WIDTHS[name])
        self.depth_head = DPTHead(WIDTHS[name].dim, FEATURES[name], CHANNELS[name])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] to [B, H, W]."""
        height, width = x.shape[-2] // 14, x.shape[-1] // 14
        levels = [tokens[:, 1:] for tokens in self.pretrained(x, self.layers)]
        return functional.relu(self.depth_head(levels, height, width)).squeeze(1)

    @classmethod
    def from_pretrained(cls, path: str | Path, name: str = "s", version: int = 2) -> DepthAnything:
        """The network with the weights of a published checkpoint; raises InputError naming keys that do not fit."""
        return load(cls(checked(name, LAYERS[checked(version, LAYERS, "version")]), version), path)


def depth_anything(name: str = "s", version: int = 2) -> DepthAnything:
    """Depth Anything with random weights, in eval mode.

    The decoder keeps variances and ends in positive weights, so that depths vary.
    """
    model = DepthAnything(name, version)
    for layer in model.depth_head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.05)
    last = model.depth_head.scratch.output_conv2[2]  # reads what a ReLU gave
    assert isinstance(last, nn.Conv2d)
    last.weight.data.abs_()
    return model.eval()
