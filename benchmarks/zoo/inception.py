"""Inception-v3 (arXiv 1512.00567), without the auxiliary classifier, which inference does not use."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.layers import ConvNorm


class Branches(nn.Module):
    """Several paths from the same input, concatenated along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the concatenation of what every branch gives."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class PoolNorm(nn.Module):
    """3x3 average pooling, then a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H, W]."""
        return self.conv(functional.avg_pool2d(x, 3, 1, 1))


def block_a(inputs: int, pooled: int) -> Branches:
    """35x35 block: 1x1, 5x5, two 3x3, pool."""
    return Branches(
        ConvNorm(inputs, 64),
        nn.Sequential(ConvNorm(inputs, 48), ConvNorm(48, 64, 5)),
        nn.Sequential(ConvNorm(inputs, 64), ConvNorm(64, 96, 3), ConvNorm(96, 96, 3)),
        PoolNorm(inputs, pooled),
    )


def block_b(inputs: int) -> Branches:
    """35x35 to 17x17."""
    return Branches(
        ConvNorm(inputs, 384, 3, 2, 0),
        nn.Sequential(ConvNorm(inputs, 64), ConvNorm(64, 96, 3), ConvNorm(96, 96, 3, 2, 0)),
        nn.MaxPool2d(3, 2),
    )


def block_c(width: int) -> Branches:
    """17x17 block of 1x7 and 7x1 convolutions."""
    return Branches(
        ConvNorm(768, 192),
        nn.Sequential(ConvNorm(768, width), ConvNorm(width, width, (1, 7)), ConvNorm(width, 192, (7, 1))),
        nn.Sequential(
            ConvNorm(768, width),
            ConvNorm(width, width, (7, 1)),
            ConvNorm(width, width, (1, 7)),
            ConvNorm(width, width, (7, 1)),
            ConvNorm(width, 192, (1, 7)),
        ),
        PoolNorm(768, 192),
    )


def block_d() -> Branches:
    """17x17 to 8x8."""
    return Branches(
        nn.Sequential(ConvNorm(768, 192), ConvNorm(192, 320, 3, 2, 0)),
        nn.Sequential(
            ConvNorm(768, 192),
            ConvNorm(192, 192, (1, 7)),
            ConvNorm(192, 192, (7, 1)),
            ConvNorm(192, 192, 3, 2, 0),
        ),
        nn.MaxPool2d(3, 2),
    )


def block_e(inputs: int) -> Branches:
    """8x8 block whose 3x3 paths split into 1x3 and 3x1."""

    def split(channels: int) -> Branches:
        return Branches(ConvNorm(channels, 384, (1, 3)), ConvNorm(channels, 384, (3, 1)))

    return Branches(
        ConvNorm(inputs, 320),
        nn.Sequential(ConvNorm(inputs, 384), split(384)),
        nn.Sequential(ConvNorm(inputs, 448), ConvNorm(448, 384, 3), split(384)),
        PoolNorm(inputs, 192),
    )


class InceptionV3(nn.Module):
    """Images of 299 x 299; at least 75 x 75."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(3, 32, 3, 2, 0),
            ConvNorm(32, 32, 3, padding=0),
            ConvNorm(32, 64, 3),
            nn.MaxPool2d(3, 2),
            ConvNorm(64, 80),
            ConvNorm(80, 192, 3, padding=0),
            nn.MaxPool2d(3, 2),
        )
        self.blocks = nn.Sequential(
            block_a(192, 32), block_a(256, 64), block_a(288, 64), block_b(288),
            block_c(128), block_c(160), block_c(160), block_c(192), block_d(),
            block_e(1280), block_e(2048),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(2048, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        x = self.pool(self.blocks(self.stem(x)))
        return self.classifier(torch.flatten(self.dropout(x), 1))
