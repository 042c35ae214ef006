"""Small networks, one per thing that can go wrong."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.layers import ConvNorm


class Plain(nn.Sequential):
    """Two convolutions and a linear layer; images [N, 3, 12, 12]."""

    def __init__(self) -> None:
        super().__init__(ConvNorm(3, 8, 3), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 5 * 5, 10))


class Odd(nn.Module):
    """Prime channel counts, stride beyond kernel, asymmetric padding, dilation, groups; [N, 5, 13, 11]."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Conv2d(5, 7, 1, 3)
        self.wide = nn.Conv2d(7, 13, (3, 2), padding=(1, 1), dilation=(1, 2))
        self.grouped = nn.Conv2d(13, 26, 3, groups=13, padding=2)
        self.last = nn.Conv2d(26, 17, (1, 3), stride=(2, 1), groups=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [N, 17, H', W']."""
        x = functional.relu(self.skip(functional.pad(x, (0, 1, 2, 0))))
        x = functional.hardswish(self.wide(x))
        return self.last(functional.hardtanh(self.grouped(x), -1.5, 2.5))


class OnePixel(nn.Module):
    """Images of one pixel, [N, 11, 1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(11, 19, 1)
        self.second = nn.Conv2d(19, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [N, 5, 1, 1]."""
        return self.second(functional.relu(self.first(x)))


class Gates(nn.Module):
    """Squeeze and excitation with sigmoid, multiplication and hardswish; images [N, 3, 10, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.reduce = nn.Conv2d(24, 6, 1)
        self.expand = nn.Conv2d(6, 24, 1)
        self.head = nn.Conv2d(24, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [N, 8, 5, 5]."""
        x = self.stem(x)
        gate = torch.sigmoid(self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate)


class Pools(nn.Module):
    """Every pooling, mean, permute and reshape; images [N, 4, 14, 14]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 12, 3, padding=1)
        self.second = nn.Conv2d(24, 12, 1)
        self.linear = nn.Linear(12, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens [N, 7, 9]."""
        x = functional.relu(self.first(x))
        x = torch.cat([functional.max_pool2d(x, 2), functional.avg_pool2d(x, 3, 2, 1)], 1)
        x = self.second(x)
        x = functional.adaptive_avg_pool2d(x, (7, 1)).flatten(2).permute(0, 2, 1)
        return self.linear(x)


class Products(nn.Module):
    """A matrix product of two activations; rows [N, 6, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(16, 20)
        self.right = nn.Linear(16, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores [N, 6, 6]."""
        return torch.matmul(self.left(x), self.right(x).transpose(1, 2))
