"""Kernels that share loops give the reference's bits, at every width, and the bits that they give alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import quartic
from compiler.analysis.stripes import groups_of
from isa.machine import Machine
from tests.e2e.support import assert_bits, probes, quantized

EDGE = Machine.load("edge28")
SMALL = replace(EDGE, sram=replace(EDGE.sram, bytes=256 * 1024, bank_bytes=16 * 1024))
"""``edge28`` with a quarter of its SRAM."""


class Decoder(nn.Module):
    """A residual block, a stride, a skip connection, interpolation, a join of both and a head."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Conv2d(2 * channels, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.stem(x))
        b = a + self.point(torch.relu(self.depthwise(a)))
        low = torch.relu(self.down(b))
        high = functional.interpolate(low, scale_factor=2.0, mode="bilinear")
        return self.head(torch.cat([b, high], 1))


class Tokens(nn.Module):
    """The two linear layers of a transformer's block, on tokens: a single row of the machine's maps."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(functional.gelu(self.wide(self.norm(x))))


class Attention(nn.Module):
    """Two heads whose keys and values, in binary32, fit in half a MiB once and not twice."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(32, 3 * 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x).unflatten(-1, (3, 2, 64)).permute(2, 0, 3, 1, 4).unbind(0)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class ChannelNorms(nn.Module):
    """Norms over the channels of an image, between convolutions: what one sees as rows, the other sees as pixels."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3 if i == 0 else channels, channels, 3, padding=1) for i in range(2))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return torch.relu(self.second(torch.relu(y)))


CASES = [
    ("tiny", "w8a8", ChannelNorms(), (1, 3, 48, 40)),
    (SMALL, "f32", ChannelNorms(16), (1, 3, 96, 96)),
    ("tiny", "w8a8", Decoder(8), (1, 3, 48, 40)),
    ("tiny", "w4a4", Decoder(8), (2, 3, 48, 40)),
    ("tiny", "w8a16", Decoder(8), (1, 3, 48, 24)),
    (SMALL, "f32", Decoder(8), (1, 3, 96, 96)),
    (SMALL, "w4a8", Decoder(), (1, 3, 160, 128)),
    (SMALL, "w8a8", Tokens(), (2, 800, 64)),
]


@pytest.mark.slow
def test_attention_whose_factors_fit_once_shares_a_loop() -> None:
    """No score goes to DRAM: all traffic is less than the scores written once."""
    whole = Machine.load("quartdepth28-f32")
    machine = replace(whole, sram=replace(whole.sram, bytes=512 * 1024))
    shape = (1, 600, 32)
    q = quantized(Attention().eval(), shape, recipe="f32")
    exe = quartic.compile(q, machine)
    assert exe.schedule is not None
    scores, product = (row for row in exe.schedule.kernels if row.kernel.startswith("matmul"))
    assert (scores.shares, product.shares, scores.weight_slots) == (True, False, 1)
    total = quartic.timing(exe).profile.total
    moved = sum(total.dram_read_bytes.values()) + sum(total.dram_write_bytes.values())
    assert moved < 2 * 4 * 600 * 600
    assert_bits(q, probes(shape)[:2], machine)


@pytest.mark.slow
def test_scores_may_take_more_than_a_distance_between_rows_can_say() -> None:
    """Those of a head are one row of the map: 2100 x 2100 numbers, 17.6 MB; the instruction has 24 bits."""
    exe = quartic.compile(quantized(Attention().eval(), (1, 2100, 32), recipe="f32"), "quartdepth28-f32")
    assert exe.schedule is not None
    assert groups_of(exe.schedule.kernels)


class Pixels(nn.Module):
    """Wide features of the pixels of an image, which a 3x3 convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(4, 1024), nn.Conv2d(1024, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wide(x).permute(0, 3, 1, 2)
        return self.head(torch.relu(y)) + y[:, :4]


@pytest.mark.slow
def test_what_windows_read_again_may_be_of_a_row_longer_than_a_distance_can_say() -> None:
    """The linear layer's result is one row of 65 x 65 pixels of 1024 numbers: 17.3 MB."""
    shape = (1, 65, 65, 4)
    exe = assert_bits(quantized(Pixels().eval(), shape, recipe="f32"), probes(shape)[:1], "quartdepth28-f32")
    assert exe.schedule is not None
    assert any(row.shares and row.stripes[-1] == 65 * 65 for row in exe.schedule.kernels)


def test_rows_that_are_seen_in_two_shapes_are_shared() -> None:
    """A layer norm sees 48 x 40 pixels as 1920 rows of channels."""
    exe = quartic.compile(quantized(ChannelNorms().eval(), (1, 3, 48, 40), recipe="w8a8"), "tiny")
    assert exe.schedule is not None
    norm = next(row for row in exe.schedule.kernels if row.kernel.startswith("layer_norm"))
    assert (norm.tile_h, norm.stripes[-1]) == (1, 48 * 40)


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("case", CASES, ids=[f"{getattr(m, 'name', m)}-{r}-{type(n).__name__}" for m, r, n, _ in CASES])
def test_loops_are_shared_and_bits_are_the_references(case):
    machine, recipe, model, shape = case
    q = quantized(model.eval(), shape, recipe=recipe)
    exe = quartic.compile(q, machine)
    assert exe.schedule is not None
    assert groups_of(exe.schedule.kernels)
    again = quartic.compile(q, machine, schedule=exe.schedule)
    assert again.binary.to_bytes() == exe.binary.to_bytes()
    assert_bits(q, probes(shape)[:3], machine)
    assert_bits(q, probes(shape)[:1], machine, share_loops=False)
