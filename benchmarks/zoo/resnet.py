"""ResNet-18, -50 and -152 (arXiv 1512.03385); bottlenecks as v1.5, their stride in the 3x3 convolution."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.zoo.layers import ConvNorm


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``; the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return self.relu(self.body(x) + self.shortcut(x))


def basic(inputs: int, width: int, stride: int) -> tuple[int, nn.Module]:
    """Two 3x3 convolutions; output channels and the block."""
    body = nn.Sequential(ConvNorm(inputs, width, 3, stride), ConvNorm(width, width, 3, act=None))
    return width, Residual(inputs, width, stride, body)


def bottleneck(inputs: int, width: int, stride: int) -> tuple[int, nn.Module]:
    """1x1, 3x3, 1x1 to four times the width; output channels and the block."""
    body = nn.Sequential(
        ConvNorm(inputs, width), ConvNorm(width, width, 3, stride), ConvNorm(width, 4 * width, act=None)
    )
    return 4 * width, Residual(inputs, 4 * width, stride, body)


class ResNet(nn.Module):
    """A 7x7 stem, four stages of residual blocks, global average pooling and a linear layer."""

    def __init__(self, blocks: tuple[int, int, int, int], deep: bool, classes: int = 1000) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        block = bottleneck if deep else basic
        channels = 64
        stages: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for index in range(count):
                channels, layer = block(channels, 64 << stage, 2 if stage and not index else 1)
                layers.append(layer)
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        x = self.stages(self.pool(self.stem(x)))
        return self.classifier(torch.flatten(self.average(x), 1))


def resnet18() -> ResNet:
    """ResNet-18."""
    return ResNet((2, 2, 2, 2), deep=False)


def resnet50() -> ResNet:
    """ResNet-50 v1.5."""
    return ResNet((3, 4, 6, 3), deep=True)


def resnet152() -> ResNet:
    """ResNet-152 v1.5."""
    return ResNet((3, 8, 36, 3), deep=True)
