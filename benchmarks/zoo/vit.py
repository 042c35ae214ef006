"""Vision transformers: ViT-S/16 (arXiv 2010.11929), DeiT-T (2012.12877), and DINOv2's (2304.07193) for depth models.

Parameters carry DINOv2's published names, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.zoo.checkpoint import checked, load


@dataclass(frozen=True)
class Width:
    """Embedding dimension, blocks and heads of a transformer."""

    dim: int
    depth: int
    heads: int


WIDTHS = {
    "nano": Width(48, 4, 3),
    "t": Width(192, 12, 3),
    "s": Width(384, 12, 6),
    "b": Width(768, 12, 12),
    "l": Width(1024, 24, 16),
}
"""By size; "nano" is nobody's, for tests."""


class Attention(nn.Module):
    """Multi-head self-attention with one projection for q, k and v: [B, T, C] to [B, T, C]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention over all tokens."""
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    """Two linear layers around a GELU, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of every token alone."""
        return self.fc2(functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x * gamma."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block; ``scaled`` adds DINOv2's layer scales."""

    def __init__(self, width: Width, scaled: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width.dim, eps=1e-6)
        self.attn = Attention(width.dim, width.heads)
        self.ls1 = LayerScale(width.dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(width.dim, eps=1e-6)
        self.mlp = Mlp(width.dim)
        self.ls2 = LayerScale(width.dim) if scaled else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] to [B, T, C]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches as tokens: a convolution whose stride is its kernel."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] to [B, H/p * W/p, C]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Classifier on the class token."""

    def __init__(self, width: Width, size: int = 224, patch: int = 16, classes: int = 1000) -> None:
        super().__init__()
        tokens = (size // patch) ** 2 + 1
        self.patch_embed = PatchEmbed(patch, width.dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width.dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, width.dim) * 0.02)
        self.blocks = nn.ModuleList(Block(width, scaled=False) for _ in range(width.depth))
        self.norm = nn.LayerNorm(width.dim, eps=1e-6)
        self.head = nn.Linear(width.dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, size, size] to [B, classes]."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])

    @classmethod
    def from_pretrained(
        cls, path: str | Path, name: str = "s", size: int = 224, patch: int = 16, classes: int = 1000
    ) -> ViT:
        """The network with the weights of a published checkpoint; raises InputError naming keys that do not fit."""
        return load(cls(WIDTHS[checked(name, WIDTHS)], size, patch, classes), path)


class Dino(nn.Module):
    """DINOv2: patches of 14, embeddings of 37 x 37 positions interpolated, register tokens behind the class token."""

    def __init__(self, width: Width, registers: int = 0, grid: int = 37) -> None:
        super().__init__()
        self.registers = registers
        self.patch_embed = PatchEmbed(14, width.dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width.dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, grid * grid + 1, width.dim) * 0.02)
        if registers:
            self.register_tokens = nn.Parameter(torch.randn(1, registers, width.dim) * 0.02)
        self.mask_token = nn.Parameter(torch.zeros(1, width.dim))
        self.blocks = nn.ModuleList(Block(width, scaled=True) for _ in range(width.depth))
        self.norm = nn.LayerNorm(width.dim, eps=1e-6)

    def positions(self, height: int, width: int) -> torch.Tensor:
        """Position embeddings of a grid of patches; constant at a fixed size, so folded at compile time."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        patches = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((height + 0.1) / side, (width + 0.1) / side)  # as published: the 0.1 changes the steps
        patches = functional.interpolate(patches, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, x: torch.Tensor, layers: Sequence[int]) -> list[torch.Tensor]:
        """Normalised tokens [B, 1 + registers + patches, C] behind each of ``layers``."""
        height, width = x.shape[-2] // 14, x.shape[-1] // 14
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.positions(height, width)
        if self.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(x.shape[0], -1, -1), x[:, 1:]], 1)
        found: list[torch.Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in layers:
                found.append(self.norm(x))
        return found

    @classmethod
    def from_pretrained(cls, path: str | Path, name: str = "s", registers: int = 0) -> Dino:
        """The encoder with the weights of a published checkpoint; raises InputError naming keys that do not fit."""
        return load(cls(WIDTHS[checked(name, WIDTHS)], registers), path)


def vit_s(size: int = 224) -> ViT:
    """ViT-S/16, the same topology as DeiT-S."""
    return ViT(WIDTHS["s"], size)


def deit_t(size: int = 224) -> ViT:
    """DeiT-T/16."""
    return ViT(WIDTHS["t"], size)


def vit_nano(size: int = 48) -> ViT:
    """Two narrow blocks, for tests."""
    return ViT(replace(WIDTHS["nano"], depth=2), size, classes=10)
