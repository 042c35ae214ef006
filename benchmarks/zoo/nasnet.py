"""NASNet-A (4 @ 1056), the mobile network of arXiv 1707.07012: two searched cells, repeated.

Its cells pad as TensorFlow's "same" does, asymmetrically at stride 2 on even sizes, and its pools leave padding out.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.layers import norm


def pool(kind: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    """3x3 "max" or "avg" pooling of [N, C, H, W] with "same" padding, whose taps do not count."""
    sides = [1 if stride == 1 else size % 2 for size in x.shape[2:]]
    if kind == "max":
        return functional.max_pool2d(x, 3, stride, sides, ceil_mode=True)
    return functional.avg_pool2d(x, 3, stride, sides, ceil_mode=True, count_include_pad=False)


class Separable(nn.Module):
    """Twice: ReLU, a depthwise and a 1x1 convolution, batch norm; the stride is the first one's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = norm(outputs)
        self.again = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel, padding=kernel // 2, groups=outputs, bias=False),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            norm(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        half, sides = self.kernel // 2, list[int]()
        for size in (x.shape[3], x.shape[2]):
            sides += [half - (self.stride == 2 and size % 2 == 0), half]
        x = self.depthwise(functional.pad(functional.relu(x), sides))
        return self.again(self.norm(self.pointwise(x)))


class Squeeze(nn.Sequential):
    """ReLU, a 1x1 convolution and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))


class Halve(nn.Module):
    """ReLU, then the even and the odd pixels through a 1x1 convolution each, side by side, and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, ceil(H / 2), ceil(W / 2)]."""
        x = functional.relu(x)
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))


class Normal(nn.Module):
    """The cell that keeps the size: of the two cells before it, to six times ``filters``."""

    def __init__(self, before: nn.Module, inputs: int, filters: int) -> None:
        super().__init__()
        self.before, self.squeeze = before, Squeeze(inputs, filters)
        self.left = nn.ModuleList(Separable(filters, filters, kernel) for kernel in (5, 5, 3))
        self.right = nn.ModuleList(Separable(filters, filters, kernel) for kernel in (3, 3))

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """``x`` is the last cell's output, ``p`` the one before."""
        p, h = self.before(p), self.squeeze(x)
        averaged = pool("avg", p, 1)
        return torch.cat(
            [
                p,
                self.left[0](h) + self.right[0](p),
                self.left[1](p) + self.right[1](p),
                pool("avg", h, 1) + p,
                averaged + averaged,
                self.left[2](h) + h,
            ],
            1,
        )


class Reduction(nn.Module):
    """The cell that halves the size, to four times ``filters``; ``other`` are the channels behind ``before``."""

    def __init__(self, before: nn.Module, other: int, inputs: int, filters: int) -> None:
        super().__init__()
        self.before, self.squeeze = before, Squeeze(inputs, filters)
        self.first = Separable(filters, filters, 5, 2)
        self.seconds = nn.ModuleList(Separable(other, filters, kernel, 2) for kernel in (7, 7, 5))
        self.last = Separable(filters, filters, 3)

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """``x`` is the last cell's output, ``p`` the one before."""
        p, h = self.before(p), self.squeeze(x)
        a = self.first(h) + self.seconds[0](p)
        largest = pool("max", h, 2)
        b = largest + self.seconds[1](p)
        c = pool("avg", h, 2) + self.seconds[2](p)
        return torch.cat([b, c, b + pool("avg", a, 1), self.last(a) + largest], 1)


class NASNetMobile(nn.Module):
    """Images of 224 x 224: a convolution, two reductions, then three times four normal cells."""

    def __init__(self, classes: int = 1000, filters: int = 44, repeats: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, bias=False), norm(32))
        cells: list[nn.Module] = [
            Reduction(nn.Identity(), 32, 32, filters // 4),
            Reduction(Halve(32, filters // 2), filters // 2, filters, filters // 2),
        ]
        p, x, halved = filters, 2 * filters, True
        for stage in range(3):
            width = filters << stage
            if stage:
                cells.append(Reduction(Squeeze(p, width), width, x, width))
                p, x, halved = x, 4 * width, True
            for _ in range(repeats):
                cells.append(Normal(Halve(p, width) if halved else Squeeze(p, width), x, width))
                p, x, halved = x, 6 * width, False
        self.cells = nn.ModuleList(cells)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(x, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of images [N, 3, H, W]."""
        p = x = self.stem(x)
        for cell in self.cells:
            p, x = x, cell(x, p)
        return self.classifier(torch.flatten(self.pool(self.relu(x)), 1))


def nasnet_nano() -> NASNetMobile:
    """Narrow, and one normal cell in each stage, for tests."""
    return NASNetMobile(10, filters=8, repeats=1)
