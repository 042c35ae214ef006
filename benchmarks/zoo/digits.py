"""A small depthwise-separable CNN for the 8 x 8 handwritten digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from benchmarks.zoo.layers import ConvNorm

CHECKPOINT = Path(__file__).parent / "digits.pt"


class DigitsNet(nn.Module):
    """Depthwise-separable blocks, one residual and one concatenation; images [N, 1, 8, 8] in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16, 3)
        self.block1 = nn.Sequential(ConvNorm(16, 16, 3, groups=16), ConvNorm(16, 32))
        self.block2 = nn.Sequential(ConvNorm(32, 32, 3, groups=32), ConvNorm(32, 32, act=None))
        self.relu = nn.ReLU()
        self.down = nn.Sequential(ConvNorm(32, 32, 3, 2, groups=32), ConvNorm(32, 48, act=nn.ReLU6))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(ConvNorm(80, 80, 3, groups=80), ConvNorm(80, 64))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10]."""
        x = self.block1(self.stem(x))
        x = self.relu(x + self.block2(x))
        x = self.head(torch.cat([self.down(x), self.pool(x)], 1))
        return self.classifier(self.dropout(torch.flatten(self.average(x), 1)))


def trained() -> DigitsNet:
    """The network as ``benchmarks/digits.py`` trained it, in eval mode."""
    model = DigitsNet()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return model.eval()
