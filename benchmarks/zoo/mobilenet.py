"""MobileNetV1 (arXiv 1704.04861) and MobileNetV2 (arXiv 1801.04381), width 1.0."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.layers import ConvNorm


class MobileNetV1(nn.Module):
    """A convolution and 13 depthwise-separable blocks with ReLU."""

    BLOCKS = (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1)
    )  # fmt: skip
    """(channels, stride) of each block."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        channels = 32
        for outputs, stride in self.BLOCKS:
            layers += [ConvNorm(channels, channels, 3, stride, groups=channels), ConvNorm(channels, outputs)]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = [] if expand == 1 else [ConvNorm(inputs, hidden, act=nn.ReLU6)]
        layers += [
            ConvNorm(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6),
            ConvNorm(hidden, outputs, act=None),
        ]
        self.body = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, outputs, H / stride, W / stride]."""
        return x + self.body(x) if self.shortcut else self.body(x)


class MobileNetV2(nn.Module):
    """17 inverted residual blocks with ReLU6."""

    STAGES = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip
    """(expansion, channels, blocks, stride of the first block) of each stage."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.ReLU6)]
        channels = 32
        for expand, outputs, blocks, stride in self.STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expand))
                channels = outputs
        layers.append(ConvNorm(channels, 1280, act=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        return self.classifier(self.dropout(self.features(x).mean([2, 3])))
