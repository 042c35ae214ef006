"""The depth networks, for images of 112 x 112: a small Depth Anything (a ViT with a DPT head), a U-Net, and a small
Metric3D (a ViT with the RAFT-DPT decoder)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from benchmarks.depth.head import metres
from benchmarks.depth.unet import UNet
from benchmarks.zoo.depth_anything import DPTHead
from benchmarks.zoo.metric3d import SMALL, Metric3D
from benchmarks.zoo.vit import Dino, Width

CHECKPOINT = Path(__file__).parent / "checkpoint.pt"
"""Of the first network."""
SIZE = 112
WIDTH = Width(96, 4, 3)


class DepthNet(nn.Module):
    """A ViT of patches of 14 and a DPT head: depth in metres, [B, 1, 112, 112], of images [B, 3, 112, 112]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Dino(WIDTH, grid=SIZE // 14)
        self.head = DPTHead(WIDTH.dim, 32, (24, 48, 64, 96))
        self.head.scratch.output_conv2[3] = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The head's output, bent."""
        tokens = [t[:, 1:] for t in self.encoder(x, (0, 1, 2, 3))]
        return metres(self.head(tokens, SIZE // 14, SIZE // 14))


class RefinedNet(nn.Module):
    """The small Metric3D of ``benchmarks.zoo``: depth in metres, [B, 1, 112, 112], of images [B, 3, 112, 112]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Metric3D(*SMALL)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Depth alone: scenes have no normals to learn."""
        return self.net(x)[0]


NETWORKS: dict[str, type[nn.Module]] = {"vit": DepthNet, "unet": UNet, "metric3d": RefinedNet}
CHECKPOINTS = {"vit": CHECKPOINT, **{name: CHECKPOINT.with_name(f"{name}.pt") for name in ("unet", "metric3d")}}
COMPARED = ("vit", "unet")
"""Those that quantization methods are compared on."""


def trained(name: str = "vit", path: Path | None = None) -> nn.Module:
    """A network of NETWORKS with the weights of the repository's checkpoint or of ``path``, in eval mode."""
    model = NETWORKS[name]()
    state = torch.load(path or CHECKPOINTS[name], map_location="cpu", weights_only=True)
    model.load_state_dict({key: value.to(model.state_dict()[key].dtype) for key, value in state.items()})
    return model.eval()
