"""Metric3D v2 (arXiv 2404.15506): DINOv2 with registers and the recurrent decoder of ``raft_dpt``.

Images whose sides are not multiples of 14 are resized to the next one by the network itself (256 is seen as 266: a
grid of 19 patches a side); results have four times the decoder's 3.5 pixels a patch, rounded down (264 for 256).
Published code also enlarges the estimate of every iteration, for training; here only the last one is, which saves 1.4
to 1.9 % of MACs.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.checkpoint import checked, load
from benchmarks.zoo.raft_dpt import DECODERS, DecoderWidth, RaftDpt
from benchmarks.zoo.vit import WIDTHS, Dino, Width

PATCH = 14
SMALL = Width(32, 2, 2), DecoderWidth((16, 24), (16, 24, 32), 16, 2, bins=32, normals=16)
"""Encoder and decoder of two narrow blocks and two iterations."""


class Metric3D(nn.Module):
    """Metric depth in the canonical camera, its confidence, and surface normals of images [B, 3, H, W]."""

    def __init__(self, encoder: Width, decoder: DecoderWidth, registers: int = 4) -> None:
        super().__init__()
        self.last = encoder.depth - 1
        self.encoder = Dino(encoder, registers)
        self.decoder = RaftDpt(encoder.dim, decoder, registers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, 3, H, W] to depth [B, 1, h, w] in metres, confidence [B, 1, h, w], normals and kappa [B, 4, h, w]."""
        height, width = (-(-side // PATCH) for side in x.shape[-2:])
        if x.shape[-2:] != (PATCH * height, PATCH * width):
            x = functional.interpolate(x, (PATCH * height, PATCH * width), mode="bilinear")
        (tokens,) = self.encoder(x, [self.last])
        return self.decoder(tokens, height, width)

    @classmethod
    def from_pretrained(cls, path: str | Path, name: str = "s") -> Metric3D:
        """The network with the weights of a published checkpoint; raises InputError naming keys that do not fit."""
        return cls(WIDTHS[checked(name, DECODERS)], DECODERS[name]).load_published(path)

    def load_published(self, path: str | Path) -> Metric3D:
        """Itself, in eval mode, with the weights of a checkpoint, whose blocks lie in one chunk.

        The mask token only serves training and may be absent. Raises InputError.
        """
        return load(self, path, _published, {"encoder.mask_token": self.encoder.mask_token})


def _published(name: str) -> str:
    """A parameter's name without its wrappers and the number of the chunk before that of the block."""
    name = name.removeprefix("module.").removeprefix("depth_model.")
    return re.sub(r"^encoder\.blocks\.0\.(\d+\.)", r"encoder.blocks.\1", name)


def randomised(model: Metric3D) -> Metric3D:
    """``model`` in eval mode with random weights that keep variances: depths are neither all equal nor clamped."""
    for layer in model.decoder.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0.0, 0.05)
    return model.eval()


def metric3d(name: str = "s") -> Metric3D:
    """Metric3D v2 ``s`` or ``l`` with random weights, in eval mode."""
    return randomised(Metric3D(WIDTHS[name], DECODERS[name]))


def metric3d_small() -> Metric3D:
    """The same classes, ``SMALL``, for tests."""
    return randomised(Metric3D(*SMALL))
