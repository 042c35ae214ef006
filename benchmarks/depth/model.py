"""A small Depth Anything: a ViT encoder of patches of 14 and a DPT head, for images of 112 x 112."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.depth_anything import DPTHead
from benchmarks.zoo.vit import Dino, Width

CHECKPOINT = Path(__file__).parent / "checkpoint.pt"
SIZE = 112
WIDTH = Width(96, 4, 3)
NEAREST, FARTHEST = 1.0, 12.0


class DepthNet(nn.Module):
    """Depth in metres, [B, 1, 112, 112], of images [B, 3, 112, 112]: the head's output is bent between 1 and 12 m."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Dino(WIDTH, grid=SIZE // 14)
        self.head = DPTHead(WIDTH.dim, 32, (24, 48, 64, 96))
        self.head.scratch.output_conv2[3] = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inverse depth is a sigmoid, so near and far both stay in range."""
        tokens = [t[:, 1:] for t in self.encoder(x, (0, 1, 2, 3))]
        y = functional.sigmoid(self.head(tokens, SIZE // 14, SIZE // 14))
        return 1.0 / (y * (1.0 / NEAREST - 1.0 / FARTHEST) + 1.0 / FARTHEST)


def trained(path: Path = CHECKPOINT) -> DepthNet:
    """The network with the weights of the repository's checkpoint, in eval mode."""
    model = DepthNet()
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.eval()
