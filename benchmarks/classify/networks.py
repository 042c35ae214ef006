"""Two small networks with batch norms: depthwise-separable as MobileNet v1 (arXiv 1704.04861), and residual."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.zoo.layers import ConvNorm

Activation = Callable[[], nn.Module]
CLASSES = 10


def _of(width: float, channels: int) -> int:
    return max(8, round(width * channels / 8) * 8)


class Separable(nn.Sequential):
    """Logits [N, 10] of images [N, 3, 32, 32], whose side the stem and two blocks halve."""

    BLOCKS = ((24, 2), (48, 1), (48, 1), (96, 2), (96, 1))

    def __init__(self, width: float = 1.0, act: Activation = nn.ReLU) -> None:
        wide = _of(width, 16)
        layers: list[nn.Module] = [ConvNorm(3, wide, 3, 2, act=act)]
        for out, step in self.BLOCKS:
            layers += [ConvNorm(wide, wide, 3, step, groups=wide, act=act), ConvNorm(wide, _of(width, out), act=act)]
            wide = _of(width, out)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, CLASSES))


class Block(nn.Module):
    """Two convolutions of 3 x 3 and what goes around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride, act=act)
        self.second = ConvNorm(outputs, outputs, 3, act=None)
        same = inputs == outputs and stride == 1
        self.around = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, outputs, s / stride, s / stride]."""
        return self.act(self.second(self.first(x)) + self.around(x))


class Residual(nn.Sequential):
    """Logits [N, 10] of images [N, 3, 32, 32]."""

    BLOCKS = ((24, 2), (24, 1), (48, 2))

    def __init__(self, width: float = 1.0, act: Activation = nn.ReLU) -> None:
        wide = _of(width, 16)
        layers: list[nn.Module] = [ConvNorm(3, wide, 3, 2, act=act)]
        for out, step in self.BLOCKS:
            layers.append(Block(wide, _of(width, out), step, act))
            wide = _of(width, out)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, CLASSES))


NETWORKS = {"separable": Separable, "residual": Residual}
