"""ResNet-50 and -152 v2 (arXiv 1603.05027): batch norm and ReLU stand in front of the convolutions.

Details are those of the networks that arXiv 1806.08342 quantizes: a stage's stride is in its last block, and
convolutions that no batch norm follows have a bias.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.layers import ConvNorm, norm


class PreActivation(nn.Module):
    """``body(relu(norm(x))) + shortcut``: x, every other pixel of it, or a projection of the activated x."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = norm(inputs)
        self.shortcut = nn.Conv2d(inputs, 4 * width, 1, stride) if inputs != 4 * width else None
        self.body = nn.Sequential(
            ConvNorm(inputs, width), ConvNorm(width, width, 3, stride), nn.Conv2d(width, 4 * width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, 4 * width, H / stride, W / stride]."""
        y = functional.relu(self.norm(x))
        shortcut = self.shortcut(y) if self.shortcut is not None else x[:, :, :: self.stride, :: self.stride]
        return self.body(y) + shortcut


class ResNetV2(nn.Module):
    """A 7x7 stem, four stages of pre-activation bottlenecks, batch norm, ReLU, average and a linear layer."""

    def __init__(self, blocks: tuple[int, int, int, int], classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        layers: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if index == count - 1 and stage < 3 else 1
                layers.append(PreActivation(channels, 64 << stage, stride))
                channels = 256 << stage
        self.blocks = nn.Sequential(*layers)
        self.norm = norm(channels)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        x = self.blocks(self.pool(self.stem(x)))
        return self.classifier(torch.flatten(self.average(functional.relu(self.norm(x))), 1))


def resnet50_v2() -> ResNetV2:
    """ResNet-50 v2."""
    return ResNetV2((3, 4, 6, 3))


def resnet152_v2() -> ResNetV2:
    """ResNet-152 v2."""
    return ResNetV2((3, 8, 36, 3))


def resnet_v2_nano() -> ResNetV2:
    """Two blocks in the first stage and one in the others, for tests."""
    return ResNetV2((2, 1, 1, 1), classes=10)
