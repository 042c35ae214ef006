"""Small networks with what reconstruction meets: blocks, depthwise and transposed convolutions, tied weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

from quantizer import Recipe, calibrate, prepare
from quantizer.reconstruct.options import Compensate, Round

Batch = tuple[torch.Tensor]


class Residual(nn.Module):
    """x + conv(relu(depthwise(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pointwise(functional.relu(self.depthwise(x)))


class Network(nn.Module):
    """Images [1, 3, 8, 8] to maps [1, 2, 8, 8]: a stem, blocks, a linear layer on channels, and up again."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.blocks = nn.Sequential(*(Residual(8) for _ in range(depth)))
        self.mix = nn.Linear(8, 8)
        self.up = nn.ConvTranspose2d(8, 2, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(self.stem(x))
        return self.up(self.mix(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def network(depth: int = 2) -> Network:
    torch.manual_seed(0)
    return Network(depth).eval()


def images(count: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, 8, 8, generator=generator),) for _ in range(count)]


def recipe(how: Round | None = None, compensate: bool = False, base: str = "w4a4") -> Recipe:
    return replace(Recipe.load(base), round=how, compensate=Compensate() if compensate else None)


def calibrated(how: Recipe, depth: int = 2) -> GraphModule:
    return calibrate(prepare(network(depth), images()[0], how), images())
