"""The task of shapes: the same for a seed, and networks that fit it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.classify.networks import NETWORKS
from benchmarks.classify.shapes import CLASSES, SHAPES, pictures
from benchmarks.classify.train import Epochs, Subject


def test_a_seed_gives_the_same_pictures() -> None:
    (one, labels), (two, _), (other, _) = (pictures(8, seed) for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert one.shape == (8, 3, 32, 32)
    assert one.dtype == np.float32
    assert set(labels) <= set(range(CLASSES))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_covers_some_of_its_square_and_not_all(name: str) -> None:
    u, v = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))
    assert 0.1 < SHAPES[name](u, v).mean() < 0.8


def test_shapes_differ() -> None:
    u, v = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))
    masks = [inside(u, v) for inside in SHAPES.values()]
    assert all((a != b).mean() > 0.08 for i, a in enumerate(masks) for b in masks[:i])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("act", ["relu", "relu6"])
def test_networks_give_a_logit_per_class(network: str, act: str) -> None:
    x = torch.zeros(2, 3, 32, 32)
    wide, narrow = (Subject(network, 0, act, width).fresh().eval() for width in (1.0, 0.5))
    assert wide(x).shape == narrow(x).shape == (2, CLASSES)
    assert sum(p.numel() for p in narrow.parameters()) < 0.5 * sum(p.numel() for p in wide.parameters())


def test_two_of_one_seed_keep_step_and_change_order() -> None:
    one, two = Epochs(torch.arange(12), 5, 4), Epochs(torch.arange(12), 5, 4)
    first, again = torch.cat(list(one)), torch.cat(list(two))
    assert torch.equal(first, again)
    assert not torch.equal(torch.cat(list(one)), first)
