"""A convolutional encoder-decoder after U-Net (arXiv 1505.04597), with strided convolutions and batch norms."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.depth.head import metres
from benchmarks.zoo.layers import ConvNorm

CHANNELS = (24, 48, 96, 128)
"""At a half, a quarter, an eighth and a sixteenth of the image's side."""


class Up(nn.Module):
    """Resize to the finer level, which it concatenates and mixes."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.mix = ConvNorm(coarse + fine, fine, 3)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """[B, coarse, H, W] and [B, fine, 2H, 2W] to [B, fine, 2H, 2W]."""
        x = functional.interpolate(x, (level.shape[-2], level.shape[-1]), mode="bilinear", align_corners=False)
        return self.mix(torch.cat([x, level], 1))


class UNet(nn.Module):
    """Depth in metres, [B, 1, H, W], of images [B, 3, H, W], whose sides are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *CHANNELS[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(ConvNorm(i, o, 3, 2), ConvNorm(o, o, 3)) for i, o in zip(inputs, CHANNELS, strict=True)
        )
        pairs = zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True)
        self.decoder = nn.ModuleList(Up(coarse, fine) for coarse, fine in pairs)
        self.out = nn.Conv2d(CHANNELS[0], 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The finest level is at half the side: its one channel is resized last."""
        levels: list[torch.Tensor] = []
        y = x
        for stage in self.encoder:
            y = stage(y)
            levels.append(y)
        for stage, level in zip(self.decoder, levels[-2::-1], strict=True):
            y = stage(y, level)
        y = functional.interpolate(self.out(y), (x.shape[-2], x.shape[-1]), mode="bilinear", align_corners=False)
        return metres(y)
