"""Signal to quantization noise: its formula, its layers, and how it grows with the width."""

from __future__ import annotations

import dataclasses
from math import inf

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.depth.evaluate import calibration, held_out
from benchmarks.depth.model import trained
from benchmarks.digits import dataset
from benchmarks.zoo import NETWORKS, digits
from quantizer.flow import capture, quantize
from quantizer.fold import Fold
from quantizer.ranges import MinMax
from quantizer.recipe import Change, Recipe
from quantizer.sqnr import decibels, sqnr


class Block(nn.Module):
    """A small transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, T, 32]."""
        q, k, v = self.qkv(self.norm(x)).reshape(1, -1, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, -1, 32)
        return x + functional.gelu(self.proj(y))


def test_formula() -> None:
    assert decibels(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20.0)
    assert decibels(torch.ones(3), torch.ones(3)) == inf
    assert decibels(torch.zeros(3), torch.ones(3)) == -inf
    assert decibels(torch.tensor([3.0, 4.0, -inf]), torch.tensor([3.0, 4.5, -inf])) == pytest.approx(20.0)
    assert decibels(torch.tensor([1.0, -inf]), torch.tensor([1.0, 2.0])) == -inf


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "least"), [("w8a8", 25), ("w8a16", 35), ("w16a16", 60)])
def test_every_layer_is_above_its_width(recipe: str, least: float) -> None:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(1, 24, 32)
    rows = sqnr(model, quantize(model, (x,), [x], recipe), (x,))
    assert {row.module for row in rows} >= {"norm", "qkv", "proj"}
    assert min(row.sqnr_db for row in rows) >= least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_nano", "depth_anything_v2_nano", "metric3d_nano"])
def test_every_layer_at_16_bits_is_above_60_decibels(name: str) -> None:
    """On an image that calibration, on two others, did not see."""
    network = NETWORKS[name]
    *batches, frame = (network.images(1, seed) for seed in (1, 2, 3))
    model = capture(network.model(), frame)
    rows = sqnr(model, quantize(model, (frame,), batches, "w16a16"), (frame,))
    assert len(rows) > 40
    assert min(row.sqnr_db for row in rows) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "unet"])
def test_every_layer_of_a_trained_depth_model_is_above_60_decibels_at_16_bits(name: str) -> None:
    """On scenes that neither training nor calibration saw, of which the second goes beyond what these saw."""
    model, batches, frames = trained(name), calibration(), held_out(2)[0].split(1)
    q = quantize(model, (frames[0],), batches, "w16a16")
    rows = [row for frame in frames for row in sqnr(model, q, (frame,))]
    assert len(rows) > 60
    assert min(row.sqnr_db for row in rows) >= 60


def test_values_that_calibration_did_not_see_have_room_at_16_bits() -> None:
    """Where the range is just what was seen, one clipped value is more noise than all rounding."""
    images, _, unseen, _ = dataset()
    model = digits.trained()

    def lowest(recipe: Recipe) -> float:
        rows = sqnr(model, quantize(model, (unseen[:100],), [(images[:100],)], recipe), (unseen[:100],))
        return min(row.sqnr_db for row in rows)

    preset = Recipe.load("w16a16")
    as_seen = dataclasses.replace(preset, activation=preset.activation.changed(Change(range=MinMax())))
    assert lowest(preset) >= 60 > lowest(as_seen)


@pytest.mark.slow
def test_at_16_bits_no_layer_adds_noise_even_where_a_random_network_amplifies_it() -> None:
    network, shape = NETWORKS["mobilenet_v2"], (3, 64, 64)
    *batches, frame = (network.images(1, seed, shape) for seed in (1, 2, 3))
    model = capture(network.model(0, shape), frame)
    rows = sqnr(model, quantize(model, (frame,), batches, "w16a16"), (frame,))
    assert min(row.sqnr_db for row in rows) < 60
    assert min(row.own_db for row in rows) >= 70


def test_own_noise_of_a_layer_is_that_of_the_layer_alone() -> None:
    torch.manual_seed(0)
    first, second, x = nn.Sequential(nn.Linear(16, 32), nn.ReLU()), nn.Linear(32, 8), torch.randn(5, 16)
    with torch.no_grad():
        hidden = first(x)
    whole = nn.Sequential(first, second).eval()
    rows = sqnr(whole, quantize(whole, (x,), [x], "w4a4"), (x,))
    (alone,) = sqnr(second.eval(), quantize(second.eval(), (hidden,), [hidden], "w4a4"), (hidden,))
    assert rows[0].own_db == rows[0].sqnr_db
    assert rows[-1].own_db == pytest.approx(alone.sqnr_db)
    assert rows[-1].own_db > rows[-1].sqnr_db + 1


@pytest.mark.slow
def test_fewer_bits_are_noisier() -> None:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(1, 24, 32)
    last = [sqnr(model, quantize(model, (x,), [x], r), (x,))[-1].sqnr_db for r in ("w4a4", "w4a8", "w8a8", "w16a16")]
    assert last == sorted(last)


@pytest.mark.slow
def test_values_whose_channels_are_scaled_are_left_out() -> None:
    """They are in other units: what is left is as near as without."""
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(1, 24, 32)
    folded = dataclasses.replace(Recipe.load("w8a8"), fold=Fold())
    rows = sqnr(model, quantize(model, (x,), [x], folded), (x,))
    assert {row.module for row in rows} >= {"qkv", "proj"}
    assert "norm" not in {row.module for row in rows}
    assert min(row.sqnr_db for row in rows) >= 25
