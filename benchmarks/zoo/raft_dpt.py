"""The decoder of Metric3D v2 (arXiv 2404.15506): tokens as images, a DPT trunk, and recurrent refinement.

The trunk predicts depth (an expectation over logarithmic bins) and normals at a quarter of the size; gated recurrent
units at 1/4, 1/7 and 1/14, driven by context features, then correct both a fixed number of times, and a learned convex
combination of neighbours enlarges the result by four. Parameters carry the published names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

NEAREST, FARTHEST, UNIT = 0.1, 1000.0, 100.0
"""Depth range in metres of the canonical camera, and the metres of one unit that the recurrent units see."""
FACTOR = 4
"""How much the convex combination enlarges."""


@dataclass(frozen=True)
class DecoderWidth:
    """Channels of a decoder, and how often it refines."""

    features: tuple[int, int]
    """Of the token images at 1/4 and 1/7; those at 1/14 keep the encoder's."""
    trunk: tuple[int, int, int]
    """Of the trunk's results at 1/4 (without two confidences), 1/7 and 1/14."""
    hidden: int
    iterations: int
    bins: int = 256
    normals: int = 128


DECODERS = {
    "s": DecoderWidth((96, 192), (96, 192, 384), 48, 4),
    "l": DecoderWidth((256, 512), (256, 512, 1024), 128, 8),
}


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with padding 1."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


class Readout(nn.Module):
    """Patch tokens with what the class and register tokens, seen as one vector, say to all of them."""

    def __init__(self, dim: int, learned: int) -> None:
        super().__init__()
        self.project_patch = nn.Linear(dim, dim)
        self.project_learn = nn.Linear(learned * dim, dim, bias=False)

    def forward(self, patches: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        """[B, H, W, C] and [B, 1, 1, learned * C] to [B, H, W, C]."""
        return functional.gelu(self.project_patch(patches) + self.project_learn(learned))


class TokenImage(nn.Module):
    """Tokens as an image of 1, 2 or 3.5 pixels a patch."""

    def __init__(self, dim: int, outputs: int, learned: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.readoper = Readout(dim, learned)
        if factor == 1:
            self.sample = nn.Identity()
        elif factor == int(factor):
            self.sample = nn.ConvTranspose2d(dim, outputs, int(factor), int(factor))
        else:
            self.sample = nn.Sequential(nn.Conv2d(dim, outputs, 1))

    def forward(self, patches: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        """[B, H, W, C] and [B, 1, 1, learned * C] to [B, outputs, factor * H, factor * W], rounded down."""
        x = self.readoper(patches, learned).permute(0, 3, 1, 2)
        if self.factor != int(self.factor):
            x = functional.interpolate(x, scale_factor=self.factor, mode="nearest")
        return self.sample(x)


class TokenImages(nn.Module):
    """The same tokens read four times."""

    def __init__(self, dim: int, width: DecoderWidth, learned: int) -> None:
        super().__init__()
        self.read_3 = TokenImage(dim, dim, learned, 1)
        self.read_2 = TokenImage(dim, dim, learned, 1)
        self.read_1 = TokenImage(dim, width.features[1], learned, 2)
        self.read_0 = TokenImage(dim, width.features[0], learned, 3.5)

    def forward(self, patches: torch.Tensor, learned: torch.Tensor) -> list[torch.Tensor]:
        """Images at 1/14, 1/14, 1/7 and 1/4."""
        return [read(patches, learned) for read in (self.read_3, self.read_2, self.read_1, self.read_0)]


class ConvBlock(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class FuseBlock(nn.Module):
    """Add a level to the coarser ones, refine, enlarge by ``factor``, and project."""

    def __init__(self, inputs: int, outputs: int, fuse: bool = True, factor: float = 1) -> None:
        super().__init__()
        self.factor = factor
        self.way_trunk = ConvBlock(inputs)
        if fuse:
            self.way_branch = ConvBlock(inputs)
        self.out_conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, level: torch.Tensor | None = None) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, factor * H, factor * W], rounded down."""
        if level is not None:
            x = x + self.way_branch(level)
        x = self.way_trunk(x)
        if self.factor != 1:
            x = functional.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Trunk(nn.Module):
    """From 1/14 over 1/7 to 1/4."""

    def __init__(self, dim: int, trunk: tuple[int, int, int]) -> None:
        super().__init__()
        self.upconv_3 = FuseBlock(dim, trunk[2], fuse=False)
        self.upconv_2 = FuseBlock(trunk[2], trunk[1], factor=2)
        self.upconv_1 = FuseBlock(trunk[1], trunk[0] + 2, factor=7 / 4)

    def forward(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Images at 1/14, 1/14, 1/7 and (not read) 1/4 to [B, trunk[0] + 2, H/4, W/4]."""
        x = self.upconv_2(self.upconv_3(images[0]), images[1])
        return self.upconv_1(x, images[2])


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an image."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions with norms beside a projection where channels differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv3(inputs, outputs)
        self.conv2 = conv3(outputs, outputs)
        self.norm1 = ChannelNorm(outputs)
        self.norm2 = ChannelNorm(outputs)
        if inputs != outputs:
            self.norm3 = ChannelNorm(outputs)  # published under this name too
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1), self.norm3)
        else:
            self.downsample = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, H, W]."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.downsample(x) + y)


class ContextEncoder(nn.Module):
    """Of each level, the start of the hidden state and the context features, in that order."""

    def __init__(self, inputs: Sequence[int], hidden: int) -> None:
        super().__init__()
        levels = [
            nn.ModuleList(nn.Sequential(ResidualBlock(n, hidden), conv3(hidden, hidden)) for _ in range(2))
            for n in inputs
        ]
        self.outputs04, self.outputs08, self.outputs16 = levels

    def forward(self, images: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Images at 1/4, 1/7 and 1/14 to two tensors of ``hidden`` channels each."""
        levels = (self.outputs04, self.outputs08, self.outputs16)
        return [[make(x) for make in level] for x, level in zip(images, levels, strict=True)]


class ConvGRU(nn.Module):
    """A gated recurrent unit of 3x3 convolutions; the part of the gates that stays is computed once, outside."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz = conv3(hidden + inputs, hidden)
        self.convr = conv3(hidden + inputs, hidden)
        self.convq = conv3(hidden + inputs, hidden)

    def forward(self, h: torch.Tensor, gates: Sequence[torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """The new hidden state; ``gates`` are added to what z, r and q see."""
        x = torch.cat(inputs, 1)
        hx = torch.cat([h, x], 1)
        z = torch.sigmoid(self.convz(hx) + gates[0])
        r = torch.sigmoid(self.convr(hx) + gates[1])
        q = torch.tanh(self.convq(torch.cat([r * h, x], 1)) + gates[2])
        return (1 - z) * h + z * q


class FlowHead(nn.Module):
    """Corrections of depth and its confidence, and of the normal and its."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv1d = conv3(hidden, hidden)
        self.conv2d = conv3(hidden, 2)
        self.conv1n = conv3(hidden, hidden)
        self.conv2n = conv3(hidden, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, hidden, H, W] to [B, 6, H, W]."""
        depth = self.conv2d(functional.relu(self.conv1d(x)))
        return torch.cat([depth, self.conv2n(functional.relu(self.conv1n(x)))], 1)


def halve(x: torch.Tensor) -> torch.Tensor:
    """Averages of 3x3 at every second position."""
    return functional.avg_pool2d(x, 3, 2, 1)


def fit(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``x`` resized to the size of ``other``."""
    return functional.interpolate(x, other.shape[2:], mode="bilinear", align_corners=True)


class UpdateBlock(nn.Module):
    """One step at three levels: the coarser a level, the more often it moves."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru08 = ConvGRU(hidden, 6 + hidden)
        self.gru16 = ConvGRU(hidden, 2 * hidden)
        self.gru32 = ConvGRU(hidden, hidden)
        self.flow_head = FlowHead(hidden)
        self.mask = nn.Sequential(conv3(hidden, hidden), nn.ReLU(), nn.Conv2d(hidden, 9 * FACTOR**2, 1))

    def logits(self, fine: torch.Tensor) -> torch.Tensor:
        """[B, hidden, H, W] to [B, 16 * 9, H, W]; published weights have new pixels innermost, here taps are."""
        *inner, last = self.mask
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        weight, bias = (v.unflatten(0, (9, -1)).transpose(0, 1).flatten(0, 1) for v in (last.weight, last.bias))
        return 0.25 * functional.conv2d(nn.Sequential(*inner)(fine), weight, bias)

    def forward(
        self, states: Sequence[torch.Tensor], gates: Sequence[Sequence[torch.Tensor]], flow: torch.Tensor
    ) -> list[torch.Tensor]:
        """The states (1/4, 1/7, 1/14) after coarse, coarse and middle, and all three moved."""
        fine, middle, coarse = states
        coarse = self.gru32(coarse, gates[2], halve(middle))
        for _ in range(2):
            coarse = self.gru32(coarse, gates[2], halve(middle))
            middle = self.gru16(middle, gates[1], fit(halve(fine), middle), fit(coarse, middle))
        return [self.gru08(fine, gates[0], flow, fit(middle, fine)), middle, coarse]


def bounded(depth: torch.Tensor) -> torch.Tensor:
    """Depth between NEAREST and FARTHEST."""
    depth = functional.relu(depth - NEAREST) + NEAREST
    return FARTHEST - functional.relu(FARTHEST - depth)


def unit_normals(x: torch.Tensor) -> torch.Tensor:
    """[B, 4, H, W]: three components made a unit vector, and a confidence (kappa) made positive.

    The published a / (length + 1e-10) is said as a root-mean-square norm: one operation, whose length has no codes of
    its own, which could be 0.
    """
    vector = functional.rms_norm(x[:, :3].permute(0, 2, 3, 1), (3,), eps=1e-20).permute(0, 3, 1, 2)
    return torch.cat([vector * 3**-0.5, functional.elu(x[:, 3:]) + 1.01], 1)


def enlarge(flow: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, D, H, W] to [B, D, H * W, 16]: 4 x 4 new pixels each, convex combinations of the nine old ones around.

    ``mask`` [B, 16 * 9, H, W] holds their logits. Taps are innermost throughout, as the machine adds them up.
    """
    b, d, h, w = flow.shape
    new = FACTOR**2
    weights = torch.softmax(mask.permute(0, 2, 3, 1).reshape(b, 1, h * w, new, 9), -1)
    taps = functional.unfold(flow, 3, padding=1).view(b, d, 9, h * w).transpose(2, 3).unsqueeze(3)
    return torch.sum(weights * taps, -1)


def placed(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """New pixels [B, D, H * W, 16] in their places: [B, D, 4H, 4W]."""
    b, d = x.shape[:2]
    apart = x.view(b, d, height, width, FACTOR, FACTOR).permute(0, 1, 2, 4, 3, 5)
    return apart.reshape(b, d, FACTOR * height, FACTOR * width)


class RaftDpt(nn.Module):
    """Depth, its confidence, and normals with theirs, from normalised tokens."""

    depth_expectation_anchor: torch.Tensor

    def __init__(self, dim: int, width: DecoderWidth, registers: int = 4) -> None:
        super().__init__()
        self.learned, self.iterations = 1 + registers, width.iterations
        shared, hidden = width.trunk[0], width.hidden
        self.token2feature = TokenImages(dim, width, self.learned)
        self.decoder_mono = Trunk(dim, width.trunk)
        self.depth_regressor = nn.Sequential(
            conv3(shared, width.bins), nn.ReLU(), nn.Conv2d(width.bins, width.bins, 1)
        )
        n = width.normals
        layers = [conv3(shared, n), nn.ReLU(), nn.Conv2d(n, n, 1), nn.ReLU(), nn.Conv2d(n, n, 1), nn.ReLU()]
        self.normal_predictor = nn.Sequential(*layers, nn.Conv2d(n, 3, 1))
        self.context_feature_encoder = ContextEncoder((*width.features, dim), hidden)
        self.context_zqr_convs = nn.ModuleList(conv3(hidden, 3 * hidden) for _ in range(3))
        self.update_block = UpdateBlock(hidden)
        bins = torch.linspace(math.log(NEAREST), math.log(FARTHEST), width.bins).exp()
        self.register_buffer("depth_expectation_anchor", bins, persistent=False)

    def first_guess(self, shared: torch.Tensor) -> torch.Tensor:
        """[B, trunk + 2, H, W] to [B, 6, H, W]: depth in units below FARTHEST, confidence, normals."""
        features, depth_confidence, normal_confidence = shared.split([shared.shape[1] - 2, 1, 1], 1)
        share = self.depth_regressor(features).softmax(1)
        depth = torch.sum(share * self.depth_expectation_anchor.view(1, -1, 1, 1), 1, keepdim=True)
        depth = (bounded(depth) - FARTHEST) / UNIT
        normals = unit_normals(torch.cat([self.normal_predictor(features), normal_confidence], 1))
        return torch.cat([depth, depth_confidence, normals], 1)

    def forward(self, tokens: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, ...]:
        """Tokens [B, learned + height * width, C] to depth [B, 1, h, w], confidence (same) and normals [B, 4, h, w].

        h and w are four times the 3.5 pixels a patch of the finest image, rounded down.
        """
        b, _, c = tokens.shape
        patches = tokens[:, self.learned :].reshape(b, height, width, c)
        images = self.token2feature(patches, tokens[:, : self.learned].reshape(b, 1, 1, self.learned * c))
        flow = self.first_guess(self.decoder_mono(images))
        context = self.context_feature_encoder(images[:0:-1])
        states = [torch.tanh(start) for start, _ in context]
        convs = zip(context, self.context_zqr_convs, strict=True)
        gates = [conv(torch.relu(features)).chunk(3, 1) for (_, features), conv in convs]
        for _ in range(self.iterations):
            states = self.update_block(states, gates, flow)
            flow = flow + self.update_block.flow_head(states[0])
        h, w = flow.shape[-2:]
        flow = enlarge(flow, self.update_block.logits(states[0]))
        results = (bounded(flow[:, :1] * UNIT + FARTHEST), flow[:, 1:2], unit_normals(flow[:, 2:]))
        return tuple(placed(x, h, w) for x in results)
